"""Metrics, health and the status of a running agent: read from its state and from the kernel, never changing either."""
