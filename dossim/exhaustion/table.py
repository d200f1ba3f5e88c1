"""The table of one host: limits and timeouts as read, and what is assumed in place of what was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enforcer.model.conntrack import ConntrackFacts, Timeout

# Linux's defaults (nf_conntrack_proto_*.c); the size is that of a host with more than 4 GiB.
DEFAULT_SIZE = 262_144
UNLIMITED = 2**63  # nf_conntrack_max 0: the kernel compares nothing (__nf_conntrack_alloc)
DEFAULT_TIMEOUTS: Mapping[Timeout, int] = {
    Timeout.GENERIC: 600,
    Timeout.GRE: 30,
    Timeout.ICMP: 30,
    Timeout.ICMPV6: 30,
    Timeout.SCTP_COOKIE_WAIT: 3,
    Timeout.TCP_ESTABLISHED: 432_000,
    Timeout.TCP_SYN_RECV: 60,
    Timeout.TCP_SYN_SENT: 120,
    Timeout.TCP_UNACKNOWLEDGED: 300,
    Timeout.UDP: 30,
    Timeout.UDP_STREAM: 120,
}
LINUX_DEFAULTS = ConntrackFacts(
    max=DEFAULT_SIZE,
    buckets=DEFAULT_SIZE,
    count=0,
    checksum=True,
    tcp_loose=True,
    tcp_be_liberal=False,
    timeouts=DEFAULT_TIMEOUTS,
    helpers=(),
    zones=(),
)


@dataclass(frozen=True)
class Table:
    """A table of known size. ``count`` entries are there before. ``assumed``: sentences, one for each value that is
    assumed rather than read.
    """

    limit: int
    buckets: int
    count: int = 0
    tcp_loose: bool = True
    checksum: bool = True
    timeouts: Mapping[Timeout, int] = field(default_factory=lambda: DEFAULT_TIMEOUTS)
    assumed: tuple[str, ...] = ()

    @property
    def free(self) -> int:
        return max(self.limit - self.count, 0)


def assumed_table() -> Table:
    """Linux's defaults, which say that they are assumed."""
    return Table(DEFAULT_SIZE, DEFAULT_SIZE, assumed=("Linux's defaults, an empty table and no helpers: no --host",))


def table_of(facts: ConntrackFacts) -> Table | str:
    """The table; or why nothing can be said: its size was not read."""
    if facts.max is None or facts.buckets is None:
        missing = " and ".join(
            name
            for name, value in (("nf_conntrack_max", facts.max), ("nf_conntrack_buckets", facts.buckets))
            if value is None
        )
        why = "; ".join(facts.unknown) or "not in the facts"
        return f"{missing} could not be read on that host ({why})"
    assumed = []
    if facts.count is None:
        assumed.append("an empty table: nf_conntrack_count was not read")
    if facts.tcp_loose is None:
        assumed.append("tcp_loose 1: not read")
    if facts.checksum is None:
        assumed.append("nf_conntrack_checksum 1: not read")
    if facts.helpers is None:
        assumed.append("no helper adds entries for expected connections: which are loaded could not be read")
    elif facts.helpers:
        assumed.append(f"{', '.join(facts.helpers)} add no entries for expected connections")
    if facts.zones is None:
        assumed.append("one zone: which zones entries are in could not be read")
    elif facts.zones:
        zones = ", ".join(map(str, facts.zones))
        assumed.append(f"each flow is in one zone, of those in use ({zones}): a flow in several has an entry in each")
    for item, default in DEFAULT_TIMEOUTS.items():
        if item not in facts.timeouts:
            assumed.append(f"{item} {default} s: not read")
    return Table(
        limit=facts.max or UNLIMITED,
        buckets=facts.buckets,
        count=facts.count or 0,
        tcp_loose=facts.tcp_loose is not False,
        checksum=facts.checksum is not False,
        timeouts={**DEFAULT_TIMEOUTS, **facts.timeouts},
        assumed=tuple(assumed),
    )
