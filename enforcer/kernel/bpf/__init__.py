"""BPF objects, maps, links and pins, through libbpf: the project's one way to bpf(2)."""
