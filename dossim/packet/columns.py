"""Columns: the headers of many frames at once, as numpy arrays; the vectorised twin of :mod:`dossim.packet.parse`.

Nothing raises and nothing is judged. A header's fields are meaningful only if the frame is long enough: each table has
the number of ``available`` bytes. Reading past a frame's end yields bytes of the next one, never an error (Capture
pads).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import numpy as np
import numpy.typing as npt

from dossim.packet.capture import Capture
from dossim.packet.fields import ETHER_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPES_VLAN, VLAN_TAG

Bool = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]


class ByteReader:
    """Reads numbers of one, two, four and eight bytes at many offsets of a capture's data, in network byte order."""

    def __init__(self, data: U8) -> None:
        self.data = data
        self._last = max(len(data) - 8, 0)

    def u8(self, at: I64) -> I64:
        return self.data[np.minimum(at, self._last)].astype(np.int64)

    def u16(self, at: I64) -> I64:
        at = np.minimum(at, self._last)
        return self.data[at].astype(np.int64) << 8 | self.data[at + 1]

    def u32(self, at: I64) -> U32:
        at = np.minimum(at, self._last)
        value = self.data[at].astype(np.uint32)
        for step in (1, 2, 3):
            value = value << np.uint32(8) | self.data[at + step]
        return value

    def u64(self, at: I64) -> U64:
        high = self.u32(at).astype(np.uint64)
        return np.asarray(high << np.uint64(32) | self.u32(at + 4), np.uint64)


@dataclass(frozen=True)
class Links:
    """Layer 2 of every frame. ``ethertype`` and ``start`` are after all VLAN tags.

    ``cut``: too short for its Ethernet header or a tag. ``other_host``: a tag names a VLAN (id not 0); ``other_type``
    is then the ethertype right after that tag. ``end`` is the frame's end; all positions index Capture.data.
    """

    group: Bool
    cut: Bool
    tags: I64
    other_host: Bool
    other_type: I64
    ethertype: I64
    start: I64
    end: I64


@dataclass(frozen=True)
class IPv4Columns:
    """IPv4 headers of the frames ``rows``. ``available`` bytes from ``start`` to the frame's end; lengths in
    bytes.
    """

    rows: I64
    start: I64
    available: I64
    version: I64
    header_length: I64
    total_length: I64
    ident: I64
    fragment: I64  # flags and offset as on the wire
    ttl: I64
    protocol: I64
    source: U32
    destination: U32


@dataclass(frozen=True)
class IPv6Columns:
    """IPv6 headers of the frames ``rows``; addresses as (high, low) halves."""

    rows: I64
    start: I64
    available: I64
    version: I64
    payload_length: I64
    next_header: I64
    hop_limit: I64
    source: tuple[U64, U64]
    destination: tuple[U64, U64]


@dataclass(frozen=True)
class Columns:
    buf: ByteReader
    links: Links
    ipv4: IPv4Columns
    ipv6: IPv6Columns


def parse_columns(capture: Capture) -> Columns:
    """Headers of all frames, down to IP."""
    buf = ByteReader(capture.data)
    links = _links(buf, capture.offset, capture.length.astype(np.int64))
    return Columns(buf, links, _ipv4(buf, links), _ipv6(buf, links))


def _links(buf: ByteReader, offset: I64, length: I64) -> Links:
    end = offset + length
    cut = length < ETHER_HEADER
    ethertype = np.where(cut, 0, buf.u16(offset + 12))
    start = offset + ETHER_HEADER
    tags = np.zeros(len(offset), np.int64)
    other_host = np.zeros(len(offset), np.bool_)
    other_type = np.zeros(len(offset), np.int64)
    tagged = np.flatnonzero(np.isin(ethertype, list(ETHERTYPES_VLAN)))
    while len(tagged):
        # skb_vlan_untag() needs the tag and two more bytes
        short = start[tagged] + VLAN_TAG + 2 > end[tagged]
        cut[tagged[short]] = True
        tagged = tagged[~short]
        named = buf.u16(start[tagged]) & 0x0FFF != 0
        inner = buf.u16(start[tagged] + 2)
        first = tagged[named & ~other_host[tagged]]
        other_type[first] = inner[named & ~other_host[tagged]]
        other_host[first] = True
        ethertype[tagged] = inner
        start[tagged] += VLAN_TAG
        tags[tagged] += 1
        tagged = tagged[np.isin(inner, list(ETHERTYPES_VLAN))]
    group = (buf.u8(offset) & 1).astype(np.bool_)
    return Links(group, cut, tags, other_host, other_type, ethertype, start, end)


def _ipv4(buf: ByteReader, links: Links) -> IPv4Columns:
    rows = np.flatnonzero((links.ethertype == ETHERTYPE_IPV4) & ~links.cut)
    start = links.start[rows]
    first = buf.u8(start)
    return IPv4Columns(
        rows=rows,
        start=start,
        available=links.end[rows] - start,
        version=first >> 4,
        header_length=(first & 0x0F) * 4,
        total_length=buf.u16(start + 2),
        ident=buf.u16(start + 4),
        fragment=buf.u16(start + 6),
        ttl=buf.u8(start + 8),
        protocol=buf.u8(start + 9),
        source=buf.u32(start + 12),
        destination=buf.u32(start + 16),
    )


def _ipv6(buf: ByteReader, links: Links) -> IPv6Columns:
    rows = np.flatnonzero((links.ethertype == ETHERTYPE_IPV6) & ~links.cut)
    start = links.start[rows]
    return IPv6Columns(
        rows=rows,
        start=start,
        available=links.end[rows] - start,
        version=buf.u8(start) >> 4,
        payload_length=buf.u16(start + 4),
        next_header=buf.u8(start + 6),
        hop_limit=buf.u8(start + 7),
        source=(buf.u64(start + 8), buf.u64(start + 16)),
        destination=(buf.u64(start + 24), buf.u64(start + 32)),
    )


def main_destinations(capture: Capture) -> list[IPv4Address | IPv6Address]:
    """The most frequent unicast destination of each family in the capture, IPv4 first."""
    columns = parse_columns(capture)
    found: list[IPv4Address | IPv6Address] = []
    four = columns.ipv4.destination[columns.ipv4.available >= 20]
    usual = Counter(value for value in four.tolist() if 0x01000000 <= value < 0xE0000000 and value >> 24 != 127)
    if usual:
        found.append(IPv4Address(usual.most_common(1)[0][0]))
    whole = columns.ipv6.available >= 40
    six = Counter(
        high << 64 | low
        for high, low in zip(*(half[whole].tolist() for half in columns.ipv6.destination), strict=True)
        if high >> 56 != 0xFF and (high << 64 | low) > 1
    )
    if six:
        found.append(IPv6Address(six.most_common(1)[0][0]))
    return found
