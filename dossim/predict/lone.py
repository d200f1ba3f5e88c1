"""Packets whose state their own header tells: what conntrack says of them, in columns.

Of most packets of a flood no other has the same addresses and ports, or nothing of their flow is let in, so that it has
no entry; and nothing answers UDP. Such a packet of TCP or UDP is NEW or INVALID by its header alone
(docs/conntrack.md). All others are followed one by one (:mod:`dossim.predict.following`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dossim.packet.columns import Bool, checksum_valid
from dossim.packet.fields import ICMP, ICMPV6, TCP, TCP_HEADER, UDP, UDP_HEADER, IPv4
from dossim.packet.parse import seen_transport
from dossim.pipeline.stages import PacketState
from dossim.predict.flows import Flows
from dossim.predict.ordinary import pseudo_header
from enforcer.model.vocabulary import CtState

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_STATES = (CtState.NEW, CtState.INVALID, CtState.UNTRACKED)
_UNKNOWN = len(_STATES)

_SYN, _ACK, _IGNORED = 0x02, 0x10, 0xC8  # PSH, ECE and CWR do not matter (nf_conntrack_proto_tcp.c)
_URG = 0x20
# Echo, timestamp and address mask; echo and neighbour discovery.
_QUOTE_NOTHING = {4: (0, 8, 13, 14, 17, 18), 6: (128, 129, 133, 134, 135, 136)}
_BEGINS = (_SYN, _SYN | _URG, _ACK, _ACK | _URG)  # the last two with tcp_loose


@dataclass(frozen=True)
class Lone:
    """``rows`` are packets, by number in the capture, that have this state."""

    state: CtState
    rows: I64


def lone_packets(ordinary: Sequence[Flows], odd: Iterable[PacketState], leaves_entry: Bool) -> list[Lone]:
    """The packets, of the ordinary ones that got to conntrack, that no other affects and that affect no other; ``odd``
    are the others that got there. ``leaves_entry`` (bool of every packet): it leaves one if it is NEW.

    They are all packets of a flow or none: of a flow with one packet, of one without an entry, and of UDP in one
    direction. If an ICMP error may quote a packet, only of flows without an entry: it is RELATED to others.
    """
    others = list(odd)
    may_be_quoted = any(map(_has_errors, ordinary)) or any(map(_may_be_error, others))
    judged = [_judged(flows) for flows in ordinary if len(flows)]
    if not judged:
        return []
    state, leaves, is_udp, swapped, hashes = (np.concatenate(column) for column in zip(*judged, strict=True))
    number = np.concatenate([flows.number for flows in ordinary])
    leaves = leaves & leaves_entry[number]
    taken = np.array([key for state in others for key in _key_of(state)], np.uint64).reshape(-1, 6)
    _, flow = np.unique(np.concatenate([hashes, _hashed(taken)]), return_inverse=True)
    flow = flow.ravel()
    flows = int(flow.max()) + 1
    mine = flow[: len(state)]

    def has(which: Bool) -> Bool:
        """bool of each flow: any of its packets is one of these."""
        found = np.zeros(flows, np.bool_)
        found[mine[which]] = True
        return found

    is_untracked = state == _STATES.index(CtState.UNTRACKED)
    followed = has(state == _UNKNOWN) | (has(is_untracked) & has(~is_untracked))
    followed[flow[len(state) :]] = True
    takes = ~has(leaves)
    if not may_be_quoted:
        takes |= np.bincount(flow, minlength=flows) == 1
        takes |= ~has(~is_udp) & ~(has(swapped) & has(~swapped))
    chosen = (takes & ~followed)[mine]
    return [Lone(item, number[chosen & (state == code)]) for code, item in enumerate(_STATES)]


def _judged(flows: Flows) -> tuple[npt.NDArray[np.uint8], Bool, Bool, Bool, U64]:
    """For each packet: the index into _STATES of the state that it has without an entry, _UNKNOWN for those that are
    followed; whether it is NEW; whether it is UDP from one end to another; whether it goes from the second end of its
    flow to the first; and the flow, hashed. Packets of two flows with one hash are treated as of one, which is safe.
    """
    state = np.full(len(flows), _UNKNOWN, np.uint8)
    state[flows.untracked] = _STATES.index(CtState.UNTRACKED)
    for protocol, is_new in ((TCP, _tcp_is_new), (UDP, _udp_is_new)):
        rows = np.flatnonzero(~flows.untracked & (flows.protocol == protocol) & (flows.captured >= flows.length))
        state[rows] = np.where(is_new(flows.take(rows)), _STATES.index(CtState.NEW), _STATES.index(CtState.INVALID))
    keys, swapped = _keys(flows)
    is_between = (flows.protocol == UDP) & (keys[:, [0, 1]] != keys[:, [3, 4]]).any(axis=1)
    is_between |= (flows.protocol == UDP) & (flows.sport != flows.dport)
    return state, state == _STATES.index(CtState.NEW), is_between, swapped, _hashed(keys)


def _tcp_is_new(flows: Flows) -> Bool:
    whole = flows.length >= TCP_HEADER
    data_offset = (flows.buf.u8(flows.at + 12) >> 4) * 4
    flags = flows.buf.u8(flows.at + 13) & ~_IGNORED & 0xFF
    good = whole & (data_offset >= TCP_HEADER) & (data_offset <= flows.length) & np.isin(flags, _BEGINS)
    return np.asarray(good & _sum_is_right(flows), np.bool_)


def _udp_is_new(flows: Flows) -> Bool:
    length = flows.buf.u16(flows.at + 4)
    good = (flows.length >= UDP_HEADER) & (length >= UDP_HEADER) & (length <= flows.length)
    without = flows.buf.u16(flows.at + 6) == 0
    return np.asarray(good & (without | _sum_is_right(flows)), np.bool_)


def _sum_is_right(flows: Flows) -> Bool:
    """The checksum of everything that the packet carries."""
    initial = pseudo_header(flows.buf, flows) + flows.length + flows.protocol
    return checksum_valid(flows.buf.data, flows.at, flows.length, initial)


# -- flows -------------------------------------------------------------------------------------------------------------


def _hashed(keys: U64) -> U64:
    """uint64[N] of the rows; it need not be hard to find two with the same."""
    found = np.zeros(len(keys), np.uint64)
    for column in range(keys.shape[1]):
        found = (found ^ keys[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


def _keys(flows: Flows) -> tuple[U64, Bool]:
    """uint64[N, 6]: the flow of each packet, the same in both directions; and whether the packet goes from its second
    end to the first. Without ports: the addresses alone.
    """
    ends = []
    for address, port in ((flows.source, flows.sport), (flows.destination, flows.dport)):
        high = np.zeros(len(flows), np.uint64) if address.high is None else address.high
        has_ports = np.isin(flows.protocol, (TCP, UDP))
        ports = np.where(has_ports, np.maximum(port, 0), 0).astype(np.uint64)
        ends.append(np.stack([high, address.low.astype(np.uint64), ports], axis=1))
    one, other = ends
    swap = np.zeros(len(flows), np.bool_)
    equal = np.ones(len(flows), np.bool_)
    for column in range(3):
        swap |= equal & (one[:, column] > other[:, column])
        equal &= one[:, column] == other[:, column]
    first = np.where(swap[:, None], other, one)
    second = np.where(swap[:, None], one, other)
    first[:, 2] |= flows.protocol.astype(np.uint64) << np.uint64(16) | np.uint64(flows.version) << np.uint64(32)
    return np.concatenate([first, second], axis=1), swap


def _key_of(state: PacketState) -> list[tuple[int, ...]]:
    """As :func:`_keys`, of one packet; both kinds of key if its ports cannot be read."""
    ip = state.ip
    assert ip is not None, "only IP packets get to conntrack"
    transport = seen_transport(ip, skip_authentication=True)
    protocol = transport.protocol if transport else 0
    ports = (transport.ports if transport and protocol in (TCP, UDP) else None) or (0, 0)
    ends = sorted(
        (int(address) >> 64, int(address) & ((1 << 64) - 1), port)
        for address, port in zip((ip.source, ip.destination), ports, strict=True)
    )
    version = 4 if isinstance(ip, IPv4) else 6
    (high, low, port), last = ends
    return [(high, low, port | protocol << 16 | version << 32, *last)]


def _has_errors(flows: Flows) -> bool:
    """Whether one quotes another packet, and so may be RELATED to its flow."""
    is_icmp = np.isin(flows.protocol, (ICMP, ICMPV6))
    return bool((is_icmp & ~np.isin(flows.icmp_type, _QUOTE_NOTHING[flows.version])).any())


def _may_be_error(state: PacketState) -> bool:
    transport = seen_transport(state.ip, skip_authentication=True) if state.ip is not None else None
    return transport is None or transport.protocol in (ICMP, ICMPV6)
