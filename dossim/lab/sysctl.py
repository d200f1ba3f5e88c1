"""Kernel settings of a lab's two namespaces: no traffic of their own, and as the Host describes.

Written to ``/proc/sys/net`` while the calling thread is in the namespace. What is set, and why, is listed in
``docs/lab.md``; the model assumes exactly these.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dossim.model.host import Host

_ROOT = Path("/proc/sys/net")

# No packet may appear in a lab except those that the drill sends.
_QUIET = {
    "ipv6/conf/all/accept_dad": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/default/router_solicitations": 0,
    "ipv6/conf/default/addr_gen_mode": 1,  # no link-local address, so no MLD and no neighbour discovery
    "ipv6/conf/default/mldv2_unsolicited_report_interval": 0,
}

# Fragment queues must not overflow or be abandoned: the model has no memory limit and no distance.
_FRAGMENTS = {
    "ipv4/ipfrag_high_thresh": 1 << 30,
    "ipv4/ipfrag_low_thresh": 1 << 29,
    "ipv4/ipfrag_max_dist": 0,
    "ipv6/ip6frag_high_thresh": 1 << 30,
    "netfilter/nf_conntrack_frag6_high_thresh": 1 << 30,
    "netfilter/nf_conntrack_frag6_low_thresh": 1 << 29,
}
_FRAGMENT_TIMEOUTS = ("ipv4/ipfrag_time", "ipv6/ip6frag_time", "netfilter/nf_conntrack_frag6_timeout")


def write(settings: dict[str, int]) -> None:
    """Set each of these. A setting that this kernel does not have is skipped: it needs none."""
    for name, value in settings.items():
        with suppress(FileNotFoundError):
            (_ROOT / name).write_text(str(value))


def quiet_peer() -> None:
    """The peer namespace only sends: it discards replies without answering."""
    write(_QUIET | {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1})


def quiet_victim(host: Host, *, fragment_timeout_s: int) -> None:
    """As the host is described; ``fragment_timeout_s`` is how long an incomplete datagram waits."""
    write(_QUIET | _FRAGMENTS | dict.fromkeys(_FRAGMENT_TIMEOUTS, fragment_timeout_s))
    write(
        {
            "ipv4/ip_forward": int(host.forward),
            "ipv6/conf/all/forwarding": int(host.forward),
            "ipv4/conf/all/rp_filter": host.rp_filter,
            "ipv4/conf/default/rp_filter": host.rp_filter,
            "ipv4/conf/all/log_martians": 0,
            "ipv4/conf/default/log_martians": 0,
            "ipv4/conf/all/send_redirects": 0,
            "ipv4/conf/default/send_redirects": 0,
            "ipv4/conf/all/accept_source_route": 0,
            "ipv4/conf/default/accept_source_route": 0,
            # Answering every packet of a flood costs time and changes nothing that is observed.
            "ipv4/icmp_ratelimit": 1000,
        }
    )


def conntrack_entries() -> int:
    """Connections tracked in the current namespace."""
    return int((_ROOT / "netfilter/nf_conntrack_count").read_text())
