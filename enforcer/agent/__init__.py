"""``enforcer run``: watches the datastore and the kernel, applies changes, and restores what other programs remove."""
