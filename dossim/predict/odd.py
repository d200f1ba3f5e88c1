"""Packets that are not ordinary, one by one: tags, fragments, options, extension headers, multicast, forwarding, other
protocols.

The kernel's part (header checks, defragmentation, routing, transport) is the model that ``explain`` walks as well; the
policy is evaluated from the compiled RuleTable, by the same code as for ordinary packets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.columns import ByteReader
from dossim.packet.cut import CutError, frame_on_wire
from dossim.packet.fields import HIDDEN, ICMP, ICMP_HEADER, ICMPV6, IP, Ethernet, Transport
from dossim.packet.parse import parse, seen_transport
from dossim.pipeline import ip_input, netdev_headers, route, transport
from dossim.pipeline.cut import possible_datagrams, why_open
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.reassembly import Lost, Open, Perhaps, Whole, reassemble
from dossim.pipeline.route import leads_inside
from dossim.pipeline.stages import Context, PacketState, Step
from dossim.pipeline.xdp_headers import PORT_HEADERS, known_transport, readable_ip
from dossim.predict import xdp
from dossim.predict.after import AfterConntrack
from dossim.predict.flows import CUT, Addresses, Flows
from dossim.predict.prediction import Draft
from dossim.predict.rules import decide
from enforcer.model.vocabulary import Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan

_LOW = (1 << 64) - 1
Asked = tuple[int, IP, Transport | None]


@dataclass(frozen=True)
class OddPassed:
    """The packets that got to conntrack, also as ``columns``; of a datagram's fragments the one that stands for it.
    ``to_host`` are those of them that are for this host; ``inside``: those that are forwarded, and whether to the
    inside interface. ``others``: ``{fragment: that one}`` for the other fragments.
    """

    arrived: Mapping[int, PacketState]
    columns: Sequence[Flows]
    to_host: Collection[int]
    inside: Mapping[int, bool]
    others: Mapping[int, int]


def predict_odd(capture: Capture, numbers: Iterable[int], plan: InterfacePlan, host: Host, draft: Draft) -> OddPassed:
    """Decide these packets in the draft. They are walked together, because a fragment shares its datagram's fate.
    Policy after conntrack takes no part.
    """
    context = Context.without_policy(host)
    frames = {int(number): frame_on_wire(capture, int(number)) for number in numbers}
    states = _received(frames, draft)
    _early(states, plan, draft)
    _each(states, Stage.IP_INPUT, ip_input.check, context, draft)
    others = _defrag(states, frames, draft)
    _raw(states, plan, draft)
    arrived = dict(states)
    columns = _flows_of(states, plan)
    forwarded: dict[int, PacketState] = {}
    _each(states, Stage.ROUTE, route.check, context, draft, stop=partial(_forwarded, found=forwarded))
    to_host = tuple(states)
    _each(states, Stage.SOCKET, transport.check, context, draft)
    for number, first in others.items():
        draft.copy(first, number)
    inside = {number: leads_inside(_ip(state).destination, host) for number, state in forwarded.items()}
    return OddPassed(arrived, columns, to_host, inside, others)


def filter_odd(passed: OddPassed, draft: Draft, after: AfterConntrack) -> None:
    """Apply policy after conntrack, for packets that all have one state, to a draft in which it took no part."""
    to_host, forwarded = (np.array(list(numbers), np.int64) for numbers in (passed.to_host, passed.inside))
    for flows in passed.columns:
        kept = after.mangle(flows, draft)
        _leave_open(flows, kept, Stage.MANGLE, passed, draft)
        flows = kept.take(np.isin(kept.number, to_host))
        _leave_open(flows, after.input(flows, draft), Stage.FILTER_INPUT, passed, draft)
        flows = kept.take(np.isin(kept.number, forwarded))
        inside = np.array([passed.inside[number] for number in flows.number.tolist()], np.bool_)
        _leave_open(flows, after.forward(flows, inside, draft), Stage.FILTER_FORWARD, passed, draft)
    for number, first in passed.others.items():
        draft.copy(first, number)


def _leave_open(flows: Flows, kept: Flows, stage: Stage, passed: OddPassed, draft: Draft) -> None:
    """Give the flows that policy left open at a stage, not among those that it ``kept``, their reason."""
    for number in np.setdiff1d(flows.number, kept.number, assume_unique=True).tolist():
        if draft.is_open(number):
            draft.leave_open(number, stage, why_open(stage, passed.arrived[number]))


def _ip(state: PacketState) -> IP:
    assert state.ip is not None, "only IP packets get here"
    return state.ip


def _received(frames: Mapping[int, bytes], draft: Draft) -> dict[int, PacketState]:
    states = {}
    for number, frame in frames.items():
        try:
            states[number] = PacketState(parse(frame))
        except CutError:
            rows = np.array([number], np.int64)
            draft.leave_cut(rows, Stage.NIC_OFFLOAD, "its Ethernet header is not whole")
    return states


def _each(
    states: dict[int, PacketState],
    stage: Stage,
    check: Callable[[PacketState, Context], Step],
    context: Context,
    draft: Draft,
    *,
    stop: Callable[[Step, int], Step] = lambda step, _: step,
) -> None:
    """Run one stage's check on every state; those that end here leave ``states``."""
    for number, state in list(states.items()):
        try:
            step = stop(check(state, context), number)
        except CutError:
            del states[number]
            draft.leave_open(number, stage, why_open(stage, state))
            continue
        states[number] = step.state
        if isinstance(step.to, Fate):
            del states[number]
            if step.to is Fate.DROPPED:
                draft.drop(number, stage, step.result)
            else:
                draft.end(number, step.to, step.result)


def _forwarded(step: Step, number: int, *, found: dict[int, PacketState]) -> Step:
    """The packet is forwarded, if no policy for forwarded packets drops it: it is in ``found``."""
    if step.to is not Stage.FILTER_FORWARD:
        return step
    found[number] = step.state
    return replace(step, to=Fate.FORWARDED)


def _early(states: dict[int, PacketState], plan: InterfacePlan, draft: Draft) -> None:
    if plan.early is None or not plan.early_entries:
        return
    read = _netdev if plan.early is Stage.NETDEV_INGRESS else partial(_xdp, by_device=plan.mode is Mode.OFFLOAD)
    found: list[Asked] = []
    for number, state in list(states.items()):
        try:
            known = read(state.packet.link)
        except CutError:
            draft.leave_open(number, plan.early, why_open(plan.early, states.pop(number)))
        else:
            found += [] if known is None else [(number, *known)]
    for flows in _flows(found):
        for number, entry in zip(flows.number.tolist(), xdp.drops(flows, plan), strict=True):
            if entry == CUT:
                draft.leave_open(number, plan.early, why_open(plan.early, states.pop(number)))
            elif entry >= 0:
                del states[number]
                draft.drop(number, plan.early, "", int(entry))


def _xdp(link: Ethernet | None, *, by_device: bool) -> tuple[IP, Transport | None] | None:
    """What a program knows about a frame; None if it passes every such frame."""
    ip = readable_ip(link)
    return None if ip is None else (ip, known_transport(ip, by_device=by_device).transport)


def _netdev(link: Ethernet | None) -> tuple[IP, Transport | None] | None:
    """As :func:`_xdp`, for netdev ingress. A transport that may be incomplete is given as no bytes."""
    ip = netdev_headers.sound_ip(link)
    if ip is None:
        return None
    known = netdev_headers.known_transport(ip)
    if known.transport is None or known.missing is None:
        return ip, known.transport
    return ip, replace(known.transport, buf=b"")


def _defrag(states: dict[int, PacketState], frames: Mapping[int, bytes], draft: Draft) -> dict[int, int]:
    """One fragment of each datagram is walked on for all; returns ``{fragment: that one}`` for the others."""
    others: dict[int, int] = {}
    for number, fate in reassemble(_arrivals(states, frames, draft)).items():
        match fate:
            case Whole(head=head) if number != head:
                others[number] = head
            case Whole(datagram=datagram):
                states[number] = replace(states[number], ip=datagram, reassembly=fate)
            case Lost(reason):
                del states[number]
                draft.drop(number, Stage.DEFRAG, reason)
            case Open(reason):
                del states[number]
                draft.leave_open(number, Stage.DEFRAG, reason)
    for number in others:
        del states[number]
    return others


def _arrivals(
    states: Mapping[int, PacketState], frames: Mapping[int, bytes], draft: Draft
) -> Iterator[tuple[int, IP | Perhaps]]:
    """The packets that reach defragmentation, and those that may."""
    for number in sorted(frames):
        state = states.get(number)
        if state is not None and state.ip is not None:
            yield number, state.ip
        elif draft.is_open(number):
            prefix = possible_datagrams(frames[number])
            if prefix is not None:
                yield number, Perhaps(prefix)


def _raw(states: dict[int, PacketState], plan: InterfacePlan, draft: Draft) -> None:
    for flows in _flows_of(states, plan):
        decisions = decide(flows, plan.table)
        for row, number in enumerate(flows.number.tolist()):
            if decisions.hotdropped[row]:
                del states[number]
                draft.drop(number, Stage.RAW, "too short for a rule that matches on ports, ICMP type or protocol")
            elif decisions.denied_by[row] >= 0:
                del states[number]
                draft.drop(number, Stage.RAW, "", int(decisions.denied_by[row]))
            elif decisions.open[row]:
                draft.leave_open(number, Stage.RAW, why_open(Stage.RAW, states.pop(number)))
            elif decisions.allowed_by[row] >= 0:
                states[number] = replace(states[number], untracked=True, marked=True)
                draft.untracked[number] = True


def _flows_of(states: Mapping[int, PacketState], plan: InterfacePlan) -> list[Flows]:
    """The packets as the tables of netfilter see them."""
    skips = plan.raw_backend is not Backend.NFTABLES
    asked = [
        (number, state.ip, seen_transport(state.ip, skip_authentication=skips))
        for number, state in states.items()
        if state.ip is not None
    ]
    marks = {number: state.marked for number, state in states.items()}
    return [
        replace(flows, marked=np.array([marks[number] for number in flows.number.tolist()], np.bool_))
        for flows in _flows(asked)
    ]


def flows_of_key(key: MatchKey) -> Flows:
    """One packet, by what rules match on, as a row of columns."""
    transport = key.transport
    zeros, no = np.zeros(1, np.int64), np.zeros(1, np.bool_)
    sport, dport = _ports(transport)
    kind, code = _icmp(transport)
    return Flows(
        version=key.version,
        buf=ByteReader(np.zeros(16, np.uint8)),
        number=zeros,
        group=no,
        source=_addresses(key.version, [int(key.source)]),
        destination=_addresses(key.version, [int(key.destination)]),
        protocol=np.array([_protocol(transport)], np.int64),
        at=zeros,
        length=zeros,
        present=zeros,
        sport=np.array([sport], np.int64),
        dport=np.array([dport], np.int64),
        icmp_type=np.array([kind], np.int64),
        icmp_code=np.array([code], np.int64),
        later_fragment=np.array([bool(transport and transport.fragment_offset)], np.bool_),
        whole_header=np.array([_is_whole(transport)], np.bool_),
        captured=zeros,
        untracked=no,
        marked=no,
    )


def _flows(asked: Sequence[Asked]) -> list[Flows]:
    """The same packets as columns, per IP version."""
    by_version: Mapping[int, list[Asked]] = {4: [], 6: []}
    for item in asked:
        by_version[item[1].version].append(item)
    return [_columns(version, items) for version, items in by_version.items() if items]


def _columns(version: int, asked: Sequence[Asked]) -> Flows:
    transports = [None if found is HIDDEN else found for _, _, found in asked]
    zeros = np.zeros(len(asked), np.int64)
    ports = [_ports(found) for found in transports]
    icmp = [_icmp(found) for found in transports]
    return Flows(
        version=version,
        buf=ByteReader(np.zeros(16, np.uint8)),
        number=np.array([number for number, _, _ in asked], np.int64),
        group=zeros.astype(np.bool_),
        source=_addresses(version, [int(ip.source) for _, ip, _ in asked]),
        destination=_addresses(version, [int(ip.destination) for _, ip, _ in asked]),
        protocol=np.array([_protocol(found) for _, _, found in asked], np.int64),
        at=zeros,
        length=zeros,
        present=zeros,
        sport=np.array([sport for sport, _ in ports], np.int64),
        dport=np.array([dport for _, dport in ports], np.int64),
        icmp_type=np.array([kind for kind, _ in icmp], np.int64),
        icmp_code=np.array([code for _, code in icmp], np.int64),
        later_fragment=np.array([bool(found and found.fragment_offset) for found in transports], np.bool_),
        whole_header=np.array([_is_whole(found) for found in transports], np.bool_),
        captured=zeros,
        untracked=zeros.astype(np.bool_),
        marked=zeros.astype(np.bool_),
    )


def _addresses(version: int, values: Sequence[int]) -> Addresses:
    if version == 4:
        return Addresses(4, np.array(values, np.uint32))
    high = np.array([value >> 64 for value in values], np.uint64)
    return Addresses(6, np.array([value & _LOW for value in values], np.uint64), high)


def _protocol(found: Transport | None) -> int:
    if found is None:
        return -1
    return CUT if found is HIDDEN else found.protocol


def _ports(found: Transport | None) -> tuple[int, int]:
    """Both ports, -1 if they cannot be read."""
    try:
        return (-1, -1) if found is None else found.ports or (-1, -1)
    except CutError:
        return CUT, CUT


def _icmp(found: Transport | None) -> tuple[int, int]:
    """Type and code, -1 if they cannot be read."""
    if found is None or found.protocol not in (ICMP, ICMPV6) or found.fragment_offset:
        return -1, -1
    if len(found.buf) < ICMP_HEADER:
        return -1, -1
    try:
        return found.buf[0], found.buf[1]
    except CutError:
        return CUT, CUT


def _is_whole(found: Transport | None) -> bool:
    if found is None or found.fragment_offset:
        return False
    least = PORT_HEADERS.get(found.protocol)
    return least is not None and len(found.buf) >= least
