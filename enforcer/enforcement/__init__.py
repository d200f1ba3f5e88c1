"""A pass over one network namespace: probe, plan, negotiate with the kernel, apply; and what is enforced now."""
