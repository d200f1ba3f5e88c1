"""Frames for the XDP program's tests, built from raw bytes, so that no library corrects them."""

from __future__ import annotations

import socket
import struct

OWN, OTHER, GROUP = b"\x06\0\0\0\0\x01", b"\x06\0\0\0\0\x02", b"\x01\0\x5e\0\0\x01"
ETHERNET = OWN + b"\x02\0\0\0\0\x02"
IPV4, IPV6, ARP, VLAN, QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
ICMP, TCP, UDP, AUTHENTICATION, ICMPV6, SCTP = 1, 6, 17, 51, 58, 132
HOP_BY_HOP, ROUTING, FRAGMENT, NONE, DESTINATION = 0, 43, 44, 59, 60

LISTED4, LISTED6 = "203.0.113.7", "2001:db8:bad::7"
UNLISTED4, UNLISTED6 = "203.0.114.0", "2001:db8:bae::"


def tcp(sport: int = 40000, dport: int = 80, *, length: int = 20) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, 2, 8192, 0, 0)[:length].ljust(length, b"\0")


def udp(sport: int = 40000, dport: int = 80, *, length: int = 8) -> bytes:
    return struct.pack("!HHHH", sport, dport, length, 0)[:length].ljust(length, b"\0")


def sctp(sport: int = 40000, dport: int = 80) -> bytes:
    return struct.pack("!HHII", sport, dport, 1, 0)


def ether(kind: int, payload: bytes, *tags: tuple[int, int]) -> bytes:
    """``tags`` are (type, id), the outermost first."""
    types = [*(tag for tag, _ in tags), kind]
    return (
        ETHERNET
        + types[0].to_bytes(2, "big")
        + b"".join(
            struct.pack("!HH", number, following) for (_, number), following in zip(tags, types[1:], strict=True)
        )
        + payload
    )


def ipv4(
    payload: bytes = b"",
    *,
    protocol: int = ICMP,
    source: str = LISTED4,
    options: bytes = b"",
    version: int = 4,
    header_words: int | None = None,
    total: int | None = None,
    offset: int = 0,
    more: bool = False,
    checksum: int = 0,
) -> bytes:
    """``offset`` in 8 bytes. The checksum is wrong: XDP ignores it."""
    words = 5 + len(options) // 4 if header_words is None else header_words
    length = 20 + len(options) + len(payload) if total is None else total
    header = struct.pack(
        "!BBHHHBBH4s4s",
        version << 4 | words,
        0,
        length,
        7,
        offset | more << 13,
        64,
        protocol,
        checksum,
        socket.inet_aton(source),
        socket.inet_aton("10.10.10.10"),
    )
    return header + options + payload


def ipv6(
    payload: bytes = b"",
    *,
    next_header: int = ICMPV6,
    source: str = LISTED6,
    version: int = 6,
    length: int | None = None,
    destination: str = "fd00::10",
) -> bytes:
    size = len(payload) if length is None else length
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", version << 28, size, next_header, 64) + addresses + payload


def options(following: int, *, size: int = 8) -> bytes:
    """A hop-by-hop, routing or destination options header of ``size`` bytes; its options are padding."""
    return struct.pack("!BB", following, size // 8 - 1).ljust(size, b"\0")


def authentication(following: int, *, size: int = 24) -> bytes:
    return struct.pack("!BBHI", following, size // 4 - 2, 0, 1).ljust(size, b"\0")


def fragment6(following: int, *, offset: int = 0, more: bool = True) -> bytes:
    """``offset`` in 8 bytes."""
    return struct.pack("!BBHI", following, 0, offset << 3 | more, 9)


def chain(*kinds: int, last: int = TCP, payload: bytes = b"") -> bytes:
    """An IPv6 packet with these extension headers before its transport header."""
    following = [*kinds[1:], last]
    make = {AUTHENTICATION: authentication, FRAGMENT: fragment6}
    headers = b"".join(make.get(kind, options)(after) for kind, after in zip(kinds, following, strict=True))
    return ether(IPV6, ipv6(headers + payload, next_header=kinds[0] if kinds else last))
