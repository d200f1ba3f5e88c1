"""A capture predicted, or drilled: lab, enforcer, replay, observation and verification in one go."""
