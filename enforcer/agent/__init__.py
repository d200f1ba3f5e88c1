"""``enforcer run``: follows its datastore and the kernel, applies again, and puts back what others take away."""
