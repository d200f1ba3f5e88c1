"""Random frames that get far into the pipeline: valid ones, cut, patched and fragmented. Deterministic by seed."""

from __future__ import annotations

import random
from itertools import pairwise

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

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


def frames(seed: int, count: int) -> list[bytes]:
    """``count`` frames; fragments of one datagram are near each other."""
    rng = random.Random(seed)
    found: list[bytes] = []
    while len(found) < count:
        found.extend(_some(rng, len(found)))
    return found[:count]


def _some(rng: random.Random, ident: int) -> list[bytes]:
    packet = _packet(rng, ident)
    pieces = _pieces(rng, packet)
    result = []
    for piece in pieces:
        frame = bytes(piece)
        if rng.random() < 0.25:
            frame = _damaged(rng, frame)
        result.append(frame)
    if len(result) > 1:
        _disturb(rng, result)
    return result


def _packet(rng: random.Random, ident: int) -> Packet:
    layers: list[Packet] = [Ether(dst=rng.choice(MACS), src="02:00:00:00:00:00")]
    for _ in range(rng.choice((0,) * 9 + (1, 1, 2, 3))):
        layers.append(rng.choice((Dot1Q, Dot1AD))(vlan=rng.choice((0, 0, 5))))
    kind = rng.random()
    if kind < 0.04:
        layers.append(ARP(op=rng.choice((1, 2, 3)), psrc=rng.choice(SOURCES4), pdst=rng.choice(DESTINATIONS4)))
    elif kind < 0.06:
        layers.append(Raw(rng.randbytes(rng.randrange(64))))
    elif kind < 0.7:
        layers += [_ip(rng, ident), *_transport(rng)]
    else:
        layers += [*_ip6(rng, ident), *_transport(rng, six=True)]
    return _stacked(layers)


def _stacked(layers: list[Packet]) -> Packet:
    """What ``/`` makes of them, in a third of the time: it copies all of both sides, and building expands what has one
    value for every field.
    """
    for lower, upper in pairwise(layers):
        lower.add_payload(upper)
    for layer in layers:
        layer.explicit = 1
    return layers[0]


def _ip(rng: random.Random, ident: int) -> Packet:
    return IP(
        src=rng.choice(SOURCES4),
        dst=rng.choice(DESTINATIONS4),
        id=ident & 0xFFFF,
        ttl=rng.choice((0, 1, 2, 64, 255)),
        flags=rng.choice((0, "DF")),
        tos=rng.choice((0, 0, 0, 1, 2, 3)),
    )


def _ip6(rng: random.Random, ident: int) -> list[Packet]:
    layers: list[Packet] = [
        IPv6(src=rng.choice(SOURCES6), dst=rng.choice(DESTINATIONS6), hlim=rng.choice((0, 1, 2, 64)))
    ]
    for _ in range(rng.choice((0,) * 6 + (1, 2))):
        layers.append(rng.choice((IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(id=ident // 40))))
    return layers


def _transport(rng: random.Random, *, six: bool = False) -> list[Packet]:
    payload = Raw(rng.randbytes(rng.choice((0, 1, 8, 33, 100, 1400))))
    sport, dport = rng.choice(PORTS), rng.choice(PORTS)
    kind = rng.randrange(10)
    if kind < 4:
        flags = rng.choice(("S", "A", "SA", "R", "PA", "", "FPU"))
        return [TCP(sport=sport, dport=dport, flags=flags, **_bad_sum(rng)), payload]
    if kind < 8:
        return [UDP(sport=sport, dport=dport, **_bad_sum(rng)), payload]
    if kind == 8:
        echo = ICMPv6EchoRequest() if six else ICMP(type=rng.choice((0, 3, 8, 11, 200)), code=rng.randrange(4))
        return [echo, payload]
    return [payload]


def _bad_sum(rng: random.Random) -> dict[str, int]:
    return {"chksum": rng.choice((0, 1, 0xFFFF))} if rng.random() < 0.15 else {}


def _pieces(rng: random.Random, packet: Packet) -> list[Packet]:
    if rng.random() < 0.8 or len(packet) < 120:
        return [packet]
    if IP in packet:
        packet[IP].flags = 0
        return list(fragment(packet, fragsize=rng.choice((64, 200, 512))))
    if IPv6ExtHdrFragment in packet:
        return list(fragment6(packet, rng.choice((1280, 300))))
    return [packet]


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
