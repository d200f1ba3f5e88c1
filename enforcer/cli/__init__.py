"""The ``enforcer`` command."""
