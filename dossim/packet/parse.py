"""parse: the bytes of one frame -> a Packet. Scalar and literal; the vectorised twin is :mod:`dossim.packet.columns`.

Nothing here raises, whatever the bytes are, and nothing is judged: a wrong version, length or checksum is read as it
is. The functions below :func:`parse` read parts, for callers that have only a part (a reassembled datagram). Only
frames that the capture cut (:mod:`dossim.packet.cut`) raise CutError, when a missing header is read.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from dossim.packet.cut import CutError, visible
from dossim.packet.fields import (
    ARP_HEADER,
    AUTHENTICATION,
    ETHER_HEADER,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPES_VLAN,
    EXTENSION_HEADERS,
    FRAGMENT,
    FRAGMENT_HEADER,
    HIDDEN,
    IP,
    IPV4_HEADER,
    IPV6_HEADER,
    NO_NEXT,
    ROUTING,
    VLAN_TAG,
    Arp,
    Ethernet,
    IPv4,
    IPv6,
    Packet,
    Transport,
    VlanTag,
)


def parse(frame: bytes) -> Packet:
    """A frame as far as it can be read. Raises CutError if the capture cut it inside its Ethernet header."""
    link = parse_ethernet(frame)
    if link is None:
        return Packet(frame)
    ip: IP | None = None
    try:
        if link.ethertype == ETHERTYPE_ARP:
            return Packet(frame, link, parse_arp(link.payload))
        ip = parse_ip(link)
        return Packet(frame, link, ip, None if ip is None else transport_of(ip))
    except CutError:
        return Packet(frame, link, ip)


def parse_ip(link: Ethernet) -> IP | None:
    """The IP header after an Ethernet header; None without one."""
    if link.ethertype == ETHERTYPE_IPV4:
        return parse_ipv4(link.payload)
    return parse_ipv6(link.payload) if link.ethertype == ETHERTYPE_IPV6 else None


def parse_ethernet(frame: bytes) -> Ethernet | None:
    """The Ethernet header with all its VLAN tags; a tag that is cut short stays an ethertype. None below 14 bytes."""
    if len(frame) < ETHER_HEADER:
        return None
    tags: list[VlanTag] = []
    at, ethertype = ETHER_HEADER, number(frame, 12, 2)
    while ethertype in ETHERTYPES_VLAN and len(frame) >= at + VLAN_TAG:
        tags.append(VlanTag(ethertype, number(frame, at, 2)))
        ethertype = number(frame, at + 2, 2)
        at += VLAN_TAG
    return Ethernet(frame[:6], frame[6:12], tuple(tags), ethertype, frame[at:])


def parse_arp(buf: bytes) -> Arp | None:
    """The ARP packet; None if shorter than an ARP packet for Ethernet and IPv4."""
    if len(buf) < ARP_HEADER:
        return None
    return Arp(
        hardware=number(buf, 0, 2),
        protocol=number(buf, 2, 2),
        hardware_length=buf[4],
        protocol_length=buf[5],
        operation=number(buf, 6, 2),
        target=IPv4Address(buf[24:28]),
    )


def parse_ipv4(buf: bytes) -> IPv4 | None:
    """The IPv4 header at the start of ``buf``; None below 20 bytes."""
    if len(buf) < IPV4_HEADER:
        return None
    fragment = number(buf, 6, 2)
    return IPv4(
        buf=buf,
        version=buf[0] >> 4,
        header_length=(buf[0] & 0x0F) * 4,
        tos=buf[1],
        total_length=number(buf, 2, 2),
        ident=number(buf, 4, 2),
        dont_fragment=bool(fragment & 0x4000),
        more_fragments=bool(fragment & 0x2000),
        offset=(fragment & 0x1FFF) * 8,
        ttl=buf[8],
        protocol=buf[9],
        checksum=number(buf, 10, 2),
        source=IPv4Address(buf[12:16]),
        destination=IPv4Address(buf[16:20]),
    )


def parse_ipv6(buf: bytes) -> IPv6 | None:
    """The IPv6 header at the start of ``buf``; None below 40 bytes."""
    if len(buf) < IPV6_HEADER:
        return None
    return IPv6(
        buf=buf,
        version=buf[0] >> 4,
        traffic_class=number(buf, 0, 2) >> 4 & 0xFF,
        payload_length=number(buf, 4, 2),
        next_header=buf[6],
        hop_limit=buf[7],
        source=IPv6Address(buf[8:24]),
        destination=IPv6Address(buf[24:40]),
    )


def transport_of(ip: IP, *, skip_authentication: bool = True) -> Transport | None:
    """The transport of the packet; None if its extension headers are truncated before they name it.

    Without ``skip_authentication`` an IPv6 authentication header counts as the transport, as in nftables.
    """
    if isinstance(ip, IPv4):
        return Transport(ip.protocol, ip.header_length, ip.payload, ip.offset)
    return _after_extension_headers(ip, EXTENSION_HEADERS if skip_authentication else _UNAUTHENTICATED)


def seen_transport(ip: IP, *, skip_authentication: bool = True) -> Transport | None:
    """As :func:`transport_of`, but lazily: if the capture cut the extension headers, CutError is raised on access."""
    try:
        return transport_of(ip, skip_authentication=skip_authentication)
    except CutError:
        return HIDDEN


_UNAUTHENTICATED = EXTENSION_HEADERS - {AUTHENTICATION}


def _after_extension_headers(ip: IPv6, passed: frozenset[int]) -> Transport | None:
    """As ip6tables finds it: ``ipv6_find_hdr`` with target -1 (``net/ipv6/exthdrs_core.c``). nftables makes it stop at
    an authentication header (``nf_tables_ipv6.h``: IP6_FH_F_AUTH) if two bytes of that are present.

    A header must be present only as far as it is read, so the transport may begin beyond the end of the packet.
    """
    buf, kind, at = ip.buf, ip.next_header, IPV6_HEADER
    while kind in EXTENSION_HEADERS and kind != NO_NEXT:
        if kind not in passed and len(buf) >= at + 2:
            break
        if len(buf) < at + (4 if kind in (ROUTING, FRAGMENT) else 2):
            return None
        following = buf[at]
        if kind == FRAGMENT and (offset := number(buf, at + 2, 2) & 0xFFF8):
            if following in EXTENSION_HEADERS and following != NO_NEXT:
                return None  # more headers follow, but in another fragment
            return Transport(following, at, buf[at:], offset)
        at += extension_length(kind, buf[at + 1])
        kind = following
    return Transport(kind, at, buf[at:])


def extension_length(kind: int, length_field: int) -> int:
    """The length of an extension header; the unit depends on the kind (RFC 8200, RFC 4302)."""
    if kind == FRAGMENT:
        return FRAGMENT_HEADER
    return (length_field + 2) * 4 if kind == AUTHENTICATION else (length_field + 1) * 8


def number(buf: bytes, at: int, length: int) -> int:
    """A number in network byte order."""
    return int.from_bytes(buf[at : at + length], "big")


def internet_checksum(*parts: bytes) -> int:
    """RFC 1071 over the parts, each of even length except the last. 0 for data that includes a correct checksum."""
    buf = b"".join(map(visible, parts))
    if len(buf) % 2:
        buf += b"\0"
    # The sum of the 16-bit words and the whole number have the same remainder modulo 2**16 - 1, because 2**16 has
    # remainder 1.
    remainder = int.from_bytes(buf, "big") % 0xFFFF
    if remainder == 0 and any(buf):
        remainder = 0xFFFF  # one's complement has two zeros; only a sum of nothing but zeros gives the positive one
    return 0xFFFF - remainder


def header_checksum_ok(ip: IPv4) -> bool:
    """Whether the checksum of the header and its options is correct (``ip_fast_csum``)."""
    return internet_checksum(ip.buf[: ip.header_length]) == 0


def transport_checksum_ok(ip: IP, protocol: int, covered: bytes, *, length: int | None = None) -> bool:
    """Whether the checksum of a TCP, UDP or ICMPv6 segment is correct, with the pseudo header of its addresses.

    ``length`` is the segment's when the checksum covers only part of it (UDP-Lite).
    """
    return internet_checksum(_pseudo_header(ip, protocol, len(covered) if length is None else length), covered) == 0


def transport_checksum(ip: IP, protocol: int, segment: bytes) -> int:
    """The checksum of a TCP or UDP segment whose checksum field is 0."""
    return internet_checksum(_pseudo_header(ip, protocol, len(segment)), segment) or 0xFFFF


def _pseudo_header(ip: IP, protocol: int, length: int) -> bytes:
    width = 2 if isinstance(ip, IPv4) else 4
    numbers = (length % (1 << 8 * width)).to_bytes(width, "big") + protocol.to_bytes(width, "big")
    return ip.source.packed + ip.destination.packed + numbers
