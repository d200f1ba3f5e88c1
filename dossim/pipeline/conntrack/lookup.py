"""One packet in one world: its entry, or a new one, and what the tracker of its protocol makes of it.

``resolve_normal_ct`` and ``nf_conntrack_handle_packet`` of ``net/netfilter/nf_conntrack_core.c`` (Linux 6.18).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dossim.packet.fields import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE
from dossim.pipeline.conntrack.entry import Entry, Seen
from dossim.pipeline.conntrack.flow import World
from dossim.pipeline.conntrack.generic import track_generic
from dossim.pipeline.conntrack.gre import track_gre
from dossim.pipeline.conntrack.icmp import track_icmp, track_icmpv6
from dossim.pipeline.conntrack.sctp import track_sctp
from dossim.pipeline.conntrack.states import (
    Accepted,
    CtDirection,
    CtState,
    Reason,
    Refused,
    Remark,
    Reopens,
    Tracked,
)
from dossim.pipeline.conntrack.tcp import track_tcp
from dossim.pipeline.conntrack.tuples import GRE, FlowTuple
from dossim.pipeline.conntrack.udp import track_udp, track_udplite
from dossim.pipeline.conntrack.verdict import Branch, Outcome

_TRACKERS: dict[int, Callable[[Entry, CtDirection, Seen], Tracked]] = {
    TCP: track_tcp,
    UDP: track_udp,
    UDPLITE: track_udplite,
    ICMP: track_icmp,
    ICMPV6: track_icmpv6,
    SCTP: track_sctp,
    GRE: track_gre,
}


def in_world(world: World, packet: FlowTuple, seen: Seen) -> Branch:
    """The state of the packet, and the entry it would make."""
    entry = world.live_entry(seen.time_ns)
    direction = None if entry is None else entry.direction_of(packet)
    if entry is None or direction is None:
        inverse = packet.inverted()
        assert inverse is not None, "a flow has both directions"
        entry, direction = Entry(packet, inverse), CtDirection.ORIGINAL
    state, reason = _state_of(entry, direction)
    match _TRACKERS.get(packet.protocol, track_generic)(entry, direction, seen):
        case Refused(why, detail):
            return Branch(world, Outcome(CtState.INVALID, why, detail=detail, direction=direction))
        case Reopens():
            world.entry = None
            again = in_world(world, packet, seen)
            return Branch(world, replace(again.outcome, remark=Remark.TCP_REOPENED), again.pending)
        case Accepted(remark, deletes):
            entry.seen_reply |= direction is CtDirection.REPLY
            pending = None if entry.confirmed else entry
            if deletes:
                world.entry = None
            return Branch(world, _outcome(state, reason, remark, direction, entry), pending)


def _state_of(entry: Entry, direction: CtDirection) -> tuple[CtState, Reason]:
    if direction is CtDirection.REPLY:
        return CtState.ESTABLISHED, Reason.IS_REPLY
    if entry.seen_reply:
        return CtState.ESTABLISHED, Reason.REPLY_SEEN
    return CtState.NEW, Reason.NO_REPLY_YET if entry.confirmed else Reason.FIRST


def _outcome(state: CtState, reason: Reason, remark: Remark | None, direction: CtDirection, entry: Entry) -> Outcome:
    protocol = entry.tcp or entry.sctp
    name = "" if protocol is None else protocol.state.name
    timeout = None if remark is Remark.TCP_DELETED else entry.timeout_s
    return Outcome(state, reason, remark, "", direction, name, timeout, entry.assured)


def quoting(world: World, quoted: FlowTuple, seen: Seen) -> Outcome:
    """The entry's address in the quoted direction must be the one that the error was sent to."""
    entry = world.live_entry(seen.time_ns)
    direction = None if entry is None else entry.direction_of(quoted)
    if direction is None:
        return Outcome(CtState.INVALID, Reason.ICMP_QUOTE_UNKNOWN)
    if quoted.destination != seen.ip.destination.packed:
        return Outcome(CtState.INVALID, Reason.ICMP_QUOTE_OTHER)
    return Outcome(CtState.RELATED, Reason.QUOTES_FLOW, direction=direction)
