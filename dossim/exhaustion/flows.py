"""The new flows of a capture: the packets for which conntrack makes an entry, and how long that entry stays.

A packet makes one if it reaches conntrack tracked, may begin a connection, has none yet, and is neither dropped before
the last hook (LOCAL_IN, POSTROUTING), where the kernel confirms the entry, nor answered by a reset that ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dossim.exhaustion.table import Table
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.columns import Bool, ByteReader, parse_columns
from dossim.packet.cut import CutError, frame_on_wire
from dossim.packet.fields import DCCP, ICMP, ICMPV6, IP, PORTS_LENGTH, SCTP, TCP, UDP, UDPLITE, LinkType, Transport
from dossim.packet.parse import parse, transport_of
from dossim.predict.flows import Addresses, Flows, ordinary4, ordinary6
from dossim.predict.prediction import FATE_CODE, STAGE_CODE, Prediction
from enforcer.model.conntrack import Timeout
from enforcer.model.vocabulary import Stage, Word

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_BLOCK = 1 << 17
_GRE = 47
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_INIT = 1  # SCTP chunk
_ECHO_REQUESTS = {ICMP: (8, 13, 15, 17), ICMPV6: (128, 139)}  # those that conntrack begins a connection with


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
CLASSES = tuple(FlowClass)
_CODE = {item: code for code, item in enumerate(CLASSES)}
_NONE = 255


@dataclass(frozen=True)
class NewFlows:
    """``reached`` packets reach conntrack tracked; of them ``dropped_later`` are dropped before their entry would be
    confirmed (a tracked Deny, or no route). ``untracked`` packets have been taken out of connection tracking.
    ``flows``: new flows by class; ``beginning``: packets that begin one or repeat its first packet. ``perhaps``:
    packets that may or may not make an entry, because their end is undetermined or the model has no rule for them.
    ``seconds``: from the first packet of the capture to its last.
    """

    reached: int = 0
    untracked: int = 0
    dropped_later: int = 0
    perhaps: int = 0
    beginning: int = 0
    flows: Mapping[FlowClass, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.flows.values())

    @property
    def leaving(self) -> int:
        """New flows whose entry stays."""
        return sum(count for item, count in self.flows.items() if TIMEOUT_OF[item] is not None)


def new_flows(capture: Capture, prediction: Prediction, host: Host, table: Table) -> NewFlows:
    """Counts the new flows of a capture that ends as predicted."""
    ends = _Ends(prediction, table)
    found, others = _Found(), int(ends.open.sum())
    for start in range(0, len(capture), _BLOCK):
        part = capture.part(start, min(start + _BLOCK, len(capture)))
        others += _block(part, ends.leaves[start : start + len(part)], host, table, found)
    seconds = float(np.ptp(capture.timestamp_ns)) / 1e9 if len(capture) else 0.0
    return NewFlows(
        reached=int(ends.reached.sum()),
        untracked=int(ends.untracked.sum()),
        dropped_later=int((ends.reached & ~ends.leaves & ~ends.open).sum()),
        perhaps=others,
        beginning=found.packets,
        flows=found.counts(),
        seconds=seconds,
    )


def reaches_conntrack(prediction: Prediction, table: Table) -> Bool:
    """bool[N]: conntrack sees the packet, and it is tracked."""
    return _Ends(prediction, table).reached


class _Ends:
    """Which packets reach conntrack and which of them leave an entry, each bool[N]."""

    def __init__(self, prediction: Prediction, table: Table) -> None:
        fate, stage = prediction.fate, prediction.stage
        is_open = fate == FATE_CODE[Fate.UNDETERMINED]
        sent = fate != FATE_CODE[Fate.NOT_SENDABLE]
        dropped = fate == FATE_CODE[Fate.DROPPED]
        passed_raw = ~dropped | (stage >= STAGE_CODE[Stage.CONNTRACK])
        self.untracked: Bool = prediction.untracked & sent & passed_raw
        self.reached: Bool = sent & passed_raw & ~prediction.untracked
        # What the socket refuses is INVALID to conntrack as well, unless conntrack verifies no checksums.
        uncertain = dropped & (stage == STAGE_CODE[Stage.EGRESS])
        if not table.checksum:
            uncertain |= dropped & (stage == STAGE_CODE[Stage.SOCKET])
        self.open: Bool = self.reached & (is_open | uncertain)
        self.leaves: Bool = self.reached & ~dropped & ~self.open


class _Found:
    """The flows found so far: a row of six numbers for each, and its class."""

    def __init__(self) -> None:
        self._keys: list[U64] = []
        self._classes: list[npt.NDArray[np.uint8]] = []

    def add(self, keys: U64, classes: npt.NDArray[np.uint8]) -> None:
        if len(keys):
            self._keys.append(keys)
            self._classes.append(classes)

    @property
    def packets(self) -> int:
        return sum(map(len, self._keys))

    def counts(self) -> dict[FlowClass, int]:
        """A flow has the class of its first packet."""
        if not self._keys:
            return {}
        keys, classes = np.concatenate(self._keys), np.concatenate(self._classes)
        rows = np.ascontiguousarray(keys).view([("", np.uint64)] * keys.shape[1]).ravel()
        _, first = np.unique(rows, return_index=True)
        counts = np.bincount(classes[first], minlength=len(CLASSES))
        return {item: int(counts[code]) for item, code in _CODE.items() if counts[code]}


def _block(capture: Capture, leaves: Bool, host: Host, table: Table, found: _Found) -> int:
    """Adds the flows of a block; returns how many packets may make an entry or not."""
    columns = parse_columns(capture)
    missing = (capture.wire_length - capture.length).astype(np.int64)
    plain = np.zeros(len(capture), np.bool_)
    perhaps = 0
    for flows in (ordinary4(columns, missing), ordinary6(columns, missing)):
        mine = flows.take(leaves[flows.number])
        plain[mine.number] = True
        classes, unknown = _classes(mine, host, table)
        perhaps += int(unknown.sum())
        kept = classes != _NONE
        # In packet order, so that the first packet of a flow decides.
        found.add(_keys(mine.take(kept)), classes[kept])
    return perhaps + _odd(capture, np.flatnonzero(leaves & ~plain), host, table, found)


def _classes(flows: Flows, host: Host, table: Table) -> tuple[npt.NDArray[np.uint8], Bool]:
    """The class of the entry that each packet makes, 255 if it makes none; and those for which that is unknown."""
    classes = np.full(len(flows), _NONE, np.uint8)
    protocol = flows.protocol
    own = np.zeros(len(flows), np.bool_)
    for address in host.addresses:
        if address.version == flows.version:
            own |= flows.destination.equal(int(address.ip))
    own |= flows.group | ~np.bool_(host.forward)
    _tcp(flows, own, host, table, classes)
    classes[(protocol == UDP) | (protocol == UDPLITE)] = _CODE[FlowClass.UDP]
    mine, item = (ICMP, FlowClass.ICMP) if flows.version == 4 else (ICMPV6, FlowClass.ICMPV6)
    classes[(protocol == mine) & np.isin(flows.icmp_type, _ECHO_REQUESTS[mine])] = _CODE[item]
    classes[protocol == _GRE] = _CODE[FlowClass.GRE]
    sctp = protocol == SCTP
    init = sctp & (flows.present >= 16) & (flows.buf.u8(flows.at + 12) == _INIT)
    classes[init] = _CODE[FlowClass.SCTP]
    known = np.isin(protocol, (TCP, UDP, UDPLITE, mine, _GRE, SCTP, DCCP)) | (protocol < 0)
    classes[~known] = _CODE[FlowClass.GENERIC]
    return classes, np.asarray((sctp & ~init) | (protocol == DCCP), np.bool_)


def _tcp(flows: Flows, own: Bool, host: Host, table: Table, classes: npt.NDArray[np.uint8]) -> None:
    flags = flows.buf.u8(flows.at + 13)
    tcp = (flows.protocol == TCP) & (flows.present >= 20)
    syn = tcp & (flags & (_FIN | _SYN | _RST | _ACK) == _SYN)
    ack = tcp & (flags & (_FIN | _SYN | _RST | _ACK) == _ACK)
    is_open = np.isin(flows.dport, [item.port for item in host.listen if item.protocol == TCP])
    classes[syn & own] = np.where(is_open, _CODE[FlowClass.SYN_RECV], _CODE[FlowClass.CLOSED_PORT])[syn & own]
    classes[syn & ~own] = _CODE[FlowClass.SYN_SENT]
    if table.tcp_loose:  # picked up in the middle; a host that knows no such connection answers with a RST
        classes[ack & own] = _CODE[FlowClass.CLOSED_PORT]
        classes[ack & ~own] = _CODE[FlowClass.PICK_UP]


def _keys(flows: Flows) -> U64:
    """uint64[N, 6]: the connection, the same in both directions."""
    icmp = np.isin(flows.protocol, (ICMP, ICMPV6))
    ident = np.where(icmp, flows.buf.u16(flows.at + 4), flows.sport)
    other = np.where(icmp, flows.icmp_type << 8 | flows.icmp_code, flows.dport)
    near = _end(flows.source, np.maximum(ident, 0))
    far = _end(flows.destination, np.maximum(other, 0))
    swap = np.zeros(len(flows), np.bool_) if not len(flows) else _is_greater(near, far) & ~icmp
    first, second = np.where(swap[:, None], far, near), np.where(swap[:, None], near, far)
    kind = (np.full(len(flows), flows.version, np.uint64) << np.uint64(56)) | flows.protocol.astype(np.uint64)
    first[:, 2] |= kind << np.uint64(16)
    return np.concatenate([first, second], axis=1)


def _end(addresses: Addresses, port: I64) -> U64:
    low = addresses.low.astype(np.uint64)
    high = np.zeros_like(low) if addresses.high is None else addresses.high
    return np.stack([high, low, port.astype(np.uint64)], axis=1)


def _is_greater(near: U64, far: U64) -> Bool:
    greater, equal = np.zeros(len(near), np.bool_), np.ones(len(near), np.bool_)
    for column in range(near.shape[1]):
        greater |= equal & (near[:, column] > far[:, column])
        equal &= near[:, column] == far[:, column]
    return greater


def _odd(capture: Capture, rows: I64, host: Host, table: Table, found: _Found) -> int:
    """Packets with tags, fragments, options or extension headers, one by one. A later fragment belongs to the flow of
    its first one.
    """
    perhaps = 0
    for row in rows.tolist():
        try:
            packet = parse(frame_on_wire(capture, row))
            ip, link = packet.ip, packet.link
            transport = None if ip is None else transport_of(ip)
            if ip is None or link is None or transport is None or transport.fragment_offset:
                continue
            flows = _as_flows(ip, transport, is_group=link.link_type is not LinkType.HOST)
        except CutError:
            perhaps += 1
            continue
        classes, unknown = _classes(flows, host, table)
        perhaps += int(unknown.sum())
        if classes[0] != _NONE:
            found.add(_keys(flows), classes)
    return perhaps


def _as_flows(ip: IP, transport: Transport, *, is_group: bool) -> Flows:
    """One packet as columns. Raises CutError if the capture cut what conntrack reads."""
    protocol = transport.protocol
    head = bytes(transport.buf[: _READ.get(protocol, 0)])
    low = (1 << 64) - 1
    source, destination = int(ip.source), int(ip.destination)

    def addresses(value: int) -> Addresses:
        if ip.version == 4:
            return Addresses(4, np.array([value], np.uint32))
        return Addresses(6, np.array([value & low], np.uint64), np.array([value >> 64], np.uint64))

    def number(at: int, length: int) -> I64:
        return np.array([int.from_bytes(head[at : at + length], "big") if len(head) >= at + length else -1], np.int64)

    ports = transport.ports or (-1, -1)
    is_icmp = protocol in (ICMP, ICMPV6)
    nothing, present = np.zeros(1, np.int64), np.array([len(transport.buf)], np.int64)
    return Flows(
        version=ip.version,
        buf=ByteReader(np.frombuffer(head + bytes(32), np.uint8)),
        number=nothing,
        group=np.array([is_group]),
        source=addresses(source),
        destination=addresses(destination),
        protocol=np.array([protocol], np.int64),
        at=nothing,
        length=present,
        present=present,
        sport=np.array([ports[0]], np.int64),
        dport=np.array([ports[1]], np.int64),
        icmp_type=number(0, 1) if is_icmp else np.array([-1], np.int64),
        icmp_code=number(1, 1) if is_icmp else np.array([-1], np.int64),
        later_fragment=np.zeros(1, np.bool_),
        whole_header=np.ones(1, np.bool_),
        captured=present,
        untracked=np.zeros(1, np.bool_),
        marked=np.zeros(1, np.bool_),
    )


# How many bytes of a transport conntrack reads to tell what begins a connection.
_READ = {TCP: 20, SCTP: 16, ICMP: 8, ICMPV6: 8, UDP: PORTS_LENGTH, UDPLITE: PORTS_LENGTH, DCCP: PORTS_LENGTH}
