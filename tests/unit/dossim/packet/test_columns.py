"""Columns: the header fields of each frame, row by row, and checksums over any range of bytes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from dossim.packet.capture import Capture
from dossim.packet.columns import main_destinations, parse_columns

E = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")
FOUR = IP(src="203.0.113.7", dst="10.10.10.10", ttl=9, id=77) / UDP(sport=1, dport=2) / Raw(b"odd")
SIX = IPv6(src="2001:db8::7", dst="fd00::10", hlim=8) / TCP()


def capture(*packets: Packet | bytes) -> Capture:
    return Capture.from_frames([bytes(packet) for packet in packets])


@pytest.mark.parametrize(
    ("packet", "ethertype", "tags", "other_host", "cut"),
    [
        pytest.param(E / FOUR, 0x0800, 0, False, False, id="IPv4"),
        pytest.param(E / SIX, 0x86DD, 0, False, False, id="IPv6"),
        pytest.param(E / ARP(), 0x0806, 0, False, False, id="ARP"),
        pytest.param(E / Dot1Q(vlan=0) / FOUR, 0x0800, 1, False, False, id="a priority tag"),
        pytest.param(E / Dot1AD(vlan=0) / Dot1Q(vlan=0) / FOUR, 0x0800, 2, False, False, id="two priority tags"),
        pytest.param(E / Dot1Q(vlan=5) / FOUR, 0x0800, 1, True, False, id="a VLAN"),
        pytest.param(E / Dot1Q(vlan=0) / Dot1Q(vlan=5) / SIX, 0x86DD, 2, True, False, id="a VLAN after priority"),
        pytest.param(bytes(E / FOUR)[:13], 0, 0, False, True, id="13 bytes"),
        pytest.param(bytes(E / FOUR)[:14], 0x0800, 0, False, False, id="14 bytes"),
        pytest.param(bytes(E / Dot1Q(vlan=0) / FOUR)[:19], 0x8100, 0, False, True, id="a tag with one byte after"),
        pytest.param(bytes(E / Dot1Q(vlan=0) / FOUR)[:20], 0x0800, 1, False, False, id="a tag with two bytes after"),
    ],
)
def test_links(packet: Packet | bytes, ethertype: int, tags: int, other_host: bool, cut: bool) -> None:
    links = parse_columns(capture(packet)).links
    found = (links.ethertype[0], links.tags[0], links.other_host[0], links.cut[0])
    assert found == (ethertype, tags, other_host, cut)
    assert links.end[0] == len(bytes(packet))


def test_the_type_after_the_first_vlan_is_kept() -> None:
    links = parse_columns(capture(E / Dot1Q(vlan=0) / Dot1AD(vlan=5) / Dot1Q(vlan=6) / FOUR)).links
    assert links.other_type[0] == 0x8100


@pytest.mark.parametrize(("destination", "group"), [("06:00:00:00:00:01", False), ("33:33:00:00:00:01", True)])
def test_group_addresses(destination: str, group: bool) -> None:
    assert parse_columns(capture(Ether(dst=destination) / FOUR)).links.group[0] == group


def test_ipv4() -> None:
    fragment = IP(src="1.2.3.4", dst="255.255.255.255", flags="MF+DF", frag=5, ihl=6, options=b"\1\1\1\0")
    four = parse_columns(capture(E / SIX, E / FOUR, E / Dot1Q(vlan=0) / fragment)).ipv4
    assert four.rows.tolist() == [1, 2]
    assert four.version.tolist() == [4, 4]
    assert four.header_length.tolist() == [20, 24]
    assert four.total_length.tolist() == four.available.tolist() == [31, 24]
    assert four.ident.tolist() == [77, 1]
    assert four.fragment.tolist() == [0, 0x6005]
    assert four.ttl.tolist() == [9, 64]
    assert four.protocol.tolist() == [17, 0]
    assert [str(IPv4Address(int(value))) for value in four.source] == ["203.0.113.7", "1.2.3.4"]
    assert [str(IPv4Address(int(value))) for value in four.destination] == ["10.10.10.10", "255.255.255.255"]


def test_ipv6() -> None:
    six = parse_columns(capture(E / FOUR, E / SIX, E / IPv6() / IPv6ExtHdrFragment())).ipv6
    assert six.rows.tolist() == [1, 2]
    assert six.version.tolist() == [6, 6]
    assert six.payload_length.tolist() == [20, 8]
    assert six.available.tolist() == [60, 48]
    assert six.next_header.tolist() == [6, 44]
    assert six.hop_limit.tolist() == [8, 64]
    assert address6(six.source, 0) == ip_address("2001:db8::7")
    assert address6(six.destination, 0) == ip_address("fd00::10")


def address6(halves: tuple[np.ndarray, np.ndarray], row: int) -> IPv6Address:
    return IPv6Address(int(halves[0][row]) << 64 | int(halves[1][row]))


def test_a_header_cut_short_has_the_number_of_available_bytes() -> None:
    columns = parse_columns(capture(bytes(E / FOUR)[:30], bytes(E / SIX)[:14]))
    assert columns.ipv4.available.tolist() == [16]
    assert columns.ipv6.available.tolist() == [0]


@pytest.mark.parametrize("frames", [[], [b""], [b"\xff"]], ids=["no frame", "an empty frame", "one byte"])
def test_captures_with_next_to_nothing(frames: list[bytes]) -> None:
    columns = parse_columns(Capture.from_frames(frames))
    assert len(columns.links.ethertype) == len(frames)
    assert not len(columns.ipv4.rows)
    assert not len(columns.ipv6.rows)


def test_the_main_destinations_are_unicast_and_most_frequent() -> None:
    def to(destination: str) -> Packet:
        return E / (IPv6(dst=destination) if ":" in destination else IP(dst=destination)) / UDP()

    often = ["255.255.255.255", "224.0.0.1", "127.0.0.1", "0.0.0.0", "ff02::1", "::1"] * 9
    packets = map(to, [*often, "10.10.10.10", "10.10.10.10", "192.0.2.1", "fd00::1", "fd00::10", "fd00::10"])
    assert main_destinations(capture(*packets)) == [ip_address("10.10.10.10"), ip_address("fd00::10")]
    assert main_destinations(capture(E / ARP())) == []
