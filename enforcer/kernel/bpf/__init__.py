"""BPF objects, programs, maps, links and pins, through libbpf; bpf(2) itself only where Debian 12's libbpf cannot."""
