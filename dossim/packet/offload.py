"""Checksums left to hardware: packets captured before their checksum was computed, or after it was taken away.

Linux leaves the plain sum of the pseudo header in the field (CHECKSUM_PARTIAL: ``__tcp_v4_send_check``,
``udp4_hwcsum``) and the device completes it. Packets that GRO merged have it too (``tcp_gro_complete``), and so have
packets that passed no real device (veth, virtio). Other systems leave 0. On the wire the checksum was correct.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import numpy as np

from dossim.packet.columns import I64, U64, Bool, Columns, IPv4Columns, IPv6Columns, checksum_valid
from dossim.packet.fields import DESTINATION, HOP_BY_HOP, IPV4_HEADER, IPV6_HEADER, SCTP, TCP, UDP

_CHECKSUM_AT = {TCP: 16, UDP: 6, SCTP: 8}
_FRAGMENT_MASK = 0x3FFF
_MOST_EXTENSIONS = 8
_ETHERNET_MTU = 1500


@dataclass(frozen=True)
class _Segments:
    """Transport segments of whole datagrams; ``rows`` are packets, ``start`` and ``end`` index Capture.data.

    ``end`` is the end by the IP header, which may lie beyond the ``captured`` bytes. ``addresses`` is their plain sum.
    """

    rows: I64
    protocol: I64
    start: I64
    end: I64
    captured: I64
    addresses: I64

    def where(self, kept: Bool) -> _Segments:
        return _Segments(
            self.rows[kept],
            self.protocol[kept],
            self.start[kept],
            self.end[kept],
            self.captured[kept],
            self.addresses[kept],
        )


def offloaded(columns: Columns) -> Bool:
    """bool[N]: the TCP, UDP or SCTP checksum is incomplete: 0 where 0 is not valid, or the sum of the pseudo header
    alone.

    A correct checksum is never one of them. 0 is valid in UDP over IPv4 (RFC 768) and not counted. Fragments are left
    out: the checksum is computed before fragmentation.
    """
    mask = np.zeros(len(columns.links.cut), np.bool_)
    for segments, legal in ((_segments4(columns), UDP), (_segments6(columns), None)):
        for protocol, at in _CHECKSUM_AT.items():
            width = 4 if protocol == SCTP else 2
            chosen = segments.where(
                (segments.protocol == protocol) & (segments.start + at + width <= segments.captured)
            )
            suspect = _zero_or_partial(columns, chosen, protocol, zero_is_legal=protocol == legal)
            mask[chosen.rows[suspect]] = True
    return mask


def header_offloaded(columns: Columns) -> Bool:
    """bool[N]: the IPv4 header checksum is 0 and wrong; Linux never leaves that one to the device."""
    four = columns.ipv4
    whole = (four.version == 4) & (four.header_length >= IPV4_HEADER) & (four.available >= four.header_length)
    zero = np.flatnonzero(whole & (columns.buf.u16(four.start + 10) == 0))
    wrong = ~checksum_valid(columns.buf.data, four.start[zero], four.header_length[zero], np.zeros(len(zero), np.int64))
    mask = np.zeros(len(columns.links.cut), np.bool_)
    mask[four.rows[zero[wrong]]] = True
    return mask


def length_missing(columns: Columns) -> Bool:
    """bool[N]: an IPv4 packet of TCP or UDP, longer than an Ethernet frame, with total length 0: a large send that the
    device was to segment (Windows leaves the length to it).
    """
    four = columns.ipv4
    whole = (four.version == 4) & (four.header_length >= IPV4_HEADER) & np.isin(four.protocol, (TCP, UDP))
    mask = np.zeros(len(columns.links.cut), np.bool_)
    mask[four.rows[whole & (four.total_length == 0) & (four.available > _ETHERNET_MTU)]] = True
    return mask


def sent_by(columns: Columns, addresses: Collection[IPv4Address | IPv6Address]) -> Bool:
    """bool[N]: the IP source is one of these addresses, so a host with them sent the packet."""
    mask = np.zeros(len(columns.links.cut), np.bool_)
    four, six = columns.ipv4, columns.ipv6
    for address in addresses:
        value = int(address)
        if address.version == 4:
            mask[four.rows[(four.available >= IPV4_HEADER) & (four.source == np.uint32(value))]] = True
        else:
            high, low = (half == np.uint64(part) for half, part in zip(six.source, divmod(value, 1 << 64), strict=True))
            mask[six.rows[(six.available >= IPV6_HEADER) & high & low]] = True
    return mask


def _zero_or_partial(columns: Columns, segments: _Segments, protocol: int, *, zero_is_legal: bool) -> Bool:
    buf, at = columns.buf, segments.start + _CHECKSUM_AT[protocol]
    if protocol == SCTP:
        return np.asarray(buf.u32(at) == 0, np.bool_)
    stored = buf.u16(at)
    length = segments.end - segments.start
    pseudo = segments.addresses + protocol + (length & 0xFFFF) + (length >> 16)
    for _ in range(3):
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    suspect = (stored == pseudo) if zero_is_legal else (stored == pseudo) | (stored == 0)
    whole = np.flatnonzero(suspect & (segments.end <= segments.captured))
    right = checksum_valid(buf.data, segments.start[whole], length[whole], pseudo[whole])
    suspect[whole[right]] = False
    return np.asarray(suspect, np.bool_)


def _segments4(columns: Columns) -> _Segments:
    four: IPv4Columns = columns.ipv4
    end = four.start + four.total_length
    found = _Segments(
        four.rows, four.protocol, four.start + four.header_length, end, four.start + four.available,
        _sum32(four.source.astype(np.int64)) + _sum32(four.destination.astype(np.int64)),
    )  # fmt: skip
    whole = (four.version == 4) & (four.header_length >= IPV4_HEADER) & (four.fragment & _FRAGMENT_MASK == 0)
    return found.where(whole & (found.end > found.start))


def _segments6(columns: Columns) -> _Segments:
    six: IPv6Columns = columns.ipv6
    protocol, start = six.next_header.copy(), six.start + IPV6_HEADER
    captured = six.start + six.available
    for _ in range(_MOST_EXTENSIONS):
        passed = np.flatnonzero(np.isin(protocol, (HOP_BY_HOP, DESTINATION)) & (start + 2 <= captured))
        if not len(passed):
            break
        protocol[passed] = columns.buf.u8(start[passed])
        start[passed] += (columns.buf.u8(start[passed] + 1) + 1) * 8
    addresses = sum((_sum64(half) for half in (*six.source, *six.destination)), np.zeros(len(six.rows), np.int64))
    found = _Segments(six.rows, protocol, start, six.start + IPV6_HEADER + six.payload_length, captured, addresses)
    return found.where((six.version == 6) & (six.available >= IPV6_HEADER) & (found.end > found.start))


def _sum32(value: I64) -> I64:
    return (value >> 16) + (value & 0xFFFF)


def _sum64(value: U64) -> I64:
    return _sum32((value >> np.uint64(32)).astype(np.int64)) + _sum32((value & np.uint64(0xFFFFFFFF)).astype(np.int64))
