"""From a RuleTable and what a host can do to a Plan: which stage holds which entries. Pure."""
