"""The table of connections: packets in, in the order of arrival at -200; verdicts out.

``nf_conntrack_in``, ``resolve_normal_ct`` and ``__nf_conntrack_confirm`` of ``net/netfilter/nf_conntrack_core.c``
(Linux 6.18), on one CPU, with a table that never fills up, without NAT, helpers, zones and templates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress

from dossim.model.host import Host
from dossim.packet.cut import CutError
from dossim.packet.fields import IP, SCTP, TCP, IPv4
from dossim.pipeline.conntrack.answers import answer, is_listening, repeated_syn_ack
from dossim.pipeline.conntrack.entry import Entry, Seen
from dossim.pipeline.conntrack.flow import Flow, World, flow_key
from dossim.pipeline.conntrack.icmp import Ordinary, Quotes, Untracked, before_lookup
from dossim.pipeline.conntrack.lookup import in_world, quoting
from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.states import (
    At,
    Coin,
    CtState,
    Reason,
    Refused,
)
from dossim.pipeline.conntrack.tuples import FlowTuple, Payload, payload_of, tuple_at
from dossim.pipeline.conntrack.verdict import Branch, Outcome, Verdict

# Both addresses, and the protocol where it is known.
_Kin = tuple[frozenset[bytes], int | None]


class Conntrack:
    """The table of one network namespace. Not to be shared between threads."""

    def __init__(self, host: Host, settings: Settings | None = None) -> None:
        self._host = host
        self._settings = Settings() if settings is None else settings
        self._flows: dict[FlowTuple, Flow] = {}
        self._lost: set[_Kin] = set()
        self._all_lost = False

    def observe(self, ip: IP, time_ns: int, *, untracked: bool = False) -> Verdict:
        """A packet at PREROUTING -200, trimmed to its own length and reassembled; a datagram at the time of its last
        fragment. ``untracked``: raw (-300) has marked it so.

        An entry it makes exists only after :meth:`delivered` or :meth:`passed`: of a packet that is dropped, say
        nothing. Raises CutError where the capture cut what decides; the flow is then open from there on.
        """
        return self._observe(ip, time_ns, At.PREROUTING, untracked=untracked)

    def delivered(
        self, verdict: Verdict, *, states: Collection[CtState] = tuple(CtState), answers: bool = True
    ) -> None:
        """The packet of this verdict, the last one observed, has passed LOCAL_IN, and the transport takes it.

        Of several possible states only where it is one of ``states``. ``answers``: whether the host's answer gets as
        far as its own conntrack, and from there out.
        """
        self._confirm(verdict, states)
        flow, seen = verdict.flow, verdict.seen
        if not answers or flow is None or seen is None:
            return
        worlds = [branch.world for branch in verdict.branches if branch.outcome.state in states]
        if is_listening(seen, self._host) and worlds:
            before = flow.worlds
            flow.depend_on_isn()
            worlds = worlds if flow.worlds is before else flow.worlds
            self._flows[flow.key] = flow
        for world in worlds:
            self._answer(seen, flow, world)
        self._forget(flow)

    def passed(self, verdict: Verdict, *, states: Collection[CtState] = tuple(CtState)) -> None:
        """The packet of this verdict, the last one observed, has passed POSTROUTING (forwarded), or LOCAL_IN and then
        was dropped by the transport: that makes its entry, and no answer.
        """
        self._confirm(verdict, states)

    def sent(self, ip: IP, time_ns: int) -> Verdict:
        """A packet of the host's own, at OUTPUT -200; it passes POSTROUTING."""
        verdict = self._observe(ip, time_ns, At.OUTPUT, untracked=False)
        self._confirm(verdict, tuple(CtState))
        return verdict

    def may_have_passed(self, ip: IP | None) -> None:
        """A packet of which nobody knows whether it was here. Its flow is open from there on, or every flow that may be
        its own; without ``ip`` that is any.
        """
        if ip is None:
            self._all_lost = True
            for flow in self._flows.values():
                flow.is_open = True
            return
        self._lose(ip, *_legible(ip))

    def is_fresh(self, ip: IP) -> bool:
        """Whether nothing can be there of the packet's flow: neither an entry nor a packet of which nobody knows."""
        key = _key(ip)
        flow = None if key is None else self._flows.get(key)
        return key is not None and (flow is None or flow.is_empty) and not self._is_lost(key)

    def forget(self, ip: IP) -> None:
        """A packet that was cut, the last one observed, whose flow was fresh: it was dropped, and has left nothing."""
        key = _key(ip)
        if key is not None:
            self._flows.pop(key, None)

    def entries(self, time_ns: int) -> list[tuple[Entry | None, ...]]:
        """The entries there are, to be read only: for each flow that may have one, the entry in each world."""
        found = (tuple(world.live_entry(time_ns) for world in flow.worlds) for flow in self._flows.values())
        return [worlds for worlds in found if any(worlds)]

    # -- one packet ------------------------------------------------------------------------------------------------

    def _observe(self, ip: IP, time_ns: int, at: At, *, untracked: bool) -> Verdict:
        packet: FlowTuple | None = None
        payload: Payload | None = None
        try:
            payload = payload_of(ip)
            if payload is None:
                return _sure(_untracked() if untracked else Outcome(CtState.INVALID, Reason.NO_PROTOCOL))
            buf = _all(ip)
            seen = Seen(ip, payload.protocol, buf[payload.at :], at, time_ns, self._settings)
            packet = tuple_at(buf, 0, ip.version, payload)
            return self._decide(seen, packet, untracked=untracked)
        except CutError:
            self._lose(ip, None if payload is None else payload.protocol, packet)
            raise

    def _decide(self, seen: Seen, packet: FlowTuple | None, *, untracked: bool) -> Verdict:
        key = None if packet is None else flow_key(packet)
        flow = None if key is None else self._flows.get(key) or Flow(key, is_open=self._is_lost(key))
        if untracked:
            branches = [] if flow is None else [Branch(world, _untracked()) for world in flow.worlds]
            return Verdict((_untracked(),), seen=seen, flow=flow, branches=tuple(branches))
        match before_lookup(seen):
            case Refused(reason, detail):
                return _sure(Outcome(CtState.INVALID, reason, detail=detail))
            case Untracked():
                return _sure(Outcome(CtState.UNTRACKED, Reason.ICMPV6_NEIGHBOUR))
            case Quotes(quoted):
                return self._related(seen, quoted)
            case Ordinary():
                pass
        if packet is None:
            return _sure(Outcome(CtState.INVALID, Reason.NO_TUPLE))
        if flow is None:
            return _sure(Outcome(CtState.INVALID, Reason.NO_REPLY_TUPLE, detail=f"type {packet.icmp_type}"))
        if flow.is_open:
            return _open_verdict(seen, packet)
        for world in flow.worlds:
            while (repeated := repeated_syn_ack(world, seen.time_ns)) is not None:
                self._send(*repeated, flow, world)
        branches = [in_world(world, packet, seen) for world in flow.worlds]
        return _verdict(branches, seen, flow)

    def _related(self, seen: Seen, quoted: FlowTuple) -> Verdict:
        """The rest of ``nf_conntrack_inet_error``: an error does not refresh the entry, nor is it a reply."""
        key = flow_key(quoted)
        flow = None if key is None else self._flows.get(key)
        if flow is None and key is not None and self._is_lost(key):
            flow = Flow(key, is_open=True)
        if flow is None:
            return _sure(Outcome(CtState.INVALID, Reason.ICMP_QUOTE_UNKNOWN))
        branches = [Branch(world, quoting(world, quoted, seen)) for world in flow.worlds]
        if flow.is_open:
            unknown = Outcome(CtState.INVALID, Reason.ICMP_QUOTE_UNKNOWN)
            return Verdict((Outcome(CtState.RELATED, Reason.QUOTES_FLOW), unknown), Coin.CAPTURE_CUT)
        return _verdict(branches, seen, None)

    def _confirm(self, verdict: Verdict, states: Collection[CtState]) -> None:
        """``__nf_conntrack_confirm``: after the last hook."""
        flow = verdict.flow
        for branch in verdict.branches:
            if branch.pending is not None and branch.outcome.state in states and flow is not None:
                branch.pending.confirmed = True
                branch.world.entry = branch.pending
                self._flows[flow.key] = flow

    def _answer(self, seen: Seen, flow: Flow, world: World) -> None:
        ip = answer(seen, self._host, world)
        if ip is not None:
            self._send(ip, seen.time_ns, flow, world)

    def _send(self, ip: IP, time_ns: int, flow: Flow, world: World) -> None:
        """A packet of the host's own, in one world."""
        payload = payload_of(ip)
        assert payload is not None, "an answer is whole"
        buf = _all(ip)
        packet = tuple_at(buf, 0, ip.version, payload)
        assert packet is not None, "an answer is whole"
        own = Seen(ip, payload.protocol, buf[payload.at :], At.OUTPUT, time_ns, self._settings)
        branch = in_world(world, packet, own)
        if branch.pending is not None:
            branch.pending.confirmed = True
            world.entry = branch.pending
            self._flows[flow.key] = flow

    def _forget(self, flow: Flow) -> None:
        if flow.is_empty:
            self._flows.pop(flow.key, None)

    def _lose(self, ip: IP, protocol: int | None, packet: FlowTuple | None) -> None:
        """A packet that may have changed an entry, or not: that flow is open. If it is not known whose packet it is, so
        is every flow between its addresses, of its protocol where that is known.
        """
        key = None if packet is None else flow_key(packet)
        if key is not None:
            self._flows.setdefault(key, Flow(key)).is_open = True
        elif packet is None:
            self._lost.add((frozenset({ip.source.packed, ip.destination.packed}), protocol))
            for flow in self._flows.values():
                flow.is_open |= self._is_lost(flow.key)

    def _is_lost(self, key: FlowTuple) -> bool:
        ends = frozenset({key.source, key.destination})
        return self._all_lost or (ends, None) in self._lost or (ends, key.protocol) in self._lost


def _legible(ip: IP) -> tuple[int | None, FlowTuple | None]:
    """The protocol and the tuple of a packet, None where they cannot be read."""
    protocol: int | None = None
    with suppress(CutError):
        payload = payload_of(ip)
        protocol = None if payload is None else payload.protocol
        return protocol, None if payload is None else tuple_at(_all(ip), 0, ip.version, payload)
    return protocol, None


def _key(ip: IP) -> FlowTuple | None:
    _, packet = _legible(ip)
    return None if packet is None else flow_key(packet)


def _open_verdict(seen: Seen, packet: FlowTuple) -> Verdict:
    """What the packet itself decides stands; else an unknown entry may make anything of it."""
    outcome = in_world(World(), packet, seen).outcome
    if outcome.state is CtState.INVALID and outcome.reason in _OF_PACKET_ALONE:
        return _sure(outcome)
    possible = (
        Outcome(CtState.NEW, Reason.NO_REPLY_YET),
        Outcome(CtState.ESTABLISHED, Reason.REPLY_SEEN),
        Outcome(CtState.INVALID, Reason.TCP_STATE),
    )
    return Verdict(possible if packet.protocol in (TCP, SCTP) else possible[:2], Coin.CAPTURE_CUT)


_OF_PACKET_ALONE = frozenset(
    {
        Reason.WRONG_FAMILY,
        Reason.TCP_SHORT,
        Reason.TCP_DATA_OFFSET,
        Reason.TCP_CHECKSUM,
        Reason.TCP_FLAGS,
        Reason.UDP_SHORT,
        Reason.UDP_LENGTH,
        Reason.UDP_CHECKSUM,
        Reason.UDPLITE_SHORT,
        Reason.UDPLITE_COVERAGE,
        Reason.UDPLITE_NO_CHECKSUM,
        Reason.UDPLITE_CHECKSUM,
        Reason.SCTP_SHORT,
        Reason.SCTP_CHECKSUM,
        Reason.SCTP_CHUNKS,
    }
)


def _verdict(branches: Iterable[Branch], seen: Seen, flow: Flow | None) -> Verdict:
    kept = tuple(branches)
    different = tuple({branch.outcome.key: branch.outcome for branch in reversed(kept)}.values())
    outcomes = tuple(sorted(different, key=lambda outcome: list(CtState).index(outcome.state)))
    coin = Coin.HOST_ISN if len(outcomes) > 1 else None
    return Verdict(outcomes, coin, seen, flow, kept)


def _sure(outcome: Outcome) -> Verdict:
    return Verdict((outcome,))


def _untracked() -> Outcome:
    return Outcome(CtState.UNTRACKED, Reason.NOTRACK)


def _all(ip: IP) -> bytes:
    """The packet, from its header to its own end."""
    return ip.buf[: ip.total_length] if isinstance(ip, IPv4) else ip.buf
