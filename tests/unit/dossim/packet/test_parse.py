"""parse: the fields of each header are read unchanged, up to the end of the frame."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from dossim.packet.fields import Arp, IPv4, Layer, LinkType, Transport, VlanTag
from dossim.packet.fields import IPv6 as IPv6Header
from dossim.packet.parse import (
    header_checksum_ok,
    internet_checksum,
    parse,
    transport_checksum_ok,
    transport_of,
)

E = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")
FOUR = IP(src="203.0.113.7", dst="10.10.10.10")
SIX = IPv6(src="2001:db8::7", dst="fd00::10")


@pytest.mark.parametrize(
    ("frame", "reach"),
    [
        pytest.param(b"", Layer.NOTHING, id="an empty frame"),
        pytest.param(bytes(E)[:13], Layer.NOTHING, id="13 bytes"),
        pytest.param(bytes(E), Layer.LINK, id="an Ethernet header alone"),
        pytest.param(bytes(E / FOUR / TCP())[: 14 + 19], Layer.LINK, id="19 bytes of IPv4"),
        pytest.param(bytes(E / FOUR / TCP())[: 14 + 20], Layer.TRANSPORT, id="20 bytes of IPv4"),
        pytest.param(bytes(E / SIX / UDP())[: 14 + 39], Layer.LINK, id="39 bytes of IPv6"),
        pytest.param(bytes(E / IPv6(nh=60) / Raw(b"\x11")), Layer.NETWORK, id="one byte of an extension header"),
        pytest.param(bytes(E / ARP())[: 14 + 27], Layer.LINK, id="27 bytes of ARP"),
        pytest.param(bytes(E / ARP()), Layer.NETWORK, id="an ARP request"),
        pytest.param(b"\2" * 12 + b"\x88\xb5" + bytes(40), Layer.LINK, id="an unknown ethertype"),
    ],
)
def test_a_packet_knows_how_far_it_could_be_read(frame: bytes, reach: Layer) -> None:
    assert parse(frame).reach is reach


@pytest.mark.parametrize(
    ("frame", "tags", "ethertype"),
    [
        pytest.param(E / FOUR, (), 0x0800, id="no tag"),
        pytest.param(E / Dot1Q(vlan=5, prio=3) / FOUR, (VlanTag(0x8100, 0x6005),), 0x0800, id="an 802.1Q tag"),
        pytest.param(
            E / Dot1AD(vlan=5) / Dot1Q(vlan=6) / FOUR, (VlanTag(0x88A8, 5), VlanTag(0x8100, 6)), 0x0800, id="two tags"
        ),
        pytest.param(bytes(E / Dot1Q(vlan=5) / FOUR)[:17], (), 0x8100, id="a tag cut short stays an ethertype"),
        pytest.param(Ether(type=0x9100) / Raw(b"\0\5\x08\0"), (), 0x9100, id="0x9100 is no tag to the kernel"),
    ],
)
def test_vlan_tags(frame: Packet | bytes, tags: tuple[VlanTag, ...], ethertype: int) -> None:
    link = parse(bytes(frame)).link
    assert link is not None
    assert (link.tags, link.ethertype) == (tags, ethertype)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("06:00:00:00:00:01", LinkType.HOST),
        ("ff:ff:ff:ff:ff:ff", LinkType.BROADCAST),
        ("01:00:5e:00:00:01", LinkType.MULTICAST),
        ("33:33:00:00:00:01", LinkType.MULTICAST),
    ],
)
def test_whom_a_frame_is_for(address: str, kind: LinkType) -> None:
    link = parse(bytes(Ether(dst=address) / FOUR)).link
    assert link is not None
    assert link.link_type is kind


def test_ipv4_fields() -> None:
    packet = E / IP(src="203.0.113.7", dst="10.10.10.10", id=7, flags="DF", ttl=9, tos=3) / UDP() / Raw(b"x")
    ip = parse(bytes(packet) + b"padding").network
    assert isinstance(ip, IPv4)
    assert (ip.version, ip.header_length, ip.total_length) == (4, 20, 29)
    assert (ip.ident, ip.dont_fragment, ip.more_fragments, ip.offset) == (7, True, False, 0)
    assert (ip.ttl, ip.tos, ip.protocol) == (9, 3, 17)
    assert (ip.source, ip.destination) == (ip_address("203.0.113.7"), ip_address("10.10.10.10"))
    assert len(ip.payload) == 9, "padding is not the packet's"
    assert not ip.is_fragment


@pytest.mark.parametrize(
    ("flags", "offset", "fragment"), [("", 0, False), ("DF", 0, False), ("MF", 0, True), ("", 1, True), ("MF", 5, True)]
)
def test_ipv4_fragments(flags: str, offset: int, fragment: bool) -> None:
    ip = parse(bytes(E / IP(flags=flags, frag=offset) / Raw(b"x" * 8))).network
    assert isinstance(ip, IPv4)
    assert (ip.is_fragment, ip.offset) == (fragment, offset * 8)


def test_ipv6_fields() -> None:
    ip = parse(bytes(E / IPv6(src="2001:db8::7", dst="fd00::10", tc=0xAB, fl=0xCDEF1, hlim=3) / UDP())).network
    assert isinstance(ip, IPv6Header)
    assert (ip.version, ip.traffic_class, ip.payload_length, ip.next_header, ip.hop_limit) == (6, 0xAB, 8, 17, 3)
    assert (ip.source, ip.destination) == (ip_address("2001:db8::7"), ip_address("fd00::10"))


def test_arp_fields() -> None:
    arp = parse(bytes(E / ARP(op=2, pdst="10.10.10.10"))).network
    assert arp == Arp(1, 0x0800, 6, 4, 2, ip_address("10.10.10.10"))


@pytest.mark.parametrize(
    ("layers", "protocol", "ports"),
    [
        pytest.param(FOUR / TCP(sport=1024, dport=80), 6, (1024, 80), id="TCP"),
        pytest.param(FOUR / UDP(sport=53, dport=9), 17, (53, 9), id="UDP"),
        pytest.param(FOUR / SCTP(sport=5, dport=6), 132, (5, 6), id="SCTP"),
        pytest.param(FOUR / ICMP(), 1, None, id="ICMP has none"),
        pytest.param(IP(proto=6) / Raw(b"\4\0\0"), 6, None, id="three bytes of TCP"),
        pytest.param(IP(proto=6) / Raw(b"\4\0\0\x50"), 6, (1024, 80), id="four bytes of TCP"),
        pytest.param(IP(proto=6, frag=1) / Raw(b"\4\0\0\x50"), 6, None, id="a later fragment"),
        pytest.param(IP(proto=6, flags="MF") / Raw(b"\4\0\0\x50"), 6, (1024, 80), id="a first fragment"),
        pytest.param(SIX / UDP(sport=53, dport=9), 17, (53, 9), id="UDP over IPv6"),
        pytest.param(SIX / ICMPv6EchoRequest(), 58, None, id="ICMPv6"),
        pytest.param(SIX / IPv6ExtHdrHopByHop() / UDP(dport=9), 17, (53, 9), id="after hop-by-hop options"),
        pytest.param(SIX / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / UDP(dport=9), 17, (53, 9), id="after two"),
        pytest.param(
            IPv6(nh=51) / Raw(b"\x11\4" + bytes(22)) / UDP(dport=9), 17, (53, 9), id="after authentication, in fours"
        ),
        pytest.param(SIX / IPv6ExtHdrFragment(m=1) / UDP(dport=9), 17, (53, 9), id="after a first fragment's header"),
        pytest.param(SIX / IPv6ExtHdrFragment(offset=1, nh=17) / Raw(b"x" * 8), 17, None, id="a later IPv6 fragment"),
        pytest.param(IPv6(nh=59) / Raw(b"x" * 8), 59, None, id="no next header"),
    ],
)
def test_transport_and_ports(layers: Packet, protocol: int, ports: tuple[int, int] | None) -> None:
    transport = parse(bytes(E / layers)).transport
    assert transport is not None
    assert (transport.protocol, transport.ports) == (protocol, ports)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(IPv6(nh=60) / Raw(b"\x11"), id="one byte of destination options"),
        pytest.param(IPv6(nh=43) / Raw(b"\x11\0\0"), id="three bytes of a routing header"),
        pytest.param(IPv6(nh=44) / Raw(b"\x11\0\0"), id="three bytes of a fragment header"),
        pytest.param(IPv6(nh=60) / Raw(b"\x3c\xff" + bytes(6)), id="a header that ends beyond the packet"),
        pytest.param(IPv6(nh=44) / Raw(b"\x3c\0\0\x08" + bytes(12)), id="headers in a later fragment"),
    ],
)
def test_extension_headers_that_break_off_name_no_protocol(payload: Packet) -> None:
    assert parse(bytes(E / payload)).transport is None


def test_a_transport_may_begin_beyond_the_packet() -> None:
    """ipv6_find_hdr reads the extension headers only, not the transport header."""
    ip = parse(bytes(E / IPv6(nh=60) / Raw(b"\x11\1" + bytes(6)))).ip
    assert ip is not None
    assert transport_of(ip) == Transport(17, 56, b"")


@pytest.mark.parametrize(
    ("parts", "checksum"),
    [
        ((b"",), 0xFFFF),
        ((b"\0\0",), 0xFFFF),
        ((b"\xff\xff",), 0),
        ((b"\x12\x34",), 0xEDCB),
        ((b"\x12",), 0xEDFF),
        ((b"\xff\xff", b"\0\1"), 0xFFFE),
        ((b"\x80\0", b"\x80\0"), 0xFFFE),
    ],
)
def test_internet_checksum(parts: tuple[bytes, ...], checksum: int) -> None:
    assert internet_checksum(*parts) == checksum


@pytest.mark.parametrize("layers", [FOUR / TCP(), FOUR / UDP() / Raw(b"odd"), SIX / TCP(), SIX / ICMPv6EchoRequest()])
def test_checksums_of_scapy_are_right_and_a_flipped_bit_is_not(layers: Packet) -> None:
    frame = bytes(E / layers)
    for buf, good in ((frame, True), (frame[:-1] + bytes([frame[-1] ^ 1]), False)):
        packet = parse(buf)
        assert packet.ip is not None
        assert packet.transport is not None
        protocol = packet.transport.protocol
        assert transport_checksum_ok(packet.ip, protocol, packet.transport.buf) is good


@pytest.mark.parametrize(("checksum", "good"), [(None, True), (1, False)])
def test_header_checksum(checksum: int | None, good: bool) -> None:
    ip = parse(bytes(E / IP(dst="10.10.10.10", chksum=checksum) / UDP())).network
    assert isinstance(ip, IPv4)
    assert header_checksum_ok(ip) is good
