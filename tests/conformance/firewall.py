"""A foreign firewall on a host, in place of Calico's normal policy, which denies by default and is not enforced here.

It uses iptables-legacy like the enforcer: an ACCEPT there ends one table, whereas nftables would evaluate the packet
again.
"""

from __future__ import annotations

from tests.conformance.topology import Host

IPTABLES = ("iptables-legacy", "ip6tables-legacy")
TRACKED = ("-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")


def close(host: Host, *, inbound: tuple[int, ...] = (), outbound: tuple[int, ...] = ()) -> None:
    """Drop everything in filter except replies of tracked connections and new TCP connections to these ports."""
    for command in IPTABLES:
        for chain, ports in (("INPUT", inbound), ("OUTPUT", outbound)):
            host.run(command, "-w", "-P", chain, "DROP")
            host.run(command, "-w", "-A", chain, *TRACKED)
            for port in ports:
                host.run(command, "-w", "-A", chain, "-p", "tcp", "--dport", str(port), "-j", "ACCEPT")


def drop_in_mangle(host: Host) -> None:
    """Drop everything that is received, before filter."""
    for command in IPTABLES:
        host.run(command, "-w", "-t", "mangle", "-A", "PREROUTING", "-j", "DROP")


def chains_of_ours(host: Host) -> list[str]:
    """Every line that names a chain of the enforcer, in any table of either family."""
    return [
        line for command in IPTABLES for line in host.run(f"{command}-save").splitlines() if "enf-" in line
    ]  # fmt: skip


def tracked_connections(host: Host) -> int:
    return int(host.sysctl("net/netfilter/nf_conntrack_count"))
