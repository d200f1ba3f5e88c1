"""The interfaces to the kernel: bpf(2) through libbpf, netlink, libiptc, namespaces. Independent of the backends.

Two connections are elsewhere, because their content is rules and set members: ipset's, and the watch of its sets, are
in :mod:`enforcer.backends.iptables`.
"""
