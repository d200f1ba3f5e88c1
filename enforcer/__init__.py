"""What a host runs: reads Calico policy, plans where it is enforced, and keeps it in the kernel.

Packages, in the order a policy passes through them::

    policy/       resources -> validated -> RuleTable               pure
    planning/     RuleTable + HostFacts -> Plan                     pure
    backends/     Plan -> kernel state (xdp, iptables, nftables)    edge
    kernel/       bpf(2), netlink, libiptc, probes, namespaces      edge
    enforcement/  one pass through all of these
    agent/        a pass after each change

Nothing here imports ``dossim``: the simulator depends on what it simulates.
"""

__version__ = "0.1.0"
