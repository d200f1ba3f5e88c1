"""Packets at conntrack, one after the other: what the table of connections says of each, and what each leaves in it.

Conntrack depends on what the host did with the packets before, so packets are followed in the order of their arrival.
Each goes on through mangle, routing and filter to its end; an entry of the table lasts only if the packet got past the
last hook, and the host's answer (a RST, a SYN+ACK, an echo reply) runs through conntrack in the other direction.
Without times all packets arrive at one instant: no timeout expires between them.

Where several states are possible, the packet is followed in each. If the ends differ it has a set of ends; or, if the
reason is a packet that the capture cut, it is undetermined from where they part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dossim.model.disposition import Disposition, Fate
from dossim.packet.cut import CutBytes, CutError
from dossim.packet.fields import ICMP, ICMPV6, IP, SCTP, TCP, UDP, UDPLITE, IPv4, Transport
from dossim.pipeline.conntrack.sentences import COINS, REASONS, describe
from dossim.pipeline.conntrack.states import Coin, Reason
from dossim.pipeline.conntrack.table import Conntrack
from dossim.pipeline.conntrack.verdict import Verdict
from dossim.pipeline.cut import why_open
from dossim.pipeline.match_key import MatchKey, match_key_in_raw
from dossim.pipeline.route import leads_inside
from dossim.pipeline.stages import Context, Destination, Node, PacketState, Step, Tracking, ended
from enforcer.model.vocabulary import CtState, Stage

Walk = Callable[[PacketState, Node], Sequence[Step]]
Sends = Callable[[MatchKey], bool]
_NOTRACK = f"{CtState.UNTRACKED}: {REASONS[Reason.NOTRACK]}"
_REPLY_TYPES = {ICMP: {8: 0, 13: 14}, ICMPV6: {128: 129}}
# Where a packet goes after the last hook, or may.
_CONFIRMS = (Stage.SOCKET, Fate.FORWARDED, Fate.UNDETERMINED)


class Following:
    """``walk`` takes a packet from conntrack to its end. ``sends_outside``, ``sends_inside``: whether untracked egress
    policy of the host's interfaces lets an answer pass, tracked; the answer meets it before conntrack.
    """

    def __init__(self, context: Context, walk: Walk, *, sends_outside: Sends, sends_inside: Sends) -> None:
        self._context = context
        self._walk = walk
        self._sends = {False: sends_outside, True: sends_inside}
        self._conntrack = Conntrack(context.host)

    def follow(self, state: PacketState, at_ns: int = 0) -> list[Step]:
        """The next packet to arrive at conntrack, and when: its steps to its end."""
        ip = state.ip
        assert ip is not None, "only IP packets get here"
        is_fresh = isinstance(ip.buf, CutBytes) and self._conntrack.is_fresh(ip)
        try:
            verdict = self._conntrack.observe(ip, at_ns, untracked=state.untracked)
        except CutError:
            return self._of_cut(state, ip, is_fresh=is_fresh)
        states = [one for one in CtState if one in verdict.states]
        ways = self._ways(state, states, describe(verdict))
        self._conclude(state, verdict, ways)
        if verdict.coin is Coin.HOST_ISN:
            return _several(list(ways.values()), COINS[verdict.coin].removeprefix("depends on "))
        return _one(list(ways.values()), "" if verdict.coin is None else COINS[verdict.coin])

    def may_have_passed(self, ip: IP | None) -> None:
        """A packet of which nobody knows whether it got to conntrack; None: nor whose it is."""
        self._conntrack.may_have_passed(ip)

    def _of_cut(self, state: PacketState, ip: IP, *, is_fresh: bool) -> list[Step]:
        if state.untracked:
            (way,) = self._ways(state, [CtState.UNTRACKED], _NOTRACK).values()
            return list(way)
        why = why_open(Stage.CONNTRACK, state)
        ways = list(self._ways(state, _states_of_cut(ip, is_fresh=is_fresh), why, is_open=True).values())
        if is_fresh and not any(step.to in _CONFIRMS for way in ways for step in way):
            self._conntrack.forget(ip)
        return _one(ways, why)

    def _ways(
        self, state: PacketState, states: Sequence[CtState], why: str, *, is_open: bool = False
    ) -> dict[CtState, Sequence[Step]]:
        return {
            one: self._walk(replace(state, tracking=Tracking(one, why, is_open)), Stage.CONNTRACK) for one in states
        }

    # -- what the packet leaves ----------------------------------------------------------------------------------------

    def _conclude(self, state: PacketState, verdict: Verdict, ways: Mapping[CtState, Sequence[Step]]) -> None:
        passed, delivered = set[CtState](), set[CtState]()
        for one, steps in ways.items():
            last = steps[-1]
            is_past_input = any(step.to is Stage.SOCKET for step in steps)
            if last.to is Fate.UNDETERMINED:
                self._conntrack.may_have_passed(state.ip)
            elif last.to is Fate.DELIVERED and self._is_answered(last.state):
                delivered.add(one)
            elif is_past_input or last.to is Fate.FORWARDED:
                passed.add(one)
        if passed:
            self._conntrack.passed(verdict, states=passed)
        if delivered:
            self._conntrack.delivered(verdict, states=delivered)

    def _is_answered(self, state: PacketState) -> bool:
        """Whether what the host answers is of the packet's flow, and gets to conntrack: raw is before it.

        A group is not answered from its own address (``tcp_v4_send_reset``, ``icmpv6_echo_reply``), an anycast address
        only by TCP.
        """
        ip = state.ip
        assert ip is not None, "only IP packets get here"
        key = match_key_in_raw(ip, self._context.raw_backend)
        is_tcp = key.transport is not None and key.transport.protocol == TCP
        if state.destination is not Destination.LOCAL and not (is_tcp and state.destination is Destination.ANYCAST):
            return False
        return self._sends[leads_inside(ip.source, self._context.host)](_answer(key))


def _states_of_cut(ip: IP, *, is_fresh: bool) -> tuple[CtState, ...]:
    """The states that a packet may have whose checksum, or more, is unknown. RELATED ends as ESTABLISHED does.

    Of a fresh flow a packet is NEW or INVALID, but for ICMP, which may quote another or be neighbour discovery.
    """
    protocol = ip.protocol if isinstance(ip, IPv4) else ip.next_header
    if is_fresh and protocol in (TCP, UDP, UDPLITE, SCTP):
        return CtState.NEW, CtState.INVALID
    known = (CtState.NEW, CtState.ESTABLISHED, CtState.INVALID)
    return known if ip.version == 4 else (*known, CtState.UNTRACKED)


def _answer(key: MatchKey) -> MatchKey:
    """The fields of the host's answer to a packet: TCP with its ports exchanged, an ICMP reply to a request."""
    transport = key.transport
    if transport is not None and transport.protocol == TCP:
        transport = replace(transport, buf=transport.buf[2:4] + transport.buf[:2] + transport.buf[4:])
    elif transport is not None and transport.protocol in _REPLY_TYPES and transport.buf:
        transport = _replied(transport)
    return MatchKey(key.version, key.destination, key.source, transport)


def _replied(transport: Transport) -> Transport:
    kind = _REPLY_TYPES[transport.protocol].get(transport.buf[0], transport.buf[0])
    return replace(transport, buf=bytes([kind]) + transport.buf[1:])


# -- several ways ------------------------------------------------------------------------------------------------------


def _several(ways: Sequence[Sequence[Step]], depends: str) -> list[Step]:
    """The first way, with the ends of the others; undetermined, if one of them is."""
    if any(way[-1].to is Fate.UNDETERMINED for way in ways):
        return _one(ways, depends)
    first, *others = [_end(way) for way in ways]
    found = list({(end.fate, end.stage): end for end in reversed(others) if not first.agrees(end)}.values())
    *steps, last = ways[0]
    return [*steps, last._replace(others=tuple(reversed(found)), depends=depends if found else "")]


def _one(ways: Sequence[Sequence[Step]], why: str) -> list[Step]:
    """The way that all have; if their ends differ, as far as all go together, and undetermined from there on."""
    first = list(ways[0])
    if len({(_end(way).fate, _end(way).stage) for way in ways}) == 1:
        return first
    at = next(at for at, steps in enumerate(zip(*ways, strict=False)) if len({step.to for step in steps}) > 1)
    state = first[at].state
    return [*first[:at], Step(Fate.UNDETERMINED, state, "the state of its connection", why)]


def _end(way: Sequence[Step]) -> Disposition:
    node = way[-2].to if len(way) > 1 else Stage.CONNTRACK
    return ended(node, way[-1])
