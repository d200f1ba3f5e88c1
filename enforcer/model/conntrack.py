"""ConntrackFacts: a host's connection tracking table, as far as it could be read. Values only;
:mod:`enforcer.kernel.conntrack` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enforcer.model.vocabulary import Word


class Timeout(Word):
    """A timeout of an entry by the name of its sysctl, without ``nf_conntrack_``."""

    GENERIC = "generic_timeout"
    GRE = "gre_timeout"
    ICMP = "icmp_timeout"
    ICMPV6 = "icmpv6_timeout"
    SCTP_COOKIE_WAIT = "sctp_timeout_cookie_wait"
    TCP_ESTABLISHED = "tcp_timeout_established"
    TCP_SYN_RECV = "tcp_timeout_syn_recv"
    TCP_SYN_SENT = "tcp_timeout_syn_sent"
    TCP_UNACKNOWLEDGED = "tcp_timeout_unacknowledged"
    UDP = "udp_timeout"
    UDP_STREAM = "udp_timeout_stream"


@dataclass(frozen=True)
class ConntrackStatistics:
    """Counters of one network namespace, summed over its CPUs (``/proc/net/stat/nf_conntrack``).

    ``dropped``: packets that conntrack dropped because it had no room for a new entry (column ``drop``).
    ``early_drop``: entries it evicted to make room. ``insert_failed``: packets dropped because their entry could not
    be inserted.
    """

    dropped: int = 0
    early_drop: int = 0
    insert_failed: int = 0


@dataclass(frozen=True)
class ConntrackFacts:
    """The table's limits and the settings that decide how long an entry stays. None, or a timeout that is absent:
    could not be read; ``unknown`` says why.

    ``max``: entries that a network namespace may have (``nf_conntrack_max``, one value for the whole host).
    ``buckets``: of the hash table, which all namespaces share. ``count``: entries of the namespace now.
    ``timeouts`` in seconds. ``helpers``: the helpers that are loaded (``nf_conntrack_ftp``), each of which may create
    entries for connections it expects; None: cannot tell.
    ``zones``: the zones other than 0 that entries are in now, as far as entries were read; None: cannot tell.
    ``unknown``: what could not be read, and why, one sentence each.
    """

    max: int | None = None
    buckets: int | None = None
    count: int | None = None
    checksum: bool | None = None
    tcp_loose: bool | None = None
    tcp_be_liberal: bool | None = None
    timeouts: Mapping[Timeout, int] = field(default_factory=dict)
    helpers: tuple[str, ...] | None = None
    zones: tuple[int, ...] | None = None
    statistics: ConntrackStatistics | None = None
    unknown: tuple[str, ...] = ()

    @property
    def dropped(self) -> int | None:
        """Packets that conntrack itself dropped; None if the kernel does not count them."""
        return self.statistics.dropped if self.statistics else None


NOT_PROBED = ConntrackFacts(unknown=("not probed",))
