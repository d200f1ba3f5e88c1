"""Generators: the frames match the generator's name, are well-formed, and are the same every time."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from dossim.packet.fields import IPv4 as ParsedIPv4
from dossim.packet.parse import header_checksum_ok, parse, transport_checksum_ok
from dossim.scenario.generate import generate
from dossim.scenario.model import GeneratedTraffic, Generator, LeaveOut, Parameters
from enforcer.policy.resources import PortRange

FOUR, SIX = (ip_network("203.0.113.0/24"),), (ip_network("2001:db8:bad::/48"),)
HOST = {4: ip_address("10.10.10.10"), 6: ip_address("fd00::10")}
EXPRESSION = 'IP(src="203.0.113.9")/TCP(dport=80, flags="FPU")'


def frames(generator: Generator, **parameters: object) -> list[bytes]:
    given = Parameters(**{"count": 20, "sources": FOUR, **parameters})  # type: ignore[arg-type]  # of several types
    return generate(GeneratedTraffic("a", generator, given), HOST)


def packets(generator: Generator, **parameters: object) -> list[Packet]:
    return [Ether(frame) for frame in frames(generator, **parameters)]


NEEDED: dict[Generator, dict[str, object]] = {
    Generator.TCP_FLAGS: {"flags": ("S", "FPU", "")},
    Generator.SCAPY: {"packet": EXPRESSION},
}
WITH_TRANSPORT = [word for word in Generator if word not in (Generator.ARP, Generator.FRAGMENTS)]


@pytest.mark.parametrize("word", Generator, ids=str)
def test_the_same_parameters_give_the_same_frames(word: Generator) -> None:
    assert frames(word, **NEEDED.get(word, {})) == frames(word, **NEEDED.get(word, {}))


@pytest.mark.parametrize("word", [word for word in Generator if word is not Generator.SCAPY], ids=str)
def test_another_seed_gives_others(word: Generator) -> None:
    needed = NEEDED.get(word, {})
    assert frames(word, **needed) != frames(word, **needed, seed=1)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("word", WITH_TRANSPORT, ids=str)
def test_every_checksum_is_right(word: Generator, version: int) -> None:
    if word is Generator.SCAPY and version == 6:
        return
    for frame in frames(word, sources=FOUR if version == 4 else SIX, **NEEDED.get(word, {})):
        read = parse(frame)
        assert read.ip is not None
        assert read.transport is not None
        if isinstance(read.ip, ParsedIPv4):
            assert header_checksum_ok(read.ip)
        if read.transport.protocol != 1:
            assert transport_checksum_ok(read.ip, read.transport.protocol, read.transport.buf)


def test_icmp_checksums_are_right_too() -> None:
    for packet in packets(Generator.ICMP_FLOOD):
        sent = packet[ICMP].chksum
        del packet[ICMP].chksum
        assert Ether(bytes(packet))[ICMP].chksum == sent


@pytest.mark.parametrize("sources", [FOUR, SIX, FOUR + SIX], ids=["IPv4", "IPv6", "in turn"])
def test_sources_and_destination_are_of_one_family(sources: tuple[object, ...]) -> None:
    for number, packet in enumerate(packets(Generator.UDP_FLOOD, sources=sources)):
        net = sources[number % len(sources)]
        layer = packet[IP] if IP in packet else packet[IPv6]
        assert ip_address(layer.src) in net
        assert layer.dst == str(HOST[net.version])  # type: ignore[attr-defined]  # of this subclass


def test_a_destination_may_be_another() -> None:
    assert {packet[IP].dst for packet in packets(Generator.SYN_FLOOD, destination=ip_address("10.20.0.5"))} == {
        "10.20.0.5"
    }


Check = Callable[[Packet], bool]
WHAT_THEY_ARE: list[tuple[Generator, dict[str, object], Check]] = [
    (Generator.SYN_FLOOD, {}, lambda p: p[TCP].flags == "S" and p[TCP].dport == 80),
    (Generator.UDP_FLOOD, {"size": 7}, lambda p: p[UDP].dport == 9 and len(p[UDP].payload) == 7),
    (
        Generator.UDP_REFLECTION,
        {"sport": (PortRange(123, 123),)},
        lambda p: p[UDP].sport == 123 and 32768 <= p[UDP].dport <= 60999,
    ),
    (Generator.ICMP_FLOOD, {}, lambda p: p[ICMP].type == 8),
    (Generator.ICMP_FLOOD, {"sources": SIX}, lambda p: ICMPv6EchoRequest in p),
    (Generator.DNS_QUERIES, {"query": "a.test"}, lambda p: p[UDP].dport == 53 and p[DNS].qd[0].qname == b"a.test."),
    (Generator.ARP, {}, lambda p: p[ARP].op == 1 and p[ARP].pdst == "10.10.10.10" and p.dst == "ff:ff:ff:ff:ff:ff"),
    (Generator.SCAPY, {"packet": EXPRESSION}, lambda p: p[TCP].flags == "FPU"),
    (Generator.SYN_FLOOD, {"vlan": (7, 8)}, lambda p: [p[Dot1Q].vlan, p[Dot1Q][1].vlan] == [7, 8] and TCP in p),
    (Generator.SYN_FLOOD, {"ttl": 3}, lambda p: p[IP].ttl == 3),
    (Generator.SYN_FLOOD, {"dport": (PortRange(5, 6),)}, lambda p: p[TCP].dport in (5, 6)),
]


@pytest.mark.parametrize(("word", "parameters", "holds"), WHAT_THEY_ARE)
def test_the_frames_are_what_the_name_says(word: Generator, parameters: dict[str, object], holds: Check) -> None:
    made = packets(word, **parameters)
    assert len(made) == 20
    assert all(holds(packet) for packet in made)


def test_a_handshake_is_a_syn_and_its_ack() -> None:
    syn, ack = packets(Generator.TCP_HANDSHAKES, count=1)
    assert (str(syn[TCP].flags), str(ack[TCP].flags)) == ("S", "A")
    assert (syn[IP].src, syn[TCP].sport, syn[TCP].dport) == (ack[IP].src, ack[TCP].sport, ack[TCP].dport)
    assert ack[TCP].seq == (syn[TCP].seq + 1) % 2**32


def test_flags_come_in_turn() -> None:
    made = packets(Generator.TCP_FLAGS, count=4, flags=("S", "FPU", ""))
    assert [str(packet[TCP].flags) for packet in made] == ["S", "FPU", "", "S"]


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_of_a_datagram_fit_together(version: int) -> None:
    made = packets(Generator.FRAGMENTS, count=1, size=3000, sources=FOUR if version == 4 else SIX)
    if version == 4:
        parts = [(packet[IP].frag * 8, bytes(packet[IP].payload), "MF" in packet[IP].flags) for packet in made]
    else:
        headers = [packet[IPv6ExtHdrFragment] for packet in made]
        parts = [(header.offset * 8, bytes(header.payload), bool(header.m)) for header in headers]
    assert len(parts) == 3
    assert [more for _, _, more in parts] == [True, True, False]
    assert all(len(packet) <= 1500 + 14 for packet in made)
    whole = b"".join(buf for _, buf, _ in parts)
    assert [offset for offset, _, _ in parts] == [0, len(parts[0][1]), len(parts[0][1]) + len(parts[1][1])]
    assert len(UDP(whole).payload) == 3000


@pytest.mark.parametrize(("word", "first", "last"), [(LeaveOut.FIRST, False, True), (LeaveOut.LAST, True, False)])
def test_a_fragment_may_be_left_out(word: LeaveOut, first: bool, last: bool) -> None:
    made = packets(Generator.FRAGMENTS, count=1, leave_out=word)
    assert any(packet[IP].frag == 0 for packet in made) is first
    assert any("MF" not in packet[IP].flags for packet in made) is last
