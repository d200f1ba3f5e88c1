"""Traffic: of each received packet, what a rule of untracked policy can match on: its source, protocol and ports."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from dossim.packet.capture import Capture
from dossim.packet.columns import Columns, parse_columns
from dossim.packet.fields import ICMP, ICMPV6, IPV4_HEADER, IPV6_HEADER, SCTP, TCP, UDP
from dossim.packet.fragments import datagram_keys
from dossim.packet.offload import artefacts_of
from enforcer.model.nets import IPAddress

Bool = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

NONE = -1  # no port, no type
_PART = 1 << 18  # packets: columns take several times the memory of a capture
_OFFSET = 0x1FFF
_PORTS = (TCP, UDP, SCTP)
_TYPES = (ICMP, ICMPV6)


@dataclass(frozen=True)
class Traffic:
    """One row per packet. ``packet``: its number in the capture. ``key``: the source, an IPv4 address in the upper half
    or the upper half of an IPv6 address. ``value``: the ICMP type, or the source port; NONE if there is none.
    """

    packet: I64
    is_six: Bool
    key: U64
    protocol: I32
    value: I32
    destination_port: I32

    def __len__(self) -> int:
        return len(self.packet)

    def where(self, kept: Bool) -> Traffic:
        return Traffic(*(getattr(self, item.name)[kept] for item in fields(self)))


@dataclass(frozen=True)
class Read:
    """``sent``, ``other``: packets that are left out, because the host sent them or they are not IP."""

    traffic: Traffic
    sent: int
    other: int


def read_traffic(capture: Capture, own: Collection[IPAddress]) -> Read:
    """What the host with these addresses received."""
    parts: list[Traffic] = []
    sent = 0
    for start in range(0, len(capture), _PART):
        part = capture.part(start, start + _PART)
        columns = parse_columns(part)
        mine = artefacts_of(part, own).sent
        both = _joined([_four(columns), _six(columns)])
        sent += int(mine[both.packet].sum())
        received = both.where(~mine[both.packet])
        parts.append(Traffic(received.packet + start, *(getattr(received, item.name) for item in fields(received)[1:])))
    traffic = _joined(parts)
    order = np.argsort(traffic.packet, kind="stable")
    found = _with_fragments(traffic.where(order), capture)  # type: ignore[arg-type]  # rows by number
    return Read(found, sent, len(capture) - sent - len(found))


def _joined(parts: list[Traffic]) -> Traffic:
    parts = parts or [Traffic(*(np.zeros(0, kind) for kind in (np.int64, np.bool_, np.uint64, *[np.int32] * 3)))]
    return Traffic(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Traffic)))


def _four(columns: Columns) -> Traffic:
    ip = columns.ipv4
    whole = (ip.available >= IPV4_HEADER) & (ip.version == 4) & (ip.header_length >= IPV4_HEADER)
    rows = np.flatnonzero(whole)
    start, left = ip.start[rows] + ip.header_length[rows], ip.available[rows] - ip.header_length[rows]
    left = np.where(ip.fragment[rows] & _OFFSET, 0, left)
    return _row(
        columns, ip.rows[rows], ip.source[rows].astype(np.uint64) << np.uint64(32), ip.protocol[rows], start, left, 4
    )


def _six(columns: Columns) -> Traffic:
    ip = columns.ipv6
    rows = np.flatnonzero((ip.available >= IPV6_HEADER) & (ip.version == 6))
    start, left = ip.start[rows] + IPV6_HEADER, ip.available[rows] - IPV6_HEADER
    return _row(columns, ip.rows[rows], ip.source[0][rows], ip.next_header[rows], start, left, 6)


def _row(columns: Columns, packet: I64, key: U64, protocol: I64, start: I64, left: I64, version: int) -> Traffic:
    """``left``: bytes from the transport header at ``start`` on, 0 where there is none."""
    ports = np.isin(protocol, _PORTS) & (left >= 4)
    value = np.where(ports, columns.buf.u16(start), NONE)
    types = np.isin(protocol, _TYPES) & (left >= 1)
    value = np.where(types, columns.buf.u8(start), value)
    destination = np.where(ports, columns.buf.u16(start + 2), NONE)
    return Traffic(
        packet.astype(np.int64),
        np.full(len(packet), version == 6),
        key,
        protocol.astype(np.int32),
        value.astype(np.int32),
        destination.astype(np.int32),
    )


def _with_fragments(traffic: Traffic, capture: Capture) -> Traffic:
    """Later fragments with what the first one has: netfilter matches whole datagrams."""
    keys = datagram_keys(capture)
    if not keys:
        return traffic
    row_of = {packet: row for row, packet in enumerate(traffic.packet.tolist()) if packet in keys}
    first: dict[object, int] = {}
    for packet, row in row_of.items():
        if traffic.value[row] != NONE:
            first.setdefault(keys[packet], row)
    later = [(row, first[keys[packet]]) for packet, row in row_of.items() if keys[packet] in first]
    if not later:
        return traffic
    rows, firsts = np.array(later, np.int64).T
    columns = {item.name: getattr(traffic, item.name).copy() for item in fields(traffic)}
    for name in ("protocol", "value", "destination_port"):
        columns[name][rows] = columns[name][firsts]
    return Traffic(**columns)
