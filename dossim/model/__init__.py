"""Values all of the simulator shares: the described host, where packets end, errors."""
