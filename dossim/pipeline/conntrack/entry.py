"""One entry of the connection tracking table (``struct nf_conn``), and the packet that a tracker looks at."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from dossim.packet.fields import IP
from dossim.pipeline.conntrack.sctp_flow import SctpFlow
from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.states import At, CtDirection
from dossim.pipeline.conntrack.tcp_flow import TcpFlow
from dossim.pipeline.conntrack.tuples import FlowTuple

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Seen:
    """One packet at conntrack. ``buf`` is what it carries, from the transport's header to the end of the packet."""

    ip: IP
    protocol: int
    buf: bytes
    at: At
    time_ns: int
    settings: Settings

    @property
    def verifies(self) -> bool:
        """Whether the checksum is looked at (``nf_conntrack_checksum``)."""
        return self.settings.checksum and self.at is At.PREROUTING


@dataclass
class UdpFlow:
    """``stream_ns``: an answered flow that still has packets after this time has the longer timeout."""

    stream_ns: int = 0


@dataclass
class Entry:
    """``timeout_s`` counts from the last packet that refreshed it; an entry that is not confirmed does not expire."""

    original: FlowTuple
    reply: FlowTuple
    confirmed: bool = False
    seen_reply: bool = False
    assured: bool = False
    timeout_s: int = 0
    refreshed_ns: int = 0
    tcp: TcpFlow | None = None
    udp: UdpFlow | None = None
    sctp: SctpFlow | None = None

    def direction_of(self, packet: FlowTuple) -> CtDirection | None:
        """The reply direction where both are the same (a packet to its own address and port): that tuple is inserted
        last, at the head of the hash chain (``__nf_conntrack_hash_insert``).
        """
        if packet == self.reply:
            return CtDirection.REPLY
        return CtDirection.ORIGINAL if packet == self.original else None

    def refresh(self, time_ns: int, timeout_s: int) -> None:
        """``nf_ct_refresh_acct``."""
        self.refreshed_ns, self.timeout_s = time_ns, timeout_s

    def expires_s(self, time_ns: int) -> float:
        """Seconds left."""
        return (self.refreshed_ns - time_ns) / SECOND_NS + self.timeout_s

    def is_expired(self, time_ns: int) -> bool:
        return self.confirmed and time_ns >= self.refreshed_ns + self.timeout_s * SECOND_NS

    def copy(self) -> Entry:
        return deepcopy(self)
