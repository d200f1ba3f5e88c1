"""BPF objects, programs, maps, links and pins through libbpf; bpf(2) itself only for what Debian 12's libbpf lacks."""
