"""What a host runs: reads Calico policy, plans where it is enforced, and keeps it in the kernel.

Packages, in the order a policy passes through them::

    policy/     resources as written -> validated -> RuleTable      pure
    plan.py     RuleTable + HostFacts -> Plan                       pure
    backends/   Plan -> kernel state (xdp, iptables)                edge
    kernel/     bpf(2), netlink, probes, namespaces                 edge
    agent.py    desired -> actual, again and again

Nothing here imports ``dossim``: the simulator depends on what it simulates.
"""

__version__ = "0.1.0"
