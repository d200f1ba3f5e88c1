"""docs/packet-fates.md on the running kernel: every unusual packet is sent, and ends where the page says.

One replay per mode sends all rows, without any policy entry that could drop them; each row is a separate test. The
expectations are written by hand, so that a common error of model and observer is detected.
"""

from __future__ import annotations

from functools import cache
from ipaddress import ip_interface, ip_network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_RR
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from dossim.drill.results import DrillResult
from dossim.drill.run import drill_capture
from dossim.drill.situation import Situation
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from enforcer.model.choices import ModeChoice
from enforcer.policy.resources import Resources

pytestmark = pytest.mark.needs_root

ME, ME6 = "10.10.10.10", "fd00::10"
PEER, PEER6 = "203.0.113.7", "2001:db8::7"
BEHIND, BEHIND6 = "192.0.2.5", "2001:db8:5::5"
BROADCAST = "ff:ff:ff:ff:ff:ff"

HOST = Host(
    node="jasper",
    addresses=(ip_interface(f"{ME}/24"), ip_interface(f"{ME6}/64")),
    listen=(Listener(6, 80), Listener(17, 9)),
)
ROUTER = Host(
    node="jasper",
    addresses=HOST.addresses,
    forward=True,
    routes=(ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/64")),
)

E = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")


def cut(packet: Packet, to: int) -> bytes:
    return bytes(packet)[:to]


def patched(packet: Packet, offset: int, buf: bytes) -> bytes:
    """The packet with some bytes replaced; offsets count from the start of the frame."""
    frame = bytearray(bytes(packet))
    frame[offset : offset + len(buf)] = buf
    return bytes(frame)


SYN = E / IP(src=PEER, dst=ME) / TCP(sport=1024, dport=80)
DATAGRAM = E / IP(src=PEER, dst=ME) / UDP(sport=1024, dport=9) / Raw(b"x" * 20)
DATAGRAM6 = E / IPv6(src=PEER6, dst=ME6) / UDP(sport=1024, dport=9) / Raw(b"x" * 20)


def ip(**fields: object) -> Packet:
    return E / IP(**{"src": PEER, "dst": ME} | fields) / UDP(sport=1, dport=2) / Raw(b"odd")


def ip6(**fields: object) -> Packet:
    return E / IPv6(**{"src": PEER6, "dst": ME6} | fields) / UDP(sport=1, dport=2) / Raw(b"odd")


def fragment(offset: int, size: int, *, more: bool, ident: int) -> Packet:
    """A fragment of a UDP datagram; offsets and sizes in bytes. The first has the UDP header."""
    head = bytes(UDP(sport=1, dport=2, len=8 + 40, chksum=0)) if offset == 0 else b""
    payload = Raw(head + b"f" * (size - len(head)))
    return E / IP(src=PEER, dst=ME, id=ident, flags="MF" if more else 0, frag=offset // 8, proto=17) / payload


def fragment6(offset: int, size: int, *, more: bool, ident: int) -> Packet:
    head = bytes(UDP(sport=1, dport=2, len=8 + 40, chksum=1)) if offset == 0 else b""
    header = IPv6ExtHdrFragment(id=ident, m=int(more), offset=offset // 8, nh=17)
    return E / IPv6(src=PEER6, dst=ME6) / header / Raw(head + b"f" * (size - len(head)))


def with_option(option: bytes) -> bytes:
    """A UDP datagram whose IPv4 header has these bytes as options, and a correct checksum."""
    header = bytearray(bytes(IP(src=PEER, dst=ME, ihl=6, proto=17, len=24 + 8, chksum=0)) + option)
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(E)[:12] + b"\x08\x00" + bytes(header) + bytes(UDP(sport=1, dport=2, len=8, chksum=0))


# sentence -> (frame, expected column); rows of several frames share a sentence and are numbered.
ROWS: dict[str, list[tuple[Packet | bytes, str]]] = {
    "a SYN to a listening socket": [(SYN, "delivered")],
    "a SYN and a segment the half-open connection has no use for": [
        (E / IP(src=PEER, dst=ME) / TCP(sport=2000, dport=80, seq=1, flags="S"), "delivered"),
        (E / IP(src=PEER, dst=ME) / TCP(sport=2000, dport=80, seq=9, flags="FPU"), "delivered"),
        (E / IP(src=PEER, dst=ME) / TCP(sport=2000, dport=80, seq=1, flags="S"), "delivered"),
        (E / IP(src=PEER, dst=ME) / TCP(sport=2000, dport=80, seq=2, ack=7, flags="A"), "delivered"),
        (E / IP(src=PEER, dst=ME) / TCP(sport=2000, dport=80, seq=2, flags="R"), "delivered"),
    ],
    "a SYN to a port where nothing listens": [(E / IP(src=PEER, dst=ME) / TCP(dport=81), "delivered")],
    "an ACK to a listening socket": [(E / IP(src=PEER, dst=ME) / TCP(dport=80, flags="A"), "delivered")],
    "UDP to a listening socket": [(DATAGRAM, "delivered")],
    "UDP over IPv6 to a listening socket": [(DATAGRAM6, "delivered")],
    "UDP where nothing listens": [(ip(), "delivered")],
    "UDP over IPv6 where nothing listens": [(ip6(), "delivered")],
    "a ping": [(E / IP(src=PEER, dst=ME) / ICMP(), "delivered")],
    "a ping over IPv6": [(E / IPv6(src=PEER6, dst=ME6) / ICMPv6EchoRequest(), "delivered")],
    "an unknown protocol": [(E / IP(src=PEER, dst=ME, proto=253) / Raw(b"x" * 8), "delivered")],
    "an unknown ICMP type": [(E / IP(src=PEER, dst=ME) / ICMP(type=200), "delivered")],
    # layer 2
    "an empty frame": [(bytes(E / Raw(b""))[:12] + b"\x08\x00", "ip-input")],
    "an LLC frame": [(Dot3(dst=BROADCAST, src="02:00:00:00:00:00") / LLC(dsap=0x42, ssap=0x42), "ip-input")],
    "an unknown ethertype": [(E / Raw(b"x" * 40), "ip-input") for E in [Ether(dst=E.dst, src=E.src, type=0x88B5)]],
    "a priority tag": [(E / Dot1Q(vlan=0) / DATAGRAM[IP], "delivered")],
    "a priority service tag": [(E / Dot1AD(vlan=0) / DATAGRAM[IP], "delivered")],
    "a VLAN tag": [(E / Dot1Q(vlan=5) / DATAGRAM[IP], "ip-input")],
    "a service VLAN tag": [(E / Dot1AD(vlan=5) / DATAGRAM[IP], "ip-input")],
    "a VLAN tag on IPv6": [(E / Dot1Q(vlan=5) / DATAGRAM6[IPv6], "ip-input")],
    "two VLAN tags": [(E / Dot1AD(vlan=5) / Dot1Q(vlan=6) / DATAGRAM[IP], "ip-input")],
    "two priority tags": [(E / Dot1Q(vlan=0) / Dot1Q(vlan=0) / DATAGRAM[IP], "delivered")],
    "a VLAN tag on ARP": [(E / Dot1Q(vlan=5) / ARP(op=1, psrc=PEER, pdst=ME), "delivered")],
    "a cut VLAN tag": [(cut(E / Dot1Q(vlan=5) / DATAGRAM[IP], 16), "ip-input")],
    "an ARP request": [(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst=ME), "delivered")],
    "an ARP request for another": [(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst="10.10.10.99"), "delivered")],
    "an ARP reply": [(E / ARP(op=2, psrc=PEER, pdst=ME), "delivered")],
    "a cut ARP request": [(cut(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst=ME), 30), "ip-input")],
    "ARP over IEEE 802": [(patched(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst=ME), 14, b"\0\6"), "delivered")],
    "ARP of another hardware": [
        (patched(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst=ME), 14, b"\0\7"), "ip-input")
    ],
    "ARP of another protocol": [
        (patched(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst=ME), 16, b"\x86\xdd"), "ip-input")
    ],
    "ARP with hardware addresses of 8 bytes": [
        (patched(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst=ME) / Raw(bytes(8)), 18, b"\x08"), "ip-input")
    ],
    "ARP with protocol addresses of 3 bytes": [
        (patched(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst=ME), 19, b"\x03"), "ip-input")
    ],
    "an ARP opcode nobody knows": [(Ether(dst=BROADCAST) / ARP(op=9, psrc=PEER, pdst=ME), "ip-input")],
    "an ARP request for a multicast address": [
        (Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst="224.0.0.1"), "ip-input")
    ],
    "an ARP request for a loopback address": [
        (Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst="127.0.0.1"), "ip-input")
    ],
    "an ARP probe": [(Ether(dst=BROADCAST) / ARP(op=1, psrc="0.0.0.0", pdst=ME), "delivered")],
    "a gratuitous ARP": [(Ether(dst=BROADCAST) / ARP(op=1, psrc=PEER, pdst=PEER), "delivered")],
    # IPv4 header
    "IPv4 cut inside its header": [(cut(DATAGRAM, 14 + 12), "ip-input")],
    "IPv4 with IHL 4": [(patched(DATAGRAM, 14, b"\x44"), "ip-input")],
    "IPv4 with version 5": [(patched(DATAGRAM, 14, b"\x55"), "ip-input")],
    "IPv4 with options cut off": [(cut(patched(DATAGRAM, 14, b"\x4f"), 14 + 40), "ip-input")],
    "IPv4 with a bad checksum": [(E / IP(src=PEER, dst=ME, chksum=1) / UDP(dport=9), "ip-input")],
    "IPv4 longer than the frame": [(cut(DATAGRAM, 14 + 30), "ip-input")],
    "IPv4 with total length 0": [(ip(len=0), "ip-input")],
    "IPv4 with total length 19": [(ip(len=19), "ip-input")],
    "IPv4 followed by padding": [(bytes(DATAGRAM) + b"\0" * 18, "delivered")],
    # IPv6 header
    "IPv6 cut inside its header": [(cut(DATAGRAM6, 14 + 30), "ip-input")],
    "IPv6 with version 7": [(patched(DATAGRAM6, 14, b"\x70"), "ip-input")],
    "IPv6 from ::1": [(ip6(src="::1"), "ip-input")],
    "IPv6 to ::1": [(ip6(dst="::1"), "ip-input")],
    "IPv6 from a multicast address": [(ip6(src="ff02::5"), "ip-input")],
    "IPv6 to multicast of scope 0": [(ip6(dst="ff00::1"), "ip-input")],
    "IPv6 to multicast of scope 1": [(ip6(dst="ff01::1"), "ip-input")],
    "IPv6 longer than the frame": [(cut(DATAGRAM6, 14 + 50), "ip-input")],
    "IPv6 with an empty hop-by-hop header": [
        (E / IPv6(src=PEER6, dst=ME6) / IPv6ExtHdrHopByHop() / UDP(dport=9) / Raw(b"x"), "delivered")
    ],
    "IPv6 with a hop-by-hop header beyond its end": [
        (E / IPv6(src=PEER6, dst=ME6, nh=0) / Raw(b"\x11\xff" + b"\0" * 6), "ip-input")
    ],
    "IPv6 with next header none": [(E / IPv6(src=PEER6, dst=ME6, nh=59), "socket")],
    # fragments
    "all fragments of a datagram": [
        (fragment(0, 24, more=True, ident=1), "delivered"),
        (fragment(24, 24, more=False, ident=1), "delivered"),
    ],
    "all fragments, last first": [
        (fragment(24, 24, more=False, ident=2), "delivered"),
        (fragment(0, 24, more=True, ident=2), "delivered"),
    ],
    "three fragments in disorder": [
        (fragment(16, 16, more=True, ident=3), "delivered"),
        (fragment(32, 16, more=False, ident=3), "delivered"),
        (fragment(0, 16, more=True, ident=3), "delivered"),
    ],
    "a first fragment alone": [(fragment(0, 24, more=True, ident=4), "defrag")],
    "a last fragment alone": [(fragment(24, 24, more=False, ident=5), "defrag")],
    "a fragment sent twice": [
        (fragment(0, 24, more=True, ident=6), "delivered"),
        (fragment(0, 24, more=True, ident=6), "defrag"),
        (fragment(24, 24, more=False, ident=6), "delivered"),
    ],
    "overlapping fragments": [
        (fragment(0, 24, more=True, ident=7), "defrag"),
        (fragment(16, 24, more=True, ident=7), "defrag"),
        (fragment(40, 8, more=False, ident=7), "defrag"),
    ],
    "two different ends": [
        (fragment(24, 24, more=False, ident=8), "defrag"),
        (fragment(48, 8, more=False, ident=8), "defrag"),
    ],
    "data after the end": [
        (fragment(24, 24, more=False, ident=9), "defrag"),
        (fragment(48, 8, more=True, ident=9), "defrag"),
    ],
    "a fragment beyond 65,535 bytes": [
        (E / IP(src=PEER, dst=ME, id=10, frag=8190, proto=17) / Raw(b"f" * 64), "defrag"),
    ],
    "a fragment without data": [(fragment(24, 0, more=False, ident=11), "defrag")],
    "the same id for a second datagram": [
        (fragment(0, 24, more=True, ident=12), "delivered"),
        (fragment(24, 24, more=False, ident=12), "delivered"),
        (fragment(0, 24, more=True, ident=12), "delivered"),
        (fragment(24, 24, more=False, ident=12), "delivered"),
    ],
    "an IPv6 atomic fragment": [
        (E / IPv6(src=PEER6, dst=ME6) / IPv6ExtHdrFragment(id=1, nh=17) / UDP(dport=9) / Raw(b"x"), "delivered")
    ],
    "an IPv6 first fragment alone": [(fragment6(0, 24, more=True, ident=2), "defrag")],
    "overlapping IPv6 fragments": [
        (fragment6(0, 24, more=True, ident=3), "defrag"),
        (fragment6(16, 24, more=True, ident=3), "defrag"),
    ],
    "an IPv6 fragment of a length that is no multiple of 8": [(fragment6(0, 21, more=True, ident=4), "socket")],
    # routing
    "to the all-hosts group": [(Ether(dst="01:00:5e:00:00:01") / ip(dst="224.0.0.1")[IP], "delivered")],
    "to another group": [(Ether(dst="01:00:5e:00:00:fb") / ip(dst="224.0.0.251")[IP], "route")],
    "from a multicast address": [(ip(src="224.0.0.9"), "route")],
    "from the broadcast address": [(ip(src="255.255.255.255"), "route")],
    "from class E": [(ip(src="240.0.0.9"), "delivered")],
    "from 0.0.0.0": [(ip(src="0.0.0.0"), "route")],
    "from 0.0.0.9": [(ip(src="0.0.0.9"), "delivered")],
    "from 127.0.0.1": [(ip(src="127.0.0.1"), "route")],
    "from 127.9.9.9": [(ip(src="127.9.9.9"), "route")],
    "to 127.0.0.1": [(ip(dst="127.0.0.1"), "route")],
    "to 0.0.0.0": [(ip(dst="0.0.0.0"), "route")],
    "from an own address": [(ip(src=ME), "route")],
    "from the own subnet": [(ip(src="10.10.10.77"), "delivered")],
    "from the own subnet's broadcast": [(ip(src="10.10.10.255"), "delivered")],
    "UDP to 255.255.255.255": [(Ether(dst=BROADCAST) / ip(dst="255.255.255.255")[IP], "delivered")],
    "UDP to 255.255.255.255, addressed to us": [(ip(dst="255.255.255.255"), "delivered")],
    "DHCP from 0.0.0.0": [(Ether(dst=BROADCAST) / ip(src="0.0.0.0", dst="255.255.255.255")[IP], "delivered")],
    "UDP to the subnet's broadcast": [(Ether(dst=BROADCAST) / ip(dst="10.10.10.255")[IP], "delivered")],
    "UDP to the subnet's zero address": [(ip(dst="10.10.10.0"), "route")],
    "TCP to the subnet's broadcast": [
        (Ether(dst=BROADCAST) / IP(src=PEER, dst="10.10.10.255") / TCP(dport=80), "socket")
    ],
    "TCP to us in a broadcast frame": [(Ether(dst=BROADCAST) / SYN[IP], "socket")],
    "UDP to us in a broadcast frame": [(Ether(dst=BROADCAST) / DATAGRAM[IP], "delivered")],
    "to another address": [(ip(dst="198.51.100.1"), "route")],
    "to a neighbour": [(ip(dst="10.10.10.99"), "route")],
    "to another address over IPv6": [(ip6(dst="2001:db8::99"), "route")],
    "to the all-nodes group": [(Ether(dst="33:33:00:00:00:01") / ip6(dst="ff02::1")[IPv6], "delivered")],
    "to another IPv6 group": [(Ether(dst="33:33:00:00:00:fb") / ip6(dst="ff02::fb")[IPv6], "route")],
    "a neighbour solicitation": [
        (
            Ether(dst="33:33:ff:00:00:10") / IPv6(src=PEER6, dst="ff02::1:ff00:10", hlim=255) / ICMPv6ND_NS(tgt=ME6),
            "delivered",
        )
    ],
    "from an own IPv6 address": [(ip6(src=ME6), "delivered")],
    "from the unspecified IPv6 address": [(ip6(src="::"), "delivered")],
    "TTL 1 to us": [(ip(ttl=1), "delivered")],
    "TTL 0 to us": [(ip(ttl=0), "delivered")],
    "hop limit 0 to us": [(ip6(hlim=0), "delivered")],
    "with the record-route option": [
        (E / IP(src=PEER, dst=ME, options=[IPOption_RR(routers=["0.0.0.0"])]) / UDP(dport=9), "delivered")
    ],
    "with a source route": [
        (E / IP(src=PEER, dst=ME, options=[IPOption_LSRR(routers=[PEER])]) / UDP(dport=9), "route")
    ],
    "with a malformed option": [(with_option(b"\x07\x01\x00\x00"), "route")],
    "with an unknown option": [(with_option(b"\x9e\x04\x00\x00"), "delivered")],
    "with only padding for options": [(with_option(b"\x01\x01\x01\x00"), "delivered")],
    # transport
    "TCP with a bad checksum": [(E / IP(src=PEER, dst=ME) / TCP(dport=80, chksum=1), "socket")],
    "TCP with a bad checksum where nothing listens": [(E / IP(src=PEER, dst=ME) / TCP(dport=81, chksum=1), "socket")],
    "UDP with a bad checksum": [(E / IP(src=PEER, dst=ME) / UDP(dport=9, chksum=1) / Raw(b"odd"), "socket")],
    "UDP with a bad checksum where nothing listens": [
        (E / IP(src=PEER, dst=ME) / UDP(dport=2, chksum=1) / Raw(b"odd"), "socket")
    ],
    "UDP without a checksum": [(E / IP(src=PEER, dst=ME) / UDP(dport=9, chksum=0) / Raw(b"odd"), "delivered")],
    "UDP over IPv6 without a checksum": [
        (E / IPv6(src=PEER6, dst=ME6) / UDP(dport=9, chksum=0) / Raw(b"odd"), "socket")
    ],
    "UDP over IPv6 without a checksum where nothing listens": [
        (E / IPv6(src=PEER6, dst=ME6) / UDP(dport=2, chksum=0) / Raw(b"odd"), "delivered")
    ],
    "UDP over IPv6 with a bad checksum": [
        (E / IPv6(src=PEER6, dst=ME6) / UDP(dport=9, chksum=1) / Raw(b"odd"), "socket")
    ],
    "ICMP with a bad checksum": [(E / IP(src=PEER, dst=ME) / ICMP(chksum=1), "socket")],
    "ICMPv6 with a bad checksum": [(E / IPv6(src=PEER6, dst=ME6) / ICMPv6EchoRequest(cksum=1), "socket")],
    "TCP cut inside its header": [(E / IP(src=PEER, dst=ME, proto=6) / Raw(b"\x04\x00\x00\x50" + b"\0" * 8), "socket")],
    "TCP without a payload byte": [(E / IP(src=PEER, dst=ME, proto=6), "socket")],
    "TCP with data offset 4": [(E / IP(src=PEER, dst=ME) / TCP(dport=80, dataofs=4), "socket")],
    "TCP with data offset beyond its end": [(E / IP(src=PEER, dst=ME) / TCP(dport=80, dataofs=15), "socket")],
    "UDP cut inside its header": [(E / IP(src=PEER, dst=ME, proto=17) / Raw(b"\x04\x00\x00\x09"), "socket")],
    "UDP longer than its packet": [
        (E / IP(src=PEER, dst=ME) / UDP(dport=9, len=100, chksum=0) / Raw(b"odd"), "socket")
    ],
    "UDP with length 4": [(E / IP(src=PEER, dst=ME) / UDP(dport=9, len=4, chksum=0) / Raw(b"odd"), "socket")],
    "UDP to a group, bad checksum": [
        (Ether(dst=BROADCAST) / IP(src=PEER, dst="10.10.10.255") / UDP(dport=2, chksum=1) / Raw(b"x" * 200), "socket")
    ],
    "UDP to a group that somebody listens to, bad checksum": [
        (Ether(dst=BROADCAST) / IP(src=PEER, dst="10.10.10.255") / UDP(dport=9, chksum=1) / Raw(b"x" * 69), "socket")
    ],
    "ICMP cut inside its header, good checksum": [
        (E / IP(src=PEER, dst=ME, proto=1) / Raw(b"\x08\x00\xf7\xff"), "delivered")
    ],
    "ICMP of zeros only": [(E / IP(src=PEER, dst=ME, proto=1) / Raw(bytes(8)), "delivered")],
    "ICMP of zeros only, shorter than its header": [(E / IP(src=PEER, dst=ME, proto=1) / Raw(bytes(7)), "socket")],
    "PIM": [(E / IP(src=PEER, dst=ME, proto=103) / Raw(b"\x21\0\xde\xff" + bytes(4)), "delivered")],
    "PIM over IPv6": [(E / IPv6(src=PEER6, dst=ME6, nh=103) / Raw(b"\x21\0\xde\xff" + bytes(4)), "delivered")],
    "PIM without a byte": [(E / IP(src=PEER, dst=ME, proto=103), "delivered")],
    "an ICMP error about nothing": [(E / IP(src=PEER, dst=ME) / ICMP(type=3, code=3), "delivered")],
    "ICMP without a byte": [(E / IP(src=PEER, dst=ME, proto=1), "socket")],
    "a broadcast ping": [(Ether(dst=BROADCAST) / IP(src=PEER, dst="10.10.10.255") / ICMP(), "delivered")],
    "IGMP": [(E / IP(src=PEER, dst=ME, proto=2) / Raw(b"\x16\x00\x08\x00\xe1\xff\xff\xff"), "delivered")],
    "IGMP with a bad checksum": [
        (E / IP(src=PEER, dst=ME, proto=2) / Raw(b"\x16\x00\x00\x01\xe1\x00\x00\x01"), "delivered")
    ],
    "IGMP query": [
        (
            Ether(dst="01:00:5e:00:00:01") / IP(src=PEER, dst="224.0.0.1", proto=2) / Raw(b"\x11\x64\xee\x9b\0\0\0\0"),
            "delivered",
        )
    ],
    "SCTP": [(E / IP(src=PEER, dst=ME, proto=132) / Raw(b"x" * 12), "delivered")],
    "GRE": [(E / IP(src=PEER, dst=ME, proto=47) / Raw(b"\0\0\x08\0" + bytes(IP())), "delivered")],
    "IP in IP": [(E / IP(src=PEER, dst=ME, proto=4) / IP(src=PEER, dst=ME) / UDP(), "delivered")],
    "IPv6 in IP": [(E / IP(src=PEER, dst=ME, proto=41) / IPv6(src=PEER6, dst=ME6) / UDP(), "delivered")],
    "ESP": [(E / IP(src=PEER, dst=ME, proto=50) / Raw(b"x" * 16), "delivered")],
    "UDP-Lite": [(E / IP(src=PEER, dst=ME, proto=136) / Raw(bytes(DATAGRAM[UDP])), "socket")],
    "protocol 255": [(E / IP(src=PEER, dst=ME, proto=255) / Raw(b"x" * 8), "delivered")],
    "protocol 0": [(E / IP(src=PEER, dst=ME, proto=0) / Raw(b"x" * 8), "delivered")],
    "IPv6 with an unknown next header": [(E / IPv6(src=PEER6, dst=ME6, nh=253) / Raw(b"x" * 8), "delivered")],
    "IPv6 with a routing header of type 0": [
        (E / IPv6(src=PEER6, dst=ME6, nh=43) / Raw(b"\x11\x02\0\1" + bytes(20)), "socket")
    ],
    "IPv6 with a routing header and no segments left": [
        (E / IPv6(src=PEER6, dst=ME6, nh=43) / Raw(b"\x3b\x02\0\0" + bytes(20)), "socket")
    ],
    "IPv6 with destination options": [
        (E / IPv6(src=PEER6, dst=ME6, nh=60) / Raw(b"\xfd\0\1\4" + bytes(4) + b"x" * 8), "delivered")
    ],
    "IPv6 with malformed destination options": [
        (E / IPv6(src=PEER6, dst=ME6, nh=60) / Raw(b"\xfd\0\xc2\4" + bytes(4) + b"x" * 8), "socket")
    ],
    "IPv6 with TCP cut inside its header": [(E / IPv6(src=PEER6, dst=ME6, nh=6) / Raw(b"x" * 12), "socket")],
    "IPv6 with a TCP bad checksum": [(E / IPv6(src=PEER6, dst=ME6) / TCP(dport=80, chksum=1), "socket")],
    "TCP over IPv6": [(E / IPv6(src=PEER6, dst=ME6) / TCP(dport=80), "delivered")],
    "ICMP cut inside its header": [(E / IP(src=PEER, dst=ME, proto=1) / Raw(b"\x08\x00"), "socket")],
}

FORWARDED: dict[str, list[tuple[Packet | bytes, str]]] = {
    "to a network behind": [(ip(dst=BEHIND), "forwarded")],
    "to a network behind over IPv6": [(ip6(dst=BEHIND6), "forwarded")],
    "back out of the same interface": [(ip(dst="198.51.100.1"), "forwarded")],
    "with TTL 1": [(ip(dst=BEHIND, ttl=1), "route")],
    "with TTL 2": [(ip(dst=BEHIND, ttl=2), "forwarded")],
    "with hop limit 1": [(ip6(dst=BEHIND6, hlim=1), "route")],
    "larger than the MTU": [(ip(dst=BEHIND) / Raw(b"x" * 1600), "forwarded")],
    "larger than the MTU, not to be fragmented": [(ip(dst=BEHIND, flags="DF") / Raw(b"x" * 1600), "route")],
    "larger than the MTU over IPv6": [(ip6(dst=BEHIND6) / Raw(b"x" * 1600), "route")],
    "larger than the MTU over IPv6, back out of the same interface": [(ip6(dst="2600::1") / Raw(b"x" * 1600), "route")],
    "an IPv6 fragment larger than the MTU and alone": [
        (E / IPv6(src=PEER6, dst="2600::1") / IPv6ExtHdrFragment() / UDP(dport=2) / Raw(b"x" * 1600), "route")
    ],
    "with a bad UDP checksum": [(E / IP(src=PEER, dst=BEHIND) / UDP(dport=2, chksum=1) / Raw(b"x"), "forwarded")],
    "in a broadcast frame": [(Ether(dst=BROADCAST) / ip(dst=BEHIND)[IP], "route")],
    "to us": [(ip(), "delivered")],
    "from a martian source": [(ip(src="127.0.0.1", dst=BEHIND), "route")],
    "a fragmented datagram": [
        (E / IP(src=PEER, dst=BEHIND, id=1, flags="MF", proto=17) / Raw(b"f" * 24), "forwarded"),
        (E / IP(src=PEER, dst=BEHIND, id=1, frag=3, proto=17) / Raw(b"f" * 24), "forwarded"),
    ],
    "to the link-local broadcast": [(Ether(dst=BROADCAST) / ip(dst="255.255.255.255")[IP], "delivered")],
    "from an unspecified IPv6 source": [(ip6(src="::", dst=BEHIND6), "route")],
    "from a link-local IPv6 source": [(ip6(src="fe80::9", dst=BEHIND6), "route")],
}

MODES = (ModeChoice.RAW,)


def numbered(rows: dict[str, list[tuple[Packet | bytes, str]]]) -> list[tuple[str, bytes, str]]:
    return [
        (f"{sentence} [{i}]" if len(frames) > 1 else sentence, bytes(frame), expected)
        for sentence, frames in rows.items()
        for i, (frame, expected) in enumerate(frames)
    ]


@cache
def drilled(host: Host) -> DrillResult:
    rows = numbered(ROWS if host is HOST else FORWARDED)
    capture = Capture.from_frames([frame for _, frame, _ in rows])
    return drill_capture(capture, Situation(Resources(), host, ModeChoice.RAW))


def assert_row(host: Host, number: int, expected: str) -> None:
    result = drilled(host)
    observed = result.observations.disposition(number)
    evidence = result.observations.evidence(number)
    assert observed is not None, evidence
    assert observed.column == expected, f"observed {observed.column}: {evidence}"
    assert result.prediction.disposition(number).column == expected, "the prediction differs"


@pytest.mark.parametrize(
    ("number", "expected"),
    [pytest.param(n, expected, id=sentence) for n, (sentence, _, expected) in enumerate(numbered(ROWS))],
)
def test_on_a_host(number: int, expected: str) -> None:
    assert_row(HOST, number, expected)


@pytest.mark.parametrize(
    ("number", "expected"),
    [pytest.param(n, expected, id=sentence) for n, (sentence, _, expected) in enumerate(numbered(FORWARDED))],
)
def test_on_a_router(number: int, expected: str) -> None:
    assert_row(ROUTER, number, expected)
