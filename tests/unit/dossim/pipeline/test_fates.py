"""docs/packet-fates.md, row by row: the fate that ``explain`` gives unusual packets, each next to a similar usual one.

There is no policy; ``tests/kernel/test_fates.py`` sends the same rows through the kernel.
"""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from dossim.model.host import Host, Listener
from dossim.pipeline.explain import Explainer
from enforcer.policy.resources import Resources
from tests.support.frames import ethernet, ipv4

ME, ME6, PEER, PEER6 = "10.10.10.10", "fd00::10", "203.0.113.7", "2001:db8::7"
BEHIND, BEHIND6 = "192.0.2.5", "2001:db8:5::5"
E = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")
TO_ALL = Ether(dst="ff:ff:ff:ff:ff:ff", src=E.src)
TO_GROUP = Ether(dst="01:00:5e:00:00:01", src=E.src)

HOST = Host(
    "jasper",
    addresses=(ip_interface(f"{ME}/24"), ip_interface(f"{ME6}/64")),
    listen=(Listener(6, 80), Listener(17, 9)),
)
ROUTER = Host(
    "jasper",
    addresses=HOST.addresses,
    forward=True,
    routes=(ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/64")),
)


def end(frame: Packet | bytes, host: Host = HOST) -> str:
    return Explainer(Resources(), host, mode=None).explain(bytes(frame)).disposition.column


def four(**fields: object) -> Packet:
    return IP(**{"src": PEER, "dst": ME} | fields)


def six(**fields: object) -> Packet:
    return IPv6(**{"src": PEER6, "dst": ME6} | fields)


def patched(packet: Packet, offset: int, buf: bytes) -> bytes:
    frame = bytes(packet)
    return frame[:offset] + buf + frame[offset + len(buf) :]


DATAGRAM = UDP(sport=1024, dport=9) / Raw(b"x" * 20)
SYN = TCP(sport=1024, dport=80)

LINK = [
    ("13 bytes", bytes(E)[:13], "not-sendable"),
    ("an Ethernet header alone", bytes(E)[:12] + b"\x08\0", "ip-input"),
    ("an 802.3 frame", Dot3(dst=E.dst, src=E.src) / LLC(), "ip-input"),
    ("an unknown ethertype", bytes(E)[:12] + b"\x88\xb5" + bytes(40), "ip-input"),
    ("no tag", E / four() / DATAGRAM, "delivered"),
    ("a priority tag", E / Dot1Q(vlan=0) / four() / DATAGRAM, "delivered"),
    ("a priority service tag", E / Dot1AD(vlan=0) / four() / DATAGRAM, "delivered"),
    ("three priority tags", E / Dot1Q(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / four() / DATAGRAM, "delivered"),
    ("a VLAN id", E / Dot1Q(vlan=5) / four() / DATAGRAM, "ip-input"),
    ("a VLAN id after a priority tag", E / Dot1Q(vlan=0) / Dot1Q(vlan=5) / four() / DATAGRAM, "ip-input"),
    ("a VLAN id on IPv6", E / Dot1AD(vlan=5) / six() / DATAGRAM, "ip-input"),
    ("a tag cut short", bytes(E / Dot1Q(vlan=0) / four())[:17], "ip-input"),
    ("an ARP request", TO_ALL / ARP(pdst=ME), "delivered"),
    ("an ARP request for another", TO_ALL / ARP(pdst="10.10.10.99"), "delivered"),
    ("an ARP reply", E / ARP(op=2, pdst=ME), "delivered"),
    ("ARP after a VLAN id", E / Dot1Q(vlan=5) / ARP(pdst=ME), "delivered"),
    ("ARP of IEEE 802", patched(TO_ALL / ARP(pdst=ME), 14, b"\0\6"), "delivered"),
    ("ARP of other hardware", patched(TO_ALL / ARP(pdst=ME), 14, b"\0\7"), "ip-input"),
    ("ARP of another protocol", TO_ALL / ARP(ptype=0x86DD, pdst=ME), "ip-input"),
    ("ARP with other lengths", TO_ALL / ARP(hwlen=8, pdst=ME), "ip-input"),
    ("an unknown ARP operation", TO_ALL / ARP(op=9, pdst=ME), "ip-input"),
    ("ARP for a multicast address", TO_ALL / ARP(pdst="224.0.0.1"), "ip-input"),
    ("ARP for a loopback address", TO_ALL / ARP(pdst="127.0.0.1"), "ip-input"),
    ("28 bytes of ARP", bytes(TO_ALL / ARP(pdst=ME))[:42], "delivered"),
    ("27 bytes of ARP", bytes(TO_ALL / ARP(pdst=ME))[:41], "ip-input"),
]

HEADER4 = [
    ("19 bytes", bytes(E / four() / DATAGRAM)[: 14 + 19], "ip-input"),
    ("IHL 4", E / four(ihl=4) / DATAGRAM, "ip-input"),
    ("version 5", E / four(version=5) / DATAGRAM, "ip-input"),
    ("frame ends inside the options", bytes(E / four(ihl=15) / DATAGRAM)[: 14 + 40], "ip-input"),
    ("a bad checksum", E / four(chksum=1) / DATAGRAM, "ip-input"),
    ("total length one beyond the frame", E / four(len=49) / DATAGRAM, "ip-input"),
    ("total length of the frame", E / four(len=48) / DATAGRAM, "delivered"),
    ("padding after the packet", bytes(E / four() / DATAGRAM) + bytes(18), "delivered"),
    ("total length 19", E / four(len=19) / DATAGRAM, "ip-input"),
    ("total length 0", E / four(len=0) / DATAGRAM, "ip-input"),
    ("total length 20, protocol unknown", E / four(len=20, proto=253), "delivered"),
]

HBH = IPv6ExtHdrHopByHop()
HEADER6 = [
    ("39 bytes", bytes(E / six() / DATAGRAM)[: 14 + 39], "ip-input"),
    ("version 7", E / six(version=7) / DATAGRAM, "ip-input"),
    ("from ::1", E / six(src="::1") / DATAGRAM, "ip-input"),
    ("to ::1", E / six(dst="::1") / DATAGRAM, "ip-input"),
    ("from ::2", E / six(src="::2") / DATAGRAM, "delivered"),
    ("from a group", E / six(src="ff02::5") / DATAGRAM, "ip-input"),
    ("to a group of scope 0", E / six(dst="ff00::1") / DATAGRAM, "ip-input"),
    ("to a group of scope 1", E / six(dst="ff01::1") / DATAGRAM, "ip-input"),
    ("to all nodes, scope 2", E / six(dst="ff02::1") / DATAGRAM, "delivered"),
    ("payload one beyond the frame", E / six(plen=29) / DATAGRAM, "ip-input"),
    ("payload length 0 and UDP", E / six(plen=0, nh=17) / DATAGRAM, "socket"),
    ("empty hop-by-hop options", E / six() / HBH / DATAGRAM, "delivered"),
    ("hop-by-hop options beyond the end", E / six(nh=0) / Raw(b"\x11\xff" + bytes(30)), "ip-input"),
    ("padding that is not zero", E / six(nh=0) / Raw(b"\x3b\0\1\4\0\0\0\1"), "ip-input"),
    ("an unknown option to skip", E / six(nh=0) / Raw(b"\xfd\0\x1e\4" + bytes(4)), "delivered"),
    ("an unknown option to discard", E / six(nh=0) / Raw(b"\xfd\0\x5e\4" + bytes(4)), "ip-input"),
    ("eight options", E / six(nh=0) / Raw(b"\xfd\2" + b"\x1e\0" * 8 + b"\1\4" + bytes(4)), "delivered"),
    ("nine options", E / six(nh=0) / Raw(b"\xfd\2" + b"\x1e\0" * 9 + b"\1\2" + bytes(2)), "ip-input"),
    ("a router alert", E / six(nh=0) / Raw(b"\xfd\0\5\2\0\0\1\0"), "delivered"),
    ("a malformed router alert", E / six(nh=0) / Raw(b"\xfd\0\5\3\0\0\0\0"), "ip-input"),
    ("a jumbo option on a small packet", E / six(nh=0) / Raw(b"\xfd\0\xc2\4\0\1\0\0"), "ip-input"),
    ("a security label", E / six(nh=0) / Raw(b"\xfd\1\7\x0a" + bytes(12)), "ip-input"),
]

ROUTE4 = [
    ("to the all-hosts group", TO_GROUP / four(dst="224.0.0.1") / DATAGRAM, "delivered"),
    ("to the all-hosts group from a group", TO_GROUP / four(src="224.0.0.9", dst="224.0.0.1") / DATAGRAM, "route"),
    ("to the all-hosts group from an own address", TO_GROUP / four(src=ME, dst="224.0.0.1") / DATAGRAM, "route"),
    ("to another group", TO_GROUP / four(dst="224.0.0.251") / DATAGRAM, "route"),
    ("from a group", E / four(src="224.0.0.9") / DATAGRAM, "route"),
    ("from the limited broadcast", E / four(src="255.255.255.255") / DATAGRAM, "route"),
    ("from class E", E / four(src="240.0.0.1") / DATAGRAM, "delivered"),
    ("to the limited broadcast", TO_ALL / four(dst="255.255.255.255") / DATAGRAM, "delivered"),
    (
        "from 0.0.0.0 to the limited broadcast",
        TO_ALL / four(src="0.0.0.0", dst="255.255.255.255") / DATAGRAM,
        "delivered",
    ),
    (
        "from 127.0.0.1 to the limited broadcast",
        TO_ALL / four(src="127.0.0.1", dst="255.255.255.255") / DATAGRAM,
        "route",
    ),
    ("from 0.0.0.0 to 0.0.0.0", E / four(src="0.0.0.0", dst="0.0.0.0") / DATAGRAM, "delivered"),
    ("from 0.0.0.0 to us", E / four(src="0.0.0.0") / DATAGRAM, "route"),
    ("from 0.0.0.9 to us", E / four(src="0.0.0.9") / DATAGRAM, "delivered"),
    ("to 0.0.0.0", E / four(dst="0.0.0.0") / DATAGRAM, "route"),
    ("to 127.0.0.1", E / four(dst="127.0.0.1") / DATAGRAM, "route"),
    ("from 127.9.9.9", E / four(src="127.9.9.9") / DATAGRAM, "route"),
    ("to the subnet's broadcast", TO_ALL / four(dst="10.10.10.255") / DATAGRAM, "delivered"),
    ("to the subnet's zero address", E / four(dst="10.10.10.0") / DATAGRAM, "route"),
    ("from an own address", E / four(src=ME) / DATAGRAM, "route"),
    ("from a neighbour", E / four(src="10.10.10.77") / DATAGRAM, "delivered"),
    ("from the subnet's broadcast", E / four(src="10.10.10.255") / DATAGRAM, "delivered"),
    ("to another address", E / four(dst="198.51.100.1") / DATAGRAM, "route"),
    ("with TTL 0 to us", E / four(ttl=0) / DATAGRAM, "delivered"),
]

ROUTE6 = [
    ("to an own address", E / six() / DATAGRAM, "delivered"),
    ("to all nodes", E / six(dst="ff02::1") / DATAGRAM, "delivered"),
    ("to all routers, which we are not", E / six(dst="ff02::2") / DATAGRAM, "route"),
    ("to our solicited-node group", E / six(dst="ff02::1:ff00:10") / DATAGRAM, "delivered"),
    ("to another solicited-node group", E / six(dst="ff02::1:ff00:11") / DATAGRAM, "route"),
    ("to another address", E / six(dst="fd00::11") / DATAGRAM, "route"),
    ("from an own address", E / six(src=ME6) / DATAGRAM, "delivered"),
    ("with hop limit 0 to us", E / six(hlim=0) / DATAGRAM, "delivered"),
]


def options(buf: bytes) -> bytes:
    segment = bytes(four() / DATAGRAM)[20:]
    return ethernet(ipv4(segment, source=PEER, destination=ME, protocol=17, options=buf), 0x0800)


OPTIONS = {
    "no operation": (b"\1\1\1\1", "delivered"),
    "end, then anything": (b"\0\x99\xff\xff", "delivered"),
    "record route": (b"\7\7\4" + bytes(5), "delivered"),
    "record route that is full": (b"\7\7\x08" + bytes(5), "delivered"),
    "record route without room": (b"\7\7\5" + bytes(5), "route"),
    "record route twice": (b"\7\7\4" + bytes(4) + b"\7\7\4" + bytes(6), "route"),
    "a loose source route": (b"\x83\7\4" + bytes(5), "route"),
    "a strict source route": (b"\x89\7\4" + bytes(5), "route"),
    "a timestamp": (b"\x44\x08\5\0" + bytes(4), "delivered"),
    "a timestamp whose pointer is too low": (b"\x44\x08\4\0" + bytes(4), "route"),
    "a timestamp with an address, too short for it": (b"\x44\x08\5\1" + bytes(4), "route"),
    "a full timestamp": (b"\x44\x08\x09\xe0" + bytes(4), "delivered"),
    "a full timestamp whose overflow is full": (b"\x44\x08\x09\xf0" + bytes(4), "route"),
    "a router alert": (b"\x94\4\0\0", "delivered"),
    "a router alert of length 3": (b"\x94\3\0\0", "route"),
    "an unknown option": (b"\x99\4\0\0", "delivered"),
    "an option of length 1": (b"\x99\1\0\0", "route"),
    "an option beyond the header": (b"\x99\5\0\0", "route"),
    "a kind without a length": (b"\1\1\1\x99", "route"),
    "a security label": (b"\x86\6\0\0\0\1\0\0", "route"),
}

SOCKET = [
    ("a SYN", E / four() / SYN, "delivered"),
    ("a SYN where no socket listens", E / four() / TCP(dport=81), "delivered"),
    ("a bad TCP checksum", E / four() / TCP(dport=80, chksum=1), "socket"),
    ("19 bytes of TCP", E / four(proto=6) / Raw(bytes(SYN)[:19]), "socket"),
    ("TCP data offset 4", E / four() / TCP(dport=80, dataofs=4), "socket"),
    ("TCP data offset beyond the segment", E / four() / TCP(dport=80, dataofs=6), "socket"),
    ("TCP in a broadcast frame", TO_ALL / four() / SYN, "socket"),
    ("UDP in a broadcast frame", TO_ALL / four() / DATAGRAM, "delivered"),
    ("TCP to the subnet's broadcast in a frame to us", E / four(dst="10.10.10.255") / SYN, "delivered"),
    ("UDP where no socket listens", E / four() / UDP(dport=2), "delivered"),
    ("a bad UDP checksum", E / four() / UDP(dport=9, chksum=1), "socket"),
    ("UDP without checksum", E / four() / UDP(dport=9, chksum=0), "delivered"),
    ("UDP over IPv6 without checksum", E / six() / UDP(dport=9, chksum=0), "socket"),
    ("UDP over IPv6 without checksum where no socket listens", E / six() / UDP(dport=2, chksum=0), "delivered"),
    ("a bad UDP checksum over IPv6", E / six() / UDP(dport=2, chksum=1), "socket"),
    ("7 bytes of UDP", E / four(proto=17) / Raw(bytes(7)), "socket"),
    ("UDP length 7", E / four() / UDP(dport=9, len=7, chksum=0), "socket"),
    ("UDP length beyond the packet", E / four() / UDP(dport=9, len=9, chksum=0), "socket"),
    ("UDP length shorter than the packet", E / four() / UDP(dport=9, len=8, chksum=0) / Raw(b"x"), "delivered"),
    ("a UDP-Lite datagram without checksum", E / four(proto=136) / Raw(b"\0\1\0\2\0\0\0\0"), "socket"),
    ("a ping", E / four() / ICMP(), "delivered"),
    ("a bad ICMP checksum", E / four() / ICMP(chksum=1), "socket"),
    ("ICMP without an byte", E / four(proto=1), "socket"),
    ("ICMP cut short with a good checksum", E / four(proto=1) / Raw(b"\x08\0\xf7\xff"), "delivered"),
    ("a ping over IPv6", E / six() / ICMPv6EchoRequest(), "delivered"),
    ("a bad ICMPv6 checksum", E / six() / ICMPv6EchoRequest(cksum=1), "socket"),
    ("an unknown protocol", E / four(proto=253) / Raw(b"x"), "delivered"),
    ("no next header", E / six(nh=59), "socket"),
    ("an authentication header", E / six(nh=51) / Raw(b"\x11\4" + bytes(22)), "delivered"),
    (
        "hop-by-hop options in second place",
        E / six(nh=60) / Raw(b"\0\0\1\4" + bytes(4) + b"\x11\0" + bytes(6)),
        "delivered",
    ),
    ("a spent routing header", E / six(nh=43) / Raw(b"\xfd\0\0\0" + bytes(4)), "delivered"),
    ("a routing header with a segment left", E / six(nh=43) / Raw(b"\xfd\0\0\1" + bytes(4)), "socket"),
    ("a segment routing header", E / six(nh=43) / Raw(b"\xfd\0\4\0" + bytes(4)), "socket"),
    ("destination options beyond the end", E / six(nh=60) / Raw(b"\xfd\1" + bytes(6)), "socket"),
    ("an atomic fragment", E / six() / IPv6ExtHdrFragment(nh=17) / DATAGRAM, "delivered"),
    (
        "a first fragment without its UDP header",
        E / six() / IPv6ExtHdrFragment(nh=17, m=1) / Raw(b"\0\1\0\2"),
        "socket",
    ),
    ("a first IPv6 fragment of 21 bytes", E / six() / IPv6ExtHdrFragment(nh=17, m=1) / Raw(bytes(21)), "socket"),
    (
        "two fragment headers",
        E / six() / IPv6ExtHdrFragment(nh=44) / Raw(b"\x11" + bytes(7) + bytes(DATAGRAM)),
        "socket",
    ),
]

ON_A_ROUTER = [
    ("to a network behind", E / four(dst=BEHIND) / DATAGRAM, "forwarded"),
    ("back out of the same interface", E / four(dst="198.51.100.1") / DATAGRAM, "forwarded"),
    ("with TTL 1", E / four(dst=BEHIND, ttl=1) / DATAGRAM, "route"),
    ("with TTL 2", E / four(dst=BEHIND, ttl=2) / DATAGRAM, "forwarded"),
    ("of the MTU, not to be fragmented", E / four(dst=BEHIND, flags="DF") / UDP() / Raw(bytes(1472)), "forwarded"),
    ("one byte larger", E / four(dst=BEHIND, flags="DF") / UDP() / Raw(bytes(1473)), "route"),
    ("one byte larger, to be fragmented", E / four(dst=BEHIND) / UDP() / Raw(bytes(1473)), "forwarded"),
    ("in a broadcast frame", TO_ALL / four(dst=BEHIND) / DATAGRAM, "route"),
    ("from an own address", E / four(src=ME, dst=BEHIND) / DATAGRAM, "route"),
    ("with a bad UDP checksum", E / four(dst=BEHIND) / UDP(chksum=1), "forwarded"),
    ("to a network behind over IPv6", E / six(dst=BEHIND6) / DATAGRAM, "forwarded"),
    ("with hop limit 1", E / six(dst=BEHIND6, hlim=1) / DATAGRAM, "route"),
    ("IPv6 larger than the MTU", E / six(dst=BEHIND6) / UDP() / Raw(bytes(1453)), "route"),
    ("IPv6 of the MTU", E / six(dst=BEHIND6) / UDP() / Raw(bytes(1452)), "forwarded"),
    ("from a link-local address to another link", E / six(src="fe80::9", dst=BEHIND6) / DATAGRAM, "route"),
    ("from a link-local address back to its link", E / six(src="fe80::9", dst="2600::1") / DATAGRAM, "forwarded"),
    ("from no address to another link", E / six(src="::", dst=BEHIND6) / DATAGRAM, "route"),
    ("to all routers", E / six(dst="ff02::2") / DATAGRAM, "delivered"),
    ("to the subnet-router anycast address", E / six(dst="fd00::") / DATAGRAM, "delivered"),
    ("to us", E / four() / DATAGRAM, "delivered"),
]

TABLES = {
    "link": LINK, "ipv4": HEADER4, "ipv6": HEADER6, "route4": ROUTE4, "route6": ROUTE6, "socket": SOCKET,
    "options": [(name, options(buf), expected) for name, (buf, expected) in OPTIONS.items()],
}  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "expected"),
    [pytest.param(bytes(row[1]), row[2], id=f"{table}: {row[0]}") for table, rows in TABLES.items() for row in rows],
)
def test_on_a_host(frame: bytes, expected: str) -> None:
    assert end(frame) == expected


@pytest.mark.parametrize(("frame", "expected"), [pytest.param(bytes(row[1]), row[2], id=row[0]) for row in ON_A_ROUTER])
def test_on_a_router(frame: bytes, expected: str) -> None:
    assert end(frame, ROUTER) == expected


@pytest.mark.parametrize(
    ("rp_filter", "source", "expected"),
    [
        (0, BEHIND, "delivered"),
        (1, BEHIND, "route"),
        (2, BEHIND, "delivered"),
        (1, PEER, "delivered"),
        (1, "10.10.10.255", "route"),
        (0, "10.10.10.255", "delivered"),
    ],
)
def test_reverse_path_filter(rp_filter: int, source: str, expected: str) -> None:
    host = Host("jasper", addresses=HOST.addresses, routes=ROUTER.routes, rp_filter=rp_filter)
    assert end(E / four(src=source) / DATAGRAM, host) == expected


@pytest.mark.parametrize(("prefix", "expected"), [(24, "delivered"), (30, "delivered"), (31, "route"), (32, "route")])
def test_prefixes_of_31_and_32_have_no_broadcast_address(prefix: int, expected: str) -> None:
    address = ip_interface(f"{ME}/{prefix}")
    broadcast = str(address.network.broadcast_address) if prefix < 31 else "10.10.10.11"
    assert end(TO_ALL / four(dst=broadcast) / DATAGRAM, Host("jasper", addresses=(address,))) == expected


@pytest.mark.parametrize(("step", "expected"), [(1480, "forwarded"), (1488, "route")])
def test_the_parts_of_a_datagram_need_to_fit_not_the_datagram(step: int, expected: str) -> None:
    data = bytes(UDP(sport=1, dport=2, chksum=0) / Raw(bytes(2992)))
    frames = [
        bytes(E / four(dst=BEHIND, id=1, proto=17, frag=at // 8, flags="DF" if at + step >= len(data) else "DF+MF")
              / Raw(data[at : at + step]))
        for at in range(0, len(data), step)
    ]  # fmt: skip
    traces = Explainer(Resources(), ROUTER, mode=None).explain_capture(frames)
    assert {trace.disposition.column for trace in traces} == {expected}


@pytest.mark.parametrize(
    ("first", "last", "expected"), [(E, TO_ALL, "delivered"), (TO_ALL, E, "socket"), (TO_ALL, TO_ALL, "socket")]
)
def test_a_datagram_is_received_as_its_first_part_was(first: Packet, last: Packet, expected: str) -> None:
    """TCP in a broadcast frame is dropped (``skb_morph`` takes the packet type of the first fragment)."""
    data = bytes(four() / SYN / Raw(bytes(12)))[20:]
    frames = [
        bytes(last / four(id=1, proto=6, frag=2) / Raw(data[16:])),
        bytes(first / four(id=1, proto=6, flags="MF") / Raw(data[:16])),
    ]
    traces = Explainer(Resources(), HOST, mode=None).explain_capture(frames)
    assert {trace.disposition.column for trace in traces} == {expected}
