"""Hypothesis strategies for frames: well-formed, mutated, truncated, fragmented. Addresses and ports are few, so that
rules match.

Frames are built from bytes, not with Scapy: property tests need tens of thousands of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache, partial
from ipaddress import IPv4Address, ip_address

from hypothesis import strategies as st

from dossim.packet.parse import internet_checksum
from tests.support.choices import Choices, built

ME4, ME6 = "10.10.10.10", "fd00::10"
MAC = bytes.fromhex("060000000001")
BROADCAST_MAC = b"\xff" * 6
GROUP_MAC = bytes.fromhex("01005e000001")

SOURCES4 = ("203.0.113.7", "203.0.113.200", "198.51.100.9", "192.0.2.33", "10.10.10.77", "8.8.8.8")
ODD_SOURCES4 = (ME4, "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.9", "10.10.10.255", "192.0.2.5", "240.0.0.1")
ODD_DESTINATIONS4 = (
    "10.10.10.255", "224.0.0.1", "224.0.0.251", "255.255.255.255", "0.0.0.0", "127.0.0.1", "10.10.10.99", "192.0.2.5",
    "8.8.4.4", "10.10.10.0",
)  # fmt: skip
SOURCES6 = ("2001:db8::7", "2001:db8:1::9", "2001:db8:bad::1", "fd00::77", "2600::1")
ODD_SOURCES6 = (ME6, "::", "::1", "ff02::5", "fe80::9", "2001:db8:5::5")
ODD_DESTINATIONS6 = (
    "ff02::1", "ff02::2", "ff02::1:ff00:10", "ff02::1:ff00:0", "ff02::fb", "ff01::1", "ff00::1", "::1", "::", "fd00::",
    "fd00::99", "2001:db8:5::5", "2600::2", "fe80::1",
)  # fmt: skip
PORTS = (22, 53, 67, 68, 80, 9, 179, 6443, 1024, 2379)
PROTOCOLS = (6, 17, 1, 58, 132, 136, 2, 33, 47, 253, 0, 51, 59)
EXTENSIONS = (0, 43, 44, 51, 60)
OPTIONS4 = (b"\x01", b"\x07\x07\x04" + bytes(4), b"\x83\x07\x04" + bytes(4), b"\x94\x04\0\0")
ODD_OPTIONS6 = (b"\5\2\0\0\1\0", b"\xc2\4" + bytes(4), b"\x1e\4" + bytes(4), b"\x5e\4" + bytes(4), bytes(6))
ODD_ETHERTYPES = (0x88B5, 0x0026, 0x8100, 0x0800, 0x86DD)


@lru_cache(maxsize=1 << 14)
def packed(address: str) -> bytes:
    """The bytes of an address."""
    return ip_address(address).packed


def ethernet(
    payload: bytes, ethertype: int, *, destination: bytes = MAC, tags: Sequence[tuple[int, int]] = ()
) -> bytes:
    """A frame; ``tags`` are (type, id)."""
    front = destination + bytes.fromhex("020000000000")
    for tag_type, tag_id in tags:
        front += tag_type.to_bytes(2, "big") + tag_id.to_bytes(2, "big")
    return front + ethertype.to_bytes(2, "big") + payload


def ipv4(
    payload: bytes, *, source: str, destination: str, protocol: int, options: bytes = b"", ident: int = 0,
    fragment: int = 0, ttl: int = 64, tos: int = 0,
) -> bytes:  # fmt: skip
    """An IPv4 packet with a correct checksum. ``fragment`` is the field with flags and offset; options are padded."""
    options += bytes(-len(options) % 4)
    header = bytearray([0x45 + len(options) // 4, tos])
    header += (20 + len(options) + len(payload)).to_bytes(2, "big") + ident.to_bytes(2, "big")
    header += fragment.to_bytes(2, "big") + bytes([ttl, protocol, 0, 0])
    header += packed(source) + packed(destination) + options
    header[10:12] = internet_checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + payload


def ipv6(
    payload: bytes, *, source: str, destination: str, next_header: int, hop_limit: int = 64, tos: int = 0
) -> bytes:
    """An IPv6 packet."""
    head = (6 << 28 | tos << 20).to_bytes(4, "big") + len(payload).to_bytes(2, "big") + bytes([next_header, hop_limit])
    return head + packed(source) + packed(destination) + payload


def segment(protocol: int, source: str, destination: str, ports: tuple[int, int], data: bytes) -> bytes:
    """Transport header and data of a protocol, with a correct checksum if it has one."""
    front = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big")
    if protocol == 6:
        return _checked(protocol, source, destination, front + bytes(8) + b"\x50\x02\x20\x00" + bytes(4) + data, 16)
    if protocol in (17, 136):
        return _checked(protocol, source, destination, front + (8 + len(data)).to_bytes(2, "big") + bytes(2) + data, 6)
    if protocol == 58:
        return _checked(protocol, source, destination, bytes([ports[0] % 256, ports[1] % 4]) + bytes(6) + data, 2)
    if protocol == 1:
        buf = bytes([ports[0] % 20, ports[1] % 4]) + bytes(6) + data
        return buf[:2] + internet_checksum(buf).to_bytes(2, "big") + buf[4:]
    return front + data


def _checked(protocol: int, source: str, destination: str, buf: bytes, at: int) -> bytes:
    pseudo = packed(source) + packed(destination)
    pseudo += len(buf).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    checksum = internet_checksum(pseudo, buf) or 0xFFFF
    return buf[:at] + checksum.to_bytes(2, "big") + buf[at + 2 :]


@cache
def frames() -> st.SearchStrategy[bytes]:
    """One frame of any kind."""
    return built(_frame, 64)


@cache
def captures(*, max_size: int = 6) -> st.SearchStrategy[list[bytes]]:
    """Frames in order of arrival, with fragments of several datagrams."""
    return built(lambda choices: _capture(choices, max_size), 40 * max_size)


def _capture(choices: Choices, most: int) -> list[bytes]:
    groups = choices.some(lambda: _fragments(choices) if choices.one_in(3) else [_frame(choices)], 1, most)
    return [frame for group in groups for frame in group]


def _frame(choices: Choices) -> bytes:
    kind = choices.of((4, 4, 4, 6, 6, "arp", "other"))
    if kind in (4, 6):
        payload, ethertype = (_packet4(choices), 0x0800) if kind == 4 else (_packet6(choices), 0x86DD)
    elif kind == "arp":
        payload, ethertype = bytes.fromhex("0001080006040001") + bytes(16) + IPv4Address(ME4).packed, 0x0806
    else:
        payload, ethertype = choices.octets(choices.below(41)), choices.of(ODD_ETHERTYPES)

    def tag() -> tuple[int, int]:
        return choices.of((0x8100, 0x88A8)), choices.mostly(0, (5,))

    tags = choices.some(tag, 0, 3) if choices.one_in(5) else []
    destination = choices.mostly(MAC, (BROADCAST_MAC, GROUP_MAC))
    return _damaged(choices, ethernet(payload, ethertype, destination=destination, tags=tags))


def _damaged(choices: Choices, frame: bytes) -> bytes:
    damage = choices.mostly("none", ("flip", "cut", "pad"))
    if damage == "flip":
        at = 12 + choices.below(len(frame) - 12)
        return frame[:at] + choices.octets(1) + frame[at + 1 :]
    if damage == "cut":
        return frame[: choices.below(len(frame) + 1)]
    return frame + bytes(1 + choices.below(20)) if damage == "pad" else frame


def _packet4(choices: Choices) -> bytes:
    source = choices.of(ODD_SOURCES4 if choices.one_in(5) else SOURCES4)
    destination = choices.mostly(ME4, ODD_DESTINATIONS4)
    protocol, buf = _segment(choices, source, destination)
    return ipv4(
        buf,
        source=source,
        destination=destination,
        protocol=protocol,
        options=choices.mostly(b"", OPTIONS4),
        ident=choices.below(3),
        fragment=choices.mostly(0, (0x4000, 0x2000, 0x2002, 3, 0x1FFF)),
        ttl=choices.mostly(64, (0, 1, 2)),
    )


def _packet6(choices: Choices) -> bytes:
    source = choices.of(ODD_SOURCES6 if choices.one_in(5) else SOURCES6)
    destination = choices.mostly(ME6, ODD_DESTINATIONS6)
    protocol, buf = _segment(choices, source, destination)
    for kind in choices.some(partial(choices.of, EXTENSIONS), 0, 3):
        buf = _extension(choices, kind, protocol) + buf
        protocol = kind
    if choices.one_in(41):
        for _ in range(9):
            buf, protocol = bytes([protocol, 0, 1, 4, 0, 0, 0, 0]) + buf, 60
    hop_limit = choices.mostly(64, (0, 1, 2))
    return ipv6(buf, source=source, destination=destination, next_header=protocol, hop_limit=hop_limit)


def _segment(choices: Choices, source: str, destination: str) -> tuple[int, bytes]:
    protocol = choices.of(PROTOCOLS if choices.below(2) else (6, 17))
    ports = choices.of(PORTS), choices.of(PORTS)
    data = choices.mostly(b"", (bytes(1300),)) + choices.octets(choices.below(25))
    buf = segment(protocol, source, destination, ports, data)
    return protocol, buf[: choices.below(len(buf) + 1)] if choices.one_in(6) else buf


def _extension(choices: Choices, kind: int, following: int) -> bytes:
    if kind == 44:
        field = choices.mostly(0, (1, 8, 9, 0xFFF8))
        return bytes([following, 0]) + field.to_bytes(2, "big") + choices.below(3).to_bytes(4, "big")
    if kind == 43:
        return bytes([following, 0, choices.of((0, 2, 3, 4)), choices.below(2)]) + bytes(4)
    if kind == 51:
        return bytes([following, 4]) + bytes(22)
    options = choices.mostly(b"\1\4" + bytes(4), ODD_OPTIONS6)
    return bytes([following, choices.mostly(0, (1, 40))]) + options


def _fragments(choices: Choices) -> list[bytes]:
    """Fragments of one datagram in any order, perhaps with one missing, repeated or shifted."""
    is_four = choices.below(2) == 0
    source, destination = (choices.of(SOURCES4), ME4) if is_four else (choices.of(SOURCES6), ME6)
    ports = choices.of(PORTS), choices.of(PORTS)
    protocol = choices.of((6, 17))
    buf = segment(protocol, source, destination, ports, bytes(choices.below(61)))
    step = choices.of((8, 16, 24))
    pieces = [(at, buf[at : at + step], at + step < len(buf)) for at in range(0, len(buf), step)]
    pieces = _disturbed(choices, pieces)
    ident, tos = choices.below(3), choices.mostly(0, (1, 3))
    if is_four:
        return [
            ethernet(
                ipv4(data, source=source, destination=destination, protocol=protocol, ident=ident, tos=tos,
                     fragment=at // 8 | 0x2000 * more),
                0x0800,
            )
            for at, data, more in pieces
        ]  # fmt: skip
    return [
        ethernet(
            ipv6(bytes([protocol, 0]) + (at | more).to_bytes(2, "big") + ident.to_bytes(4, "big") + data,
                 source=source, destination=destination, next_header=44, tos=tos),
            0x86DD,
        )
        for at, data, more in pieces
    ]  # fmt: skip


def _disturbed(choices: Choices, pieces: list[tuple[int, bytes, bool]]) -> list[tuple[int, bytes, bool]]:
    at = choices.below(len(pieces))
    offset, data, more = pieces[at]
    what = choices.of(("in order", "shuffle", "double", "lose", "shift", "cut", "end", "grow"))
    if what == "double":
        pieces = [*pieces, pieces[at]]
    elif what == "lose":
        pieces = [piece for i, piece in enumerate(pieces) if i != at] or pieces
    elif what == "shift":
        pieces = [*pieces[:at], (offset + 8, data, more), *pieces[at:]]
    elif what == "cut":
        pieces = [*pieces[:at], (offset, data[:-3], more), *pieces[at + 1 :]]
    elif what == "end":
        pieces = [*pieces, (offset, data, not more)]
    elif what == "grow":
        pieces = [*pieces, (offset, data + bytes(16), more)]
    return choices.shuffled(pieces) if what != "in order" else pieces
