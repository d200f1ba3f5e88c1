"""What is asked of the kernel: bpf(2) through libbpf, netlink, libiptc, namespaces. Knows nothing of policy backends.

Two of them have connections of their own, because what they say is rules and members: ipset's, and the watch of its
sets, are in :mod:`enforcer.backends.iptables`.
"""
