"""The new flows of a capture: the packets for which conntrack makes an entry, and how long that entry stays.

A packet makes one if it reaches conntrack tracked, may begin a connection, has none yet, and is neither dropped before
the last hook (LOCAL_IN, POSTROUTING), where the kernel confirms the entry, nor answered by a reset that ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dossim.engine.new_flows import BegunFlows
from dossim.engine.sweep import Span, merged, span_of
from dossim.engine.totals import Kind
from dossim.exhaustion.table import Table
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.columns import Bool
from dossim.packet.fields import TCP
from dossim.predict.prediction import FATE_CODE, STAGE_CODE, Prediction
from enforcer.model.conntrack import Timeout
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Stage, Word

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


class FlowClass(Word):
    """What a new flow is to conntrack; each class has one timeout until its first reply."""

    UDP = "UDP"
    SYN_RECV = "TCP SYN to an open port"
    SYN_SENT = "TCP SYN forwarded"
    CLOSED_PORT = "TCP to a closed port"
    PICK_UP = "TCP forwarded mid-stream"
    ICMP = "ICMP"
    ICMPV6 = "ICMPv6"
    GRE = "GRE"
    SCTP = "SCTP"
    GENERIC = "another protocol"


# None: the host's RST deletes the entry at once (nf_conntrack_tcp_packet: a RST before any other reply).
TIMEOUT_OF: Mapping[FlowClass, Timeout | None] = {
    FlowClass.UDP: Timeout.UDP,
    FlowClass.SYN_RECV: Timeout.TCP_SYN_RECV,
    FlowClass.SYN_SENT: Timeout.TCP_SYN_SENT,
    FlowClass.CLOSED_PORT: None,
    FlowClass.PICK_UP: Timeout.TCP_UNACKNOWLEDGED,
    FlowClass.ICMP: Timeout.ICMP,
    FlowClass.ICMPV6: Timeout.ICMPV6,
    FlowClass.GRE: Timeout.GRE,
    FlowClass.SCTP: Timeout.SCTP_COOKIE_WAIT,
    FlowClass.GENERIC: Timeout.GENERIC,
}
assert set(TIMEOUT_OF) == set(FlowClass)
CLASSES = tuple(FlowClass)  # in the order of enum flow_class


@dataclass(frozen=True)
class NewFlows:
    """``reached`` packets reach conntrack tracked; of them ``dropped_later`` are dropped before their entry would be
    confirmed (a tracked Deny, or no route). ``untracked`` packets have been taken out of connection tracking.
    ``flows``: new flows by class; ``beginning``: packets that begin one or repeat its first packet. ``perhaps``:
    packets that may or may not make an entry, because their end is undetermined or the model has no rule for them.
    ``seconds``: from the first packet of the capture to its last. ``is_more``: there are more new flows than those
    counted, because only so many are told apart.
    """

    reached: int = 0
    untracked: int = 0
    dropped_later: int = 0
    perhaps: int = 0
    beginning: int = 0
    flows: Mapping[FlowClass, int] = field(default_factory=dict)
    seconds: float = 0.0
    is_more: bool = False

    def merged(self, other: NewFlows) -> NewFlows:
        """Of the packets of both, which have no flow in common and are of the same time."""
        return NewFlows(
            self.reached + other.reached,
            self.untracked + other.untracked,
            self.dropped_later + other.dropped_later,
            self.perhaps + other.perhaps,
            self.beginning + other.beginning,
            {item: count for item in FlowClass if (count := self.flows.get(item, 0) + other.flows.get(item, 0))},
            max(self.seconds, other.seconds),
            self.is_more or other.is_more,
        )

    @property
    def total(self) -> int:
        return sum(self.flows.values())

    @property
    def leaving(self) -> int:
        """New flows whose entry stays."""
        return sum(count for item, count in self.flows.items() if TIMEOUT_OF[item] is not None)


def new_flows(capture: Capture, prediction: Prediction, host: Host, table: Table) -> NewFlows:
    """Counts the new flows of a capture that ends as predicted."""
    counter = FlowCounter(host, table)
    counter.last(span_of(capture.timestamp_ns))
    ends = _Ends(prediction.fate, prediction.stage, prediction.untracked, table)
    counter.begun.add(capture, ends.leaves)
    return counter._found(ends)


class FlowCounter:
    """Counts the new flows of a capture, part by part. ``begun``: counts the packets that leave an entry."""

    def __init__(self, host: Host, table: Table) -> None:
        """Raises MemoryError."""
        self._table = table
        self.begun = BegunFlows(
            Nets.of(address.ip for address in host.addresses),
            [item.port for item in host.listen if item.protocol == TCP],
            forward=host.forward,
            tcp_loose=table.tcp_loose,
        )
        self._times: Span | None = None

    def last(self, span: Span | None) -> None:
        """The capture has other packets at these times, and between; None: none."""
        self._times = merged(self._times, span)

    def of(self, kinds: Mapping[tuple[Kind, bool], int]) -> NewFlows:
        """Of packets that end so, and whether they are untracked."""
        rows = np.array([(*kind[:2], untracked) for kind, untracked in kinds], np.uint8).reshape(-1, 3)
        packets = np.array(list(kinds.values()), np.int64)
        return self._found(_Ends(rows[:, 0], rows[:, 1], rows[:, 2] != 0, self._table, packets))

    def _found(self, ends: _Ends) -> NewFlows:
        seconds = float(self._times[1] - self._times[0]) / 1e9 if self._times else 0.0
        begun = self.begun.counts
        return NewFlows(
            reached=ends.count(ends.reached),
            untracked=ends.count(ends.untracked),
            dropped_later=ends.count(ends.reached & ~ends.leaves & ~ends.open),
            perhaps=ends.count(ends.open) + begun.unknown,
            beginning=begun.beginning,
            flows={item: count for item, count in zip(CLASSES, begun.flows, strict=True) if count},
            seconds=seconds,
            is_more=bool(begun.is_more),
        )


def reaches_conntrack(prediction: Prediction, table: Table) -> Bool:
    """bool[N]: conntrack sees the packet, and it is tracked."""
    return _Ends(prediction.fate, prediction.stage, prediction.untracked, table).reached


class _Ends:
    """Which packets, or kinds of them, reach conntrack and which of them leave an entry, each bool[N]. ``packets``: how
    many each kind has.
    """

    def __init__(self, fate: U8, stage: U8, untracked: Bool, table: Table, packets: I64 | None = None) -> None:
        self._packets = packets
        is_open = fate == FATE_CODE[Fate.UNDETERMINED]
        sent = fate != FATE_CODE[Fate.NOT_SENDABLE]
        dropped = fate == FATE_CODE[Fate.DROPPED]
        passed_raw = ~dropped | (stage >= STAGE_CODE[Stage.CONNTRACK])
        self.untracked: Bool = untracked & sent & passed_raw
        self.reached: Bool = sent & passed_raw & ~untracked
        # What the socket refuses is INVALID to conntrack as well, unless conntrack verifies no checksums.
        uncertain = dropped & (stage == STAGE_CODE[Stage.EGRESS])
        if not table.checksum:
            uncertain |= dropped & (stage == STAGE_CODE[Stage.SOCKET])
        self.open: Bool = self.reached & (is_open | uncertain)
        self.leaves: Bool = self.reached & ~dropped & ~self.open

    def count(self, of: Bool) -> int:
        """How many packets these are."""
        return int(np.count_nonzero(of) if self._packets is None else self._packets[of].sum())
