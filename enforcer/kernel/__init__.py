"""The only door to the kernel: bpf(2) through libbpf, netlink, namespaces, probes. Knows nothing of policy backends."""
