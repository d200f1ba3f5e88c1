"""Checksums captured before hardware completed them, distinguished from correct ones."""

from __future__ import annotations

import random
import socket
import struct
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from dossim.packet.capture import Capture
from dossim.packet.offload import HEADER, OFFLOADED, SENT, artefacts_of

FOUR, SIX = IP(src="192.0.2.1", dst="198.51.100.2"), IPv6(src="2001:db8::1", dst="2001:db8:ffff::2")
DATA = Raw(b"payload")


def pseudo_sum(version: int, protocol: int, length: int) -> int:
    """Word by word, as RFC 793 and RFC 8200 define it; not complemented, as CHECKSUM_PARTIAL leaves it."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    network = FOUR if version == 4 else SIX
    buf = b"".join(socket.inet_pton(family, address) for address in (network.src, network.dst))
    buf += struct.pack(">HH", protocol, length) if version == 4 else struct.pack(">IHH", length, 0, protocol)
    total = sum(struct.unpack(f">{len(buf) // 2}H", buf))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def tcp(checksum: int | None) -> Packet:
    return TCP(sport=1024, dport=80, chksum=checksum) / DATA


def udp(checksum: int | None) -> Packet:
    return UDP(sport=1024, dport=53, chksum=checksum) / DATA


PARTIAL_TCP4, PARTIAL_UDP4 = pseudo_sum(4, 6, 27), pseudo_sum(4, 17, 15)
PARTIAL_TCP6, PARTIAL_UDP6 = pseudo_sum(6, 6, 27), pseudo_sum(6, 17, 15)
FRAMES: dict[str, tuple[Packet, bool]] = {
    "TCP, right": (FOUR / tcp(None), False),
    "TCP, broken": (FOUR / tcp(0xBEEF), False),
    "TCP, 0": (FOUR / tcp(0), True),
    "TCP, partial": (FOUR / tcp(PARTIAL_TCP4), True),
    "TCP, the partial sum of another length": (FOUR / tcp(PARTIAL_TCP4 + 1), False),
    "UDP, right": (FOUR / udp(None), False),
    "UDP over IPv4, 0: none was meant": (FOUR / udp(0), False),
    "UDP, partial": (FOUR / udp(PARTIAL_UDP4), True),
    "TCP over IPv6, partial": (SIX / tcp(PARTIAL_TCP6), True),
    "TCP over IPv6, right": (SIX / tcp(None), False),
    "UDP over IPv6, 0": (SIX / udp(0), True),
    "UDP over IPv6, partial": (SIX / udp(PARTIAL_UDP6), True),
    "UDP after extension headers": (SIX / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / udp(PARTIAL_UDP6), True),
    "SCTP, 0": (FOUR / SCTP(sport=1, dport=2, chksum=0), True),
    "SCTP, something": (FOUR / SCTP(sport=1, dport=2, chksum=5), False),
    "in a VLAN": (Dot1Q(vlan=7) / FOUR / tcp(PARTIAL_TCP4), True),
    "a fragment": (IP(src=FOUR.src, dst=FOUR.dst, flags="MF") / tcp(PARTIAL_TCP4), False),
    "a later fragment": (IP(src=FOUR.src, dst=FOUR.dst, frag=3) / tcp(0), False),
    "ICMP": (FOUR / ICMP(chksum=0), False),
    "cut before the checksum": (FOUR / Raw(bytes(14)), False),
}


@pytest.mark.parametrize(("packet", "expected"), FRAMES.values(), ids=FRAMES)
def test_a_checksum_left_to_hardware(packet: Packet, expected: bool) -> None:
    frame = bytes(Ether() / packet)
    if not expected and packet.payload.name == "Raw":
        frame = frame[:23] + b"\x06" + frame[24:]
    assert artefacts_of(Capture.from_frames([bytes(60), frame, bytes(60)])).offloaded.tolist() == [
        False,
        expected,
        False,
    ]


def test_a_cut_packet_with_the_partial_sum_is_one_too() -> None:
    frame = bytes(Ether() / FOUR / TCP(chksum=pseudo_sum(4, 6, 1020)) / Raw(bytes(1000)))
    assert artefacts_of(Capture.from_frames([frame[:54]])).offloaded.tolist() == [True]
    assert artefacts_of(Capture.from_frames([frame[:50]])).offloaded.tolist() == [False]


def test_a_tcp_checksum_of_0_that_is_right() -> None:
    """The data are chosen so that the sum is 0."""
    wanted = struct.unpack(">H", bytes(FOUR / TCP(sport=1024, dport=80) / Raw(b"\0\0"))[36:38])[0]
    frame = bytes(Ether() / FOUR / TCP(sport=1024, dport=80) / Raw(struct.pack(">H", wanted)))
    assert frame[50:52] == b"\0\0"
    assert not artefacts_of(Capture.from_frames([frame])).offloaded.any()


def test_the_checksum_of_the_ipv4_header() -> None:
    frames = [bytes(Ether() / IP(src="192.0.2.1", dst="192.0.2.2", chksum=value) / udp(None)) for value in (None, 0, 5)]
    assert artefacts_of(Capture.from_frames(frames)).header.tolist() == [False, True, False]


def test_sent_by_an_address() -> None:
    capture = Capture.from_frames([bytes(Ether() / network / udp(None)) for network in (FOUR, SIX)])
    assert artefacts_of(capture, [ip_address("192.0.2.1")]).sent.tolist() == [True, False]
    assert artefacts_of(capture, [ip_address("2001:db8::1"), ip_address("192.0.2.2")]).sent.tolist() == [False, True]
    assert artefacts_of(capture, []).sent.tolist() == [False, False]


def test_an_empty_capture() -> None:
    found = artefacts_of(Capture.from_frames([]))
    assert not len(found.offloaded)
    assert not len(found.sent)


def test_a_tag_changes_nothing() -> None:
    """Frames without one are looked at in another way."""
    rng = random.Random(5)
    segments = (TCP(dport=80), UDP(dport=53), TCP(dport=80) / DATA, UDP() / DATA, ICMP(), SCTP())
    sound = [bytes(Ether(src="02:00:00:00:00:01") / FOUR / segment) for segment in segments]
    frames = []
    for _ in range(1500):
        frame = bytearray(rng.choice(sound))
        at, size = rng.choice(((24, 0), (14, 4), (20, 8), (16, 2), (23, 1), (26, 0), (50, 2), (40, 2)))
        frame[at : at + size] = rng.choice((bytes(size), rng.randbytes(size), frame[at : at + size]))
        if rng.random() < 0.3:
            frame[24:26] = b"\0\0"
        if rng.random() < 0.3:
            place = 50 if frame[23] == 6 else 40
            frame[place : place + 2] = pseudo_sum(4, frame[23], len(frame) - 34).to_bytes(2, "big")
        frames.append(bytes(frame[: len(frame) if rng.random() < 0.8 else rng.randrange(14, len(frame))]))
    own = [ip_address("192.0.2.1")]
    plain, tagged = (
        artefacts_of(Capture.from_frames(found), own)
        for found in (frames, [frame[:12] + b"\x81\0\0\0" + frame[12:] for frame in frames])
    )
    assert plain.flags.tolist() == tagged.flags.tolist()
    assert plain.packets == tagged.packets
    assert all(plain.count(flag) > 10 for flag in (OFFLOADED, HEADER, SENT))
