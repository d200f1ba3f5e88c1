"""Random frames that get far into the pipeline: valid ones, cut, patched and fragmented. Deterministic by seed.

They are built from bytes: Scapy, which makes the same of them, needs more time for it than a drill with them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from dossim.packet.parse import internet_checksum
from tests.support.frames import ethernet, ipv4, ipv6, packed

SOURCES4 = (
    "203.0.113.7", "203.0.113.200", "198.51.100.9", "10.10.10.10", "10.10.10.77", "127.0.0.1", "224.0.0.5", "0.0.0.0",
    "0.1.2.3", "255.255.255.255", "240.1.1.1", "192.0.2.44", "169.254.1.1",
)  # fmt: skip
DESTINATIONS4 = (
    *("10.10.10.10",) * 12, "10.10.10.255", "10.10.10.99", "255.255.255.255", "224.0.0.1", "224.0.0.251", "127.0.0.1",
    "0.0.0.0", "192.0.2.5", "198.51.100.1",
)  # fmt: skip
SOURCES6 = (
    "2001:db8::7",
    "2001:db8:bad::1",
    "fd00::10",
    "fd00::77",
    "::1",
    "::",
    "ff02::5",
    "fe80::9",
    "2001:db8:5::9",
)
DESTINATIONS6 = (*("fd00::10",) * 12, "ff02::1", "ff02::fb", "ff01::1", "::1", "fd00::99", "2001:db8:5::5", "::")
PORTS = (9, 22, 53, 67, 68, 80, 81, 123, 443, 2379, 6666, 6667, 40000)
MACS = (*("06:00:00:00:00:01",) * 12, "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01")

ARP, IPV4, IPV6, DOT1Q, DOT1AD, LOOP = 0x0806, 0x0800, 0x86DD, 0x8100, 0x88A8, 0x9000
ICMP, TCP, UDP, ICMP6, NONE = 1, 6, 17, 58, 59
HOP_BY_HOP, DESTINATION_OPTIONS, FRAGMENT = 0, 60, 44
DF, MF = 0x4000, 0x2000
TCP_FLAGS = {"S": 0x02, "A": 0x10, "SA": 0x12, "R": 0x04, "PA": 0x18, "": 0, "FPU": 0x29}
SENDER = bytes.fromhex("020000000000")
PADN = bytes([1, 4, 0, 0, 0, 0])  # fills an empty header of options


def frames(seed: int, count: int) -> list[bytes]:
    """``count`` frames; fragments of one datagram are near each other."""
    rng = random.Random(seed)
    found: list[bytes] = []
    while len(found) < count:
        found.extend(_some(rng, len(found)))
    return found[:count]


def _some(rng: random.Random, ident: int) -> list[bytes]:
    result = []
    for frame in _pieces(rng, ident):
        result.append(_damaged(rng, frame) if rng.random() < 0.25 else frame)
    if len(result) > 1:
        _disturb(rng, result)
    return result


def _pieces(rng: random.Random, ident: int) -> list[bytes]:
    """A frame, or its fragments."""
    mac = bytes.fromhex(rng.choice(MACS).replace(":", ""))
    tags = [(rng.choice((DOT1Q, DOT1AD)), rng.choice((0, 0, 5))) for _ in range(rng.choice((0,) * 9 + (1, 1, 2, 3)))]
    packet, ethertype, fragments = _packet(rng, ident, tagged=bool(tags))
    frame = ethernet(packet, ethertype, destination=mac, tags=tags)
    if rng.random() < 0.8 or len(frame) < 120 or fragments is None:
        return [frame]
    return [ethernet(piece, ethertype, destination=mac, tags=tags) for piece in fragments(len(frame) - len(packet))]


# Makes the fragments of a packet. It is told how many bytes are before a packet in its frame.
Fragments = Callable[[int], list[bytes]]


def _packet(rng: random.Random, ident: int, *, tagged: bool) -> tuple[bytes, int, Fragments | None]:
    """Its bytes, its EtherType, and what makes fragments of it."""
    kind = rng.random()
    if kind < 0.04:
        operation, source, target = rng.choice((1, 2, 3)), rng.choice(SOURCES4), rng.choice(DESTINATIONS4)
        front = bytes([0, 1, *IPV4.to_bytes(2, "big"), 6, 4, 0, operation])
        return front + SENDER + packed(source) + bytes(6) + packed(target), ARP, None
    if kind < 0.06:
        return rng.randbytes(rng.randrange(64)), 0 if tagged else LOOP, None
    return _ip(rng, ident) if kind < 0.7 else _ip6(rng, ident)


def _ip(rng: random.Random, ident: int) -> tuple[bytes, int, Fragments]:
    source, destination = rng.choice(SOURCES4), rng.choice(DESTINATIONS4)
    ttl, flags, tos = rng.choice((0, 1, 2, 64, 255)), rng.choice((0, DF)), rng.choice((0, 0, 0, 1, 2, 3))
    protocol, data = _transport(rng, source, destination)

    def packet(payload: bytes, fragment: int) -> bytes:
        ends = {"source": source, "destination": destination}
        return ipv4(payload, **ends, protocol=protocol, ident=ident & 0xFFFF, fragment=fragment, ttl=ttl, tos=tos)

    def fragments(before: int) -> list[bytes]:
        size = rng.choice((64, 200, 512))
        last = (len(data) - 1) // size * size
        return [packet(data[at : at + size], at // 8 | (MF if at < last else 0)) for at in range(0, len(data), size)]

    return packet(data, flags), IPV4, fragments


def _ip6(rng: random.Random, ident: int) -> tuple[bytes, int, Fragments | None]:
    source, destination, hop_limit = rng.choice(SOURCES6), rng.choice(DESTINATIONS6), rng.choice((0, 1, 2, 64))
    extensions = [rng.choice((HOP_BY_HOP, DESTINATION_OPTIONS, FRAGMENT)) for _ in range(rng.choice((0,) * 6 + (1, 2)))]
    protocol, data = _transport(rng, source, destination, six=True)

    def headers(kinds: list[int], following: int, fragment: int = 0) -> bytes:
        """Extension headers before one of that number. ``fragment``: offset and flag of the last one."""
        found = b""
        for kind in reversed(kinds):
            if kind == FRAGMENT:
                header = bytes([following, 0]) + fragment.to_bytes(2, "big") + (ident // 40).to_bytes(4, "big")
            else:
                header = bytes([following, 0]) + PADN
            found, following, fragment = header + found, kind, 0
        return found

    def packet(payload: bytes) -> bytes:
        first = [*extensions, protocol][0]
        ends = {"source": source, "destination": destination}
        return ipv6(payload, **ends, next_header=first, hop_limit=hop_limit)

    def fragments(before: int) -> list[bytes]:
        most = rng.choice((1280, 300))  # bytes of a frame
        if before + len(whole) <= most:
            return [whole]
        at = extensions.index(FRAGMENT)
        following = [*extensions, protocol][at + 1]
        rest = headers(extensions[at + 1 :], protocol) + data
        most -= before + 40 + 8 * (at + 1)
        step = most - most % 8
        found, done = [], 0
        while len(rest) - done > most:
            found.append(packet(headers(extensions[: at + 1], following, done | 1) + rest[done : done + step]))
            done += step
        return [*found, packet(headers(extensions[: at + 1], following, done) + rest[done:])]

    whole = packet(headers(extensions, protocol) + data)
    return whole, IPV6, fragments if FRAGMENT in extensions else None


def _transport(rng: random.Random, source: str, destination: str, *, six: bool = False) -> tuple[int, bytes]:
    """The number of a protocol, its header and data."""
    payload = rng.randbytes(rng.choice((0, 1, 8, 33, 100, 1400)))
    ports = b"".join(rng.choice(PORTS).to_bytes(2, "big") for _ in range(2))
    kind = rng.randrange(10)
    if kind < 4:
        flags = TCP_FLAGS[rng.choice((*TCP_FLAGS,))]
        header = ports + bytes(8) + bytes([0x50, flags]) + (8192).to_bytes(2, "big") + bytes(4)
        return TCP, _checked(rng, TCP, source, destination, header + payload, 16)
    if kind < 8:
        header = ports + (8 + len(payload)).to_bytes(2, "big") + bytes(2)
        return UDP, _checked(rng, UDP, source, destination, header + payload, 6)
    if kind == 8 and six:
        echo = bytes([128]) + bytes(7) + payload
        return ICMP6, _with_sum(echo, 2, _sum(ICMP6, source, destination, echo))
    if kind == 8:
        message = bytes([rng.choice((0, 3, 8, 11, 200)), rng.randrange(4)]) + bytes(6) + payload
        return ICMP, _with_sum(message, 2, internet_checksum(message))
    return NONE if six else 0, payload


def _checked(rng: random.Random, protocol: int, source: str, destination: str, data: bytes, at: int) -> bytes:
    """With its checksum, or one of fifteen with another one."""
    if rng.random() < 0.15:
        return _with_sum(data, at, rng.choice((0, 1, 0xFFFF)))
    found = _sum(protocol, source, destination, data)
    return _with_sum(data, at, found or 0xFFFF if protocol == UDP else found)


def _sum(protocol: int, source: str, destination: str, data: bytes) -> int:
    pseudo = packed(source) + packed(destination) + len(data).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    return internet_checksum(pseudo, data)


def _with_sum(data: bytes, at: int, found: int) -> bytes:
    return data[:at] + found.to_bytes(2, "big") + data[at + 2 :]


def _damaged(rng: random.Random, frame: bytes) -> bytes:
    """Cut it, change a byte or two, or append bytes."""
    how = rng.randrange(4)
    if how == 0:
        return frame[: rng.randrange(14, len(frame) + 1)]
    if how == 1:
        return frame + bytes(rng.randrange(1, 30))
    patched = bytearray(frame)
    for _ in range(how - 1):
        patched[rng.randrange(12, min(len(frame), 74))] = rng.randrange(256)
    return bytes(patched)


def _disturb(rng: random.Random, pieces: list[bytes]) -> None:
    """Drop, repeat or reorder fragments."""
    how = rng.randrange(5)
    if how == 0:
        rng.shuffle(pieces)
    elif how == 1:
        del pieces[rng.randrange(len(pieces))]
    elif how == 2:
        pieces.insert(rng.randrange(len(pieces)), rng.choice(pieces))
