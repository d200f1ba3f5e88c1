"""What the kernel does with a packet: the pipeline as a graph, and ``explain``, which walks it from the resources."""
