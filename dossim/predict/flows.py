"""Flows: the fields that rules and routing use, for many ordinary packets of one IP version.

Ordinary packets are untagged, whole (no fragment), with an IPv4 header without options or an IPv6 header without
extension headers: nearly all of a flood. Everything else is predicted one by one (:mod:`dossim.predict.odd`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.packet.columns import U32, U64, Bool, ByteReader, Columns, IPv4Columns, IPv6Columns
from dossim.packet.fields import (
    EXTENSION_HEADERS,
    ICMP,
    ICMP_HEADER,
    ICMPV6,
    PORT_PROTOCOLS,
    PORTS_LENGTH,
    SCTP,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
)
from enforcer.model.nets import IPNetwork, Nets

I64 = npt.NDArray[np.int64]

CUT = -2  # a field that the capture cut
HEADER_LENGTHS = {TCP: TCP_HEADER, UDP: UDP_HEADER, SCTP: 12}
_IP4_LENGTH, _IP6_LENGTH = 20, 40
_FRAGMENT_MASK = 0x3FFF  # more-fragments flag and offset


@dataclass(frozen=True)
class Addresses:
    """One address per row: ``low`` alone for IPv4 (uint32), ``high`` and ``low`` halves for IPv6 (uint64)."""

    version: int
    low: U32 | U64
    high: U64 | None = None

    def among(self, nets: Nets) -> Bool:
        """bool[N]: in a set of CIDRs."""
        if self.high is None:
            return nets.contains4(self.low.astype(np.uint32, copy=False))
        return nets.contains6(self.high, self.low.astype(np.uint64, copy=False))

    def within(self, net: IPNetwork) -> Bool:
        """bool[N]: in one CIDR; all False if it is of the other family."""
        if net.version != self.version:
            return np.zeros(len(self.low), np.bool_)
        if net.prefixlen == 0:
            return np.ones(len(self.low), np.bool_)
        return self.among(Nets.of([net]))

    def equal(self, value: int) -> Bool:
        if self.high is None:
            return np.asarray(self.low == np.uint32(value), np.bool_)
        return np.asarray(
            (self.high == np.uint64(value >> 64)) & (self.low == np.uint64(value & 0xFFFFFFFFFFFFFFFF)), np.bool_
        )

    def take(self, rows: I64 | Bool) -> Addresses:
        return Addresses(self.version, self.low[rows], None if self.high is None else self.high[rows])


@dataclass(frozen=True)
class Flows:
    """``number`` is each row's packet; ``at`` where its transport starts in the capture's data.

    ``length`` is the transport's length by the IP header, ``present`` how much of it the frame had on the wire,
    ``captured`` how much was captured. ``protocol`` is -1 if the IPv6 extension headers are truncated. ``sport`` and
    ``dport`` are -1 without four bytes of a protocol that has ports; ``icmp_type``, ``icmp_code`` without a whole ICMP
    header; a ``later_fragment`` has neither and is not too short. Any of them is CUT where the capture cut it.
    ``untracked``: an Allow has taken it out of connection tracking. ``marked``: an Allow, of untracked or of preDNAT
    policy, has set the accept mark. No field has a default: the code for ordinary
    packets and the code for all others must both fill it.
    """

    version: int
    buf: ByteReader
    number: I64
    group: Bool
    source: Addresses
    destination: Addresses
    protocol: I64
    at: I64
    length: I64
    present: I64
    sport: I64
    dport: I64
    icmp_type: I64
    icmp_code: I64
    later_fragment: Bool
    whole_header: Bool  # all of a TCP, UDP or SCTP header is there
    captured: I64
    untracked: Bool
    marked: Bool

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: I64 | Bool) -> Flows:
        """A selection of rows."""
        if rows.dtype == np.bool_ and rows.all():
            return self  # the usual case in a flood: a stage that drops nothing
        taken: dict[str, Any] = {item.name: _taken(getattr(self, item.name), rows) for item in fields(self)}
        return Flows(**taken)

    def renumbered(self, first: int) -> Flows:
        """The same flows, numbered from ``first``."""
        return replace(self, number=self.number + first)


def _taken(value: object, rows: I64 | Bool) -> object:
    """A selection of rows of a column. A value that all rows share is returned as it is."""
    match value:
        case int() | ByteReader():
            return value
        case Addresses():
            return value.take(rows)
        case np.ndarray():
            return value[rows]
    raise TypeError(f"{type(value).__name__} is not a column of flows; add here how to select its rows")


# How much of each transport's header must be captured for a packet to be ordinary.
_READ = {TCP: TCP_HEADER, UDP: UDP_HEADER, SCTP: 12, ICMP: ICMP_HEADER, ICMPV6: ICMP_HEADER} | dict.fromkeys(
    PORT_PROTOCOLS - {TCP, UDP, SCTP}, PORTS_LENGTH
)


def ordinary4(columns: Columns, missing: I64) -> Flows:
    """The ordinary IPv4 packets; a total length beyond the frame is still ordinary. ``missing`` is how many bytes of
    each frame the capture cut; of ordinary packets all headers were captured.
    """
    four, links = columns.ipv4, columns.links
    plain = (
        (links.tags[four.rows] == 0)
        & (four.version == 4)
        & (four.header_length == _IP4_LENGTH)
        & (four.available >= _IP4_LENGTH)
        & (four.total_length >= _IP4_LENGTH)
        & (four.fragment & _FRAGMENT_MASK == 0)
    )
    return _with_header(_flows4(columns, four, np.flatnonzero(plain), missing))


def ordinary6(columns: Columns, missing: I64) -> Flows:
    """The ordinary IPv6 packets."""
    six, links = columns.ipv6, columns.links
    plain = (
        (links.tags[six.rows] == 0)
        & (six.version == 6)
        & (six.available >= _IP6_LENGTH)
        & (six.payload_length > 0)
        & ~np.isin(six.next_header, list(EXTENSION_HEADERS))
    )
    return _with_header(_flows6(columns, six, np.flatnonzero(plain), missing))


def _with_header(flows: Flows) -> Flows:
    """Those whose transport header was captured as far as it is read."""
    read = np.zeros(len(flows), np.int64)
    for protocol, length in _READ.items():
        read[flows.protocol == protocol] = length
    return flows.take(flows.captured >= np.minimum(read, flows.present))


def _flows4(columns: Columns, four: IPv4Columns, rows: I64, missing: I64) -> Flows:
    return _flows(
        columns,
        version=4,
        number=four.rows[rows],
        source=Addresses(4, four.source[rows]),
        destination=Addresses(4, four.destination[rows]),
        protocol=four.protocol[rows],
        at=four.start[rows] + _IP4_LENGTH,
        length=four.total_length[rows] - _IP4_LENGTH,
        available=four.available[rows] - _IP4_LENGTH,
        missing=missing,
    )


def _flows6(columns: Columns, six: IPv6Columns, rows: I64, missing: I64) -> Flows:
    return _flows(
        columns,
        version=6,
        number=six.rows[rows],
        source=Addresses(6, six.source[1][rows], six.source[0][rows]),
        destination=Addresses(6, six.destination[1][rows], six.destination[0][rows]),
        protocol=six.next_header[rows],
        at=six.start[rows] + _IP6_LENGTH,
        length=six.payload_length[rows],
        available=six.available[rows] - _IP6_LENGTH,
        missing=missing,
    )


def _flows(
    columns: Columns,
    *,
    version: int,
    number: I64,
    source: Addresses,
    destination: Addresses,
    protocol: I64,
    at: I64,
    length: I64,
    available: I64,
    missing: I64,
) -> Flows:
    buf = columns.buf
    present = np.minimum(length, available + missing[number])
    has_ports = np.isin(protocol, list(PORT_PROTOCOLS)) & (present >= PORTS_LENGTH)
    has_icmp = np.isin(protocol, (ICMP, ICMPV6)) & (present >= ICMP_HEADER)
    return Flows(
        version=version,
        buf=buf,
        number=number,
        group=columns.links.group[number],
        source=source,
        destination=destination,
        protocol=protocol,
        at=at,
        length=length,
        present=present,
        sport=np.where(has_ports, buf.u16(at), -1),
        dport=np.where(has_ports, buf.u16(at + 2), -1),
        icmp_type=np.where(has_icmp, buf.u8(at), -1),
        icmp_code=np.where(has_icmp, buf.u8(at + 1), -1),
        later_fragment=np.zeros(len(number), np.bool_),
        whole_header=whole_headers(protocol, present),
        captured=np.minimum(length, available),
        untracked=np.zeros(len(number), np.bool_),
        marked=np.zeros(len(number), np.bool_),
    )


def whole_headers(protocol: I64, present: I64) -> Bool:
    """bool[N]: the XDP program reads ports, because the transport header is complete."""
    whole = np.zeros(len(protocol), np.bool_)
    for number, length in HEADER_LENGTHS.items():
        whole |= (protocol == number) & (present >= length)
    return whole
