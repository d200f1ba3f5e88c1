"""Hypothesis strategies for conversations: packets between a host and one peer that may belong to few flows, sound and
unsound, from both sides. For connection tracking.

Numbers of TCP are near those that a connection would have, so that a conversation gets somewhere. Addresses are filled
in later: each run of a test takes a peer of its own, and with it fresh flows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address

from hypothesis import strategies as st

from dossim.packet.parse import internet_checksum
from dossim.pipeline.conntrack.checksum import crc32c
from tests.support.choices import Choices, built
from tests.support.frames import ipv4, ipv6

ME = {4: "10.10.10.10", 6: "fd00::10"}
# Where each side of a TCP connection begins to count: one of them wraps around.
_BEGIN = {False: 1_000, True: 0xFFFF_FFF0}
_DISTANCES = (0, 1, 2, 11, 101, 1_001, -1, -2, -1_001, 8_192, 65_535, 66_000, 70_000, 140_000, 1 << 31, 1 << 30)
_FLAGS = (0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14)
_OPTIONS = (
    b"",
    b"\x01\x03\x03\x07",
    b"\x01\x03\x03\x0f",
    b"\x02\x04\x05\xb4\x04\x02\x01\x03\x03\x02\x00\x00",
    b"\x04\x02\x01\x01",
    b"\x01\x01\x08\x0a\x00\x00\x00\x07\x00\x00\x00\x00",
    b"\x05\x0a" + (1_100).to_bytes(4, "big") + (1_300).to_bytes(4, "big") + b"\x01\x01",
    b"\x05\x0a" + (0xFFFF_FFF5).to_bytes(4, "big") + (40).to_bytes(4, "big") + b"\x01\x01",
    b"\x07\x01\x03\x03",
    b"\x03\x03\x07\x06",
)

# INIT, INIT ACK and SHUTDOWN COMPLETE, which are the only chunk of their packet.
_ALONE = (1, 2, 14)

_BYTES = 40  # no packet chooses more

Build = Callable[[str, str], bytes]
Kind = Callable[[Choices, "Sides"], "Planned"]


@dataclass(frozen=True)
class Sides:
    """Who speaks; ``ports`` are those of the host that TCP goes to."""

    peer_only: bool = False
    ports: tuple[int, ...] = (81,)

    def is_host(self, choices: Choices) -> bool:
        return not self.peer_only and bool(choices.below(2))


@dataclass(frozen=True)
class Planned:
    """A packet without its addresses: ``protocol`` and ``build(source, destination)`` are what IP carries.

    ``extension``: an IPv6 header before it.
    """

    version: int
    by_host: bool
    protocol: int
    build: Build
    extension: bytes = b""
    hop_limit: int = 64
    source: str | None = None

    def packet(self, peer: dict[int, str], me: dict[int, str] = ME) -> bytes:
        here, there = me[self.version], self.source or peer[self.version]
        source, destination = (here, there) if self.by_host else (there, here)
        body = self.build(source, destination)
        if self.version == 4:
            return ipv4(body, source=source, destination=destination, protocol=self.protocol)
        following = self.protocol
        if self.extension:
            body, following = bytes([self.protocol]) + self.extension[1:] + body, self.extension[0]
        return ipv6(body, source=source, destination=destination, next_header=following, hop_limit=self.hop_limit)


def checked(protocol: int, source: str, destination: str, buf: bytes, at: int, *, covered: int | None = None) -> bytes:
    """``buf`` with a correct checksum at ``at``."""
    pseudo = ip_address(source).packed + ip_address(destination).packed
    pseudo += len(buf).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    found = internet_checksum(pseudo, buf[:covered]) or 0xFFFF
    return buf[:at] + found.to_bytes(2, "big") + buf[at + 2 :]


@cache
def conversations(*, peer_only: bool = False, ports: tuple[int, ...] = (81,), most: int = 60) -> st.SearchStrategy:
    """Lists of Planned. ``ports`` are those of the host that TCP goes to; ``peer_only``: the host says nothing."""
    kinds = (
        tcp_packet,
        tcp_packet,
        tcp_packet,
        udp_packet,
        icmp_packet,
        icmp_packet,
        sctp_packet,
        other_packet,
    )
    return _lists(kinds, Sides(peer_only, ports), most)


@cache
def tcp_conversations(*, most: int = 60) -> st.SearchStrategy:
    """TCP alone, one flow or two, both sides."""
    return _lists((tcp_packet,), Sides(), most)


@cache
def sctp_conversations(*, most: int = 60) -> st.SearchStrategy:
    """SCTP alone, few flows, both sides."""
    return _lists((sctp_packet,), Sides(), most)


def _lists(kinds: Sequence[Kind], sides: Sides, most: int) -> st.SearchStrategy[list[Planned]]:
    def packet(choices: Choices) -> Planned:
        kind: Kind = choices.of(kinds)
        return kind(choices, sides)

    return st.lists(built(packet, _BYTES), min_size=most // 2, max_size=most)


def tcp_packet(choices: Choices, sides: Sides) -> Planned:
    by_host, version = sides.is_host(choices), choices.of((4, 4, 4, 6))
    ports = (1024, choices.of(sides.ports)) if choices.below(6) else (1025, choices.of(sides.ports))
    seq = _number(choices, by_host)
    ack = (0, _number(choices, not by_host), _number(choices, not by_host))[choices.below(3)]
    flags = choices.of(_FLAGS) if choices.below(13) else choices.below(256)
    window = choices.of((0, 1, 100, 512, 8_192, 65_535))
    options = choices.of(_OPTIONS) if bool(choices.below(2)) else b""
    data = bytes(choices.of((0, 0, 0, 1, 10, 100, 1_000)))
    spoilt = "" if choices.below(15) else choices.of(("checksum", "offset", "cut"))
    length = choices.below(41) if spoilt == "cut" else None

    def build(source: str, destination: str) -> bytes:
        pair = ports[::-1] if by_host else ports
        front = b"".join(port.to_bytes(2, "big") for port in pair)
        offset = 5 + len(options) // 4 + (spoilt == "offset") * 3
        buf = front + seq.to_bytes(4, "big") + ack.to_bytes(4, "big") + bytes([offset % 16 << 4, flags])
        buf += window.to_bytes(2, "big") + bytes(4) + options + data
        buf = checked(6, source, destination, buf, 16)
        if spoilt == "checksum":
            buf = buf[:17] + bytes([buf[17] ^ 1]) + buf[18:]
        return buf[:length]

    return Planned(version, by_host, 6, build)


def _number(choices: Choices, by_host: bool) -> int:
    if not choices.below(16):
        return choices.word()
    return int(_BEGIN[by_host] + choices.of(_DISTANCES)) % (1 << 32)


def udp_packet(choices: Choices, sides: Sides) -> Planned:
    by_host, version, protocol = sides.is_host(choices), choices.of((4, 6)), choices.of((17, 17, 136))
    ports = choices.of(((5000, 9), (5000, 10), (5001, 9)))
    data, cut = bytes(choices.below(21)), choices.of((None, None, None, None, 3, 4, 7, 8))
    length = choices.of((0, 0, 0, 0, -1, 1, -99, 4))
    checksum = choices.of(("udp", "udp", "udp", "own", "none", "bad"))

    def build(source: str, destination: str) -> bytes:
        pair = ports[::-1] if by_host else ports
        field = (max(8 + len(data) + length, 0)).to_bytes(2, "big")
        buf = b"".join(port.to_bytes(2, "big") for port in pair) + field + bytes(2) + data
        covered = int.from_bytes(field, "big") or None if protocol == 136 else None
        if checksum != "none":
            buf = checked(17 if checksum == "udp" else protocol, source, destination, buf, 6, covered=covered)
        if checksum == "bad":
            buf = buf[:6] + bytes([buf[6] ^ 0xFF]) + buf[7:]
        return buf[:cut]

    return Planned(version, by_host, protocol, build)


def icmp_packet(choices: Choices, sides: Sides) -> Planned:
    by_host, version = sides.is_host(choices), choices.of((4, 6))
    protocol = (1 if version == 4 else 58) if choices.below(16) else choices.of((1, 58))
    usual = (8, 0, 8, 0, 13, 14, 15, 16, 17, 18, 3, 3, 4, 5, 11, 12) if version == 4 else (
        128, 129, 128, 129, 1, 1, 2, 3, 4, 139, 140, 130, 131, 132, 133, 134, 135, 136, 143, 137, 137, 137)  # fmt: skip
    kind = choices.of(usual) if choices.below(10) else choices.below(256)
    code, ident = choices.of((0, 0, 0, 1)), choices.of((1, 2, 0))
    quote = _quote(choices, version, by_host, sides.ports[0])
    is_zero, is_bad = choices.below(31) == 0, choices.below(13) == 0
    cut = choices.of((None,) * 8 + (3, 7, 8, 12, 27, 28, 30, 33, 40, 47, 48, 50, 90))
    is_redirect = version == 6 and kind == 137
    option = choices.of((b"\x04\x06", b"\x04\x06", b"\x02\x01", b"\x04\x00"))
    is_link_local, hop_limit = bool(choices.below(2)) or is_redirect, choices.of((255, 255, 64))

    def build(source: str, destination: str) -> bytes:
        if is_zero:
            return bytes(12)
        body = quote(source, destination)
        if is_redirect:
            body = bytes(32) + option + bytes(6) + body
        buf = bytes([kind, code, 0, 0]) + ident.to_bytes(2, "big") + b"\0\1" + body
        if protocol == 1:
            buf = buf[:2] + internet_checksum(buf[:cut]).to_bytes(2, "big") + buf[4:]
            buf = buf[:cut]
        else:
            buf = checked(58, source, destination, buf[:cut], 2) if cut is None or cut >= 4 else buf[:cut]
        return buf[:2] + bytes([buf[2] ^ 0x55]) + buf[3:] if is_bad and len(buf) > 3 else buf

    from_router = "fe80::1" if is_redirect and is_link_local and not by_host else None
    return Planned(version, by_host, protocol, build, hop_limit=hop_limit if is_redirect else 64, source=from_router)


def _quote(choices: Choices, version: int, by_host: bool, port: int) -> Build:
    """A packet that the receiver of the error may have sent, or nobody."""
    protocol = choices.of((6, 17, 253, 1 if version == 4 else 58, 132, 47))
    ports = choices.of(((1024, port), (5000, 9), (7, 8)))
    is_reversed, third = bool(choices.below(2)), choices.below(8) == 0
    length, fragment = choices.of((64, 28, 24, 20)), choices.of((0, 0, 0, 3))
    icmp_type = choices.of((8, 0, 3) if version == 4 else (128, 129, 1))

    def build(source: str, destination: str) -> bytes:
        # The error's receiver is the quoted sender, unless reversed.
        first, second = (source, destination) if is_reversed else (destination, source)
        if third:
            second = "192.0.2.1" if version == 4 else "2001:db8:1::1"
        host_is_first = first == (source if by_host else destination)
        pair = ports[::-1] if host_is_first else ports
        if protocol in (1, 58):
            body = bytes([icmp_type, 0, 0, 0, 0, 1]) + bytes(20)
        else:
            body = b"".join(port.to_bytes(2, "big") for port in pair) + bytes(20)
        if version == 4:
            return ipv4(body, source=first, destination=second, protocol=protocol, fragment=fragment)[:length]
        return ipv6(body, source=first, destination=second, next_header=protocol)[: length + 20]

    return build


def sctp_packet(choices: Choices, sides: Sides) -> Planned:
    """Up to three chunks, most of them chunks that may be together, with the tags that the peers of few flows have."""
    by_host, version = sides.is_host(choices), choices.of((4, 4, 4, 6))
    ports = (6000, choices.of((7000, 7000, 7000, 7001)))
    kinds = [choices.of((1, 1, 1, 2, 2, 14, 10, 11, 0, 3, 4, 4, 5, 5, 6, 7, 8, 8, 9, 200))]
    if kinds[0] not in _ALONE or not choices.below(6):
        kinds += [choices.of((0, 3, 4, 4, 5, 5, 6, 7, 8, 8, 9, 200, 1, 10)) for _ in range(choices.below(3))]
    if not choices.below(21):
        kinds = []
    is_first = kinds == [1] and choices.below(10) > 0
    tag = 0 if is_first else choices.of((1, 1, 1, 2, 2, 3, 0))
    flags, initiate = choices.of((0, 0, 1)), choices.of((1, 1, 2, 3, 0))
    cut = choices.of((None,) * 20 + (3, 11, 12, 14, 20))
    length = choices.of((20,) * 12 + (4, 0, 17))
    is_bad = choices.below(16) == 0

    def build(source: str, destination: str) -> bytes:
        pair = ports[::-1] if by_host else ports
        buf = b"".join(port.to_bytes(2, "big") for port in pair) + tag.to_bytes(4, "big") + bytes(4)
        for kind in kinds:
            body = initiate.to_bytes(4, "big") + bytes(12)
            buf += bytes([kind, flags]) + length.to_bytes(2, "big") + body[: (length + 3 & ~3) - 4 if length else 0]
        buf = buf[:cut]
        if len(buf) >= 12:
            found = crc32c(buf) ^ is_bad
            buf = buf[:8] + found.to_bytes(4, "little") + buf[12:]
        return buf

    return Planned(version, by_host, 132, build)


def other_packet(choices: Choices, sides: Sides) -> Planned:
    """GRE of both versions, protocols without a tracker, IPv6 extension headers."""
    by_host, version = sides.is_host(choices), choices.of((4, 6))
    gre = (
        b"\0\0\x08\0" + bytes(8),
        b"\x30\x01\x88\x0b\0\x04\0\x07" + bytes(4),
        b"\x30\x01\x88\x0b\0\x04\0\0" + bytes(4),
        b"\x30\x01\x88\x0a\0\x04\0\x07",
        b"\x30\x01\x88\x0b\0",
        b"\0\0",
    )
    body = choices.of(gre)
    protocol = choices.of((47, 47, 253, 254, 33, 59))
    extension = b""
    if version == 6 and choices.below(2):
        extension = choices.of(
            (b"\x3c\0\1\4\0\0\0\0", b"\x2b\0\4\0\0\0\0\0", b"\x33\2" + bytes(14), b"\x3c\7\1\4\0\0\0\0")
        )
        protocol = choices.of((17, 253, protocol))
    return Planned(version, by_host, protocol, lambda source, destination: body, extension)
