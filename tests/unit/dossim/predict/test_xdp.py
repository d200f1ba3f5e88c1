"""The XDP stage: a deny-listed source is dropped if XDP can determine that raw would drop it, otherwise passed.

Every packet here has a deny-listed source; raw or the kernel decides on what XDP passes.
"""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict import predict
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import STAGE_OF_MODE, Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, IpSet, RuleTable
from tests.support.entries import SideMatch, entry_of

ME, ME6, BAD, BAD6 = "10.10.10.10", "fd00::10", "203.0.113.7", "2001:db8::7"
HOST = Host("jasper", addresses=(ip_interface(f"{ME}/24"), ip_interface(f"{ME6}/64")))
E = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")
SETS = {"s:bad": IpSet("s:bad", "deny", Nets.of(["203.0.113.0/24", "2001:db8::/32"]))}
LISTED = entry_of("listed", Action.DENY, source=SideMatch(ip_set="s:bad"))
INBOUND, OUTBOUND = (Failsafe(6, 22), Failsafe(17, 68, ip_network("192.0.2.0/24"))), (Failsafe(17, 53),)


def columns(packets: list[Packet | bytes], mode: Mode | None, *entries: Entry, failsafes: bool = True) -> list[str]:
    """Where each packet ends; the program holds all entries."""
    table = RuleTable("eth0", "hep", entries, (), INBOUND * failsafes, OUTBOUND * failsafes, SETS)
    stage = STAGE_OF_MODE[mode] if mode else Stage.RAW
    planned = tuple(PlannedEntry(entry, stage) for entry in entries)
    plan = InterfacePlan(table, mode, Backend.IPTABLES, planned, held=len(entries) if mode else 0)
    prediction = predict(Capture.from_frames(map(bytes, packets)), plan, HOST)
    return [prediction.disposition(number).column for number in range(len(packets))]


def four(payload: Packet, **fields: object) -> Packet:
    return E / IP(**{"src": BAD, "dst": ME} | fields) / payload


def six(payload: Packet, **fields: object) -> Packet:
    return E / IPv6(**{"src": BAD6, "dst": ME6} | fields) / payload


def patched(packet: Packet, at: int, buf: bytes) -> bytes:
    frame = bytes(packet)
    return frame[:at] + buf + frame[at + len(buf) :]


def chain(headers: int) -> Packet:
    """UDP after so many destination option headers."""
    packet: Packet = UDP(sport=1024, dport=9)
    for _ in range(headers):
        packet = IPv6ExtHdrDestOpt() / packet
    return packet


SYN, DATAGRAM = TCP(sport=1024, dport=80), UDP(sport=1024, dport=9)

# sentence -> (packet, where it ends with native XDP; with failsafes for TCP and UDP)
ROWS: dict[str, tuple[Packet | bytes, str]] = {
    "TCP": (four(SYN), "driver"),
    "UDP": (four(DATAGRAM), "driver"),
    "TCP over IPv6": (six(SYN), "driver"),
    "ICMP": (four(ICMP()), "driver"),
    "another protocol": (four(Raw(b"x"), proto=47), "driver"),
    "with options": (four(SYN, options=b"\1\1\1\1"), "driver"),
    "TTL 0": (four(SYN, ttl=0), "driver"),
    "a bad header checksum": (four(SYN, chksum=1), "driver"),
    "a total length beyond the frame": (four(SYN, len=1000), "driver"),
    "to a group": (Ether(dst="01:00:5e:00:00:fb") / four(SYN, dst="224.0.0.251")[IP], "driver"),
    "an IPv6 length beyond the frame": (six(SYN, plen=1000), "driver"),
    # failsafes
    "to an inbound failsafe": (four(TCP(dport=22)), "delivered"),
    "to one whose net is another": (four(UDP(sport=1024, dport=68)), "driver"),
    "from an outbound failsafe": (six(UDP(sport=53, dport=9)), "delivered"),
    "a failsafe's port of another protocol": (four(UDP(sport=1024, dport=22)), "driver"),
    "a TCP header of 19 bytes: passed": (four(Raw(bytes(SYN)[:19]), proto=6), "raw"),
    "a UDP header of 7 bytes: passed": (four(Raw(bytes(DATAGRAM)[:7]), proto=17), "raw"),
    "SCTP of one byte, no failsafe of SCTP": (four(Raw(b"x"), proto=132), "driver"),
    "protocol 0": (four(Raw(b"x" * 20), proto=0), "driver"),
    "a cut capture with ports: they are in the frame": (bytes(four(SYN / Raw(b"x" * 40)))[:54], "driver"),
    "a cut capture without: passed": (bytes(four(SYN / Raw(b"x" * 40)))[:53], "ip-input"),
    # layer 2 and headers
    "one tag": (E / Dot1Q(vlan=0) / four(SYN)[IP], "driver"),
    "a tag of a VLAN: passed": (E / Dot1Q(vlan=5) / four(SYN)[IP], "ip-input"),
    "two tags": (E / Dot1AD(vlan=0) / Dot1Q(vlan=0) / six(SYN)[IPv6], "driver"),
    "three tags: passed": (E / Dot1Q(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / four(SYN)[IP], "raw"),
    "ARP": (E / ARP(psrc=BAD, pdst=ME), "delivered"),
    "19 bytes of IPv4: passed": (bytes(four(SYN))[: 14 + 19], "ip-input"),
    "39 bytes of IPv6: passed": (bytes(six(SYN))[: 14 + 39], "ip-input"),
    "IHL 4: passed": (patched(four(SYN), 14, b"\x44"), "ip-input"),
    "IPv4 of version 6: passed": (patched(four(SYN), 14, b"\x65"), "ip-input"),
    "IPv6 of version 4: passed": (patched(six(SYN), 14, b"\x40"), "ip-input"),
    "a total length of 19: passed": (four(SYN, len=19), "ip-input"),
    "options beyond the frame: passed": (bytes(patched(four(SYN), 14, b"\x4f"))[: 14 + 50], "ip-input"),
    # fragments
    "a first fragment": (four(DATAGRAM / Raw(b"x" * 8), flags="MF"), "driver"),
    "a later fragment, failsafes of its protocol: passed": (four(Raw(b"x" * 8), frag=1, proto=17), "defrag"),
    "a later fragment of another protocol": (four(Raw(b"x" * 8), frag=1, proto=1), "driver"),
    "a later IPv6 fragment: passed": (six(IPv6ExtHdrFragment(offset=1, nh=17) / Raw(b"x" * 8)), "defrag"),
    "a later IPv6 fragment that says another protocol: passed": (
        six(IPv6ExtHdrFragment(offset=1, nh=58) / Raw(b"x" * 8)), "defrag"
    ),
    "a later IPv6 one of more headers: passed": (six(IPv6ExtHdrFragment(offset=1, nh=60) / Raw(b"x" * 8)), "defrag"),
    # extension headers
    "after a hop-by-hop header": (six(IPv6ExtHdrHopByHop() / SYN), "driver"),
    "a failsafe after extension headers": (six(IPv6ExtHdrDestOpt() / TCP(dport=22)), "delivered"),
    "after 8 extension headers": (six(chain(8)), "driver"),
    "after 9: passed": (six(chain(9)), "raw"),
    "next header none": (six(Raw(b""), nh=59), "driver"),
    "extension headers that break off: passed": (six(Raw(b"\x06"), nh=60), "raw"),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "expected"), ROWS.values(), ids=ROWS)
def test_native(packet: Packet | bytes, expected: str) -> None:
    assert columns([packet], Mode.NATIVE, LISTED) == [expected]


@pytest.mark.parametrize("mode", Mode, ids=str)
def test_the_mode_names_the_stage(mode: Mode) -> None:
    assert columns([four(SYN), six(SYN)], mode, LISTED) == [str(STAGE_OF_MODE[mode])] * 2
    assert columns([four(SYN), six(SYN)], None, LISTED) == ["raw"] * 2


def test_without_failsafes_nothing_is_indeterminate() -> None:
    ambiguous = [
        four(Raw(bytes(SYN)[:19]), proto=6),
        four(Raw(b"x" * 8), frag=1, proto=17),
        four(Raw(b"x" * 20), proto=0),
        six(chain(9)),
        six(Raw(b"\x06"), nh=60),
    ]
    assert columns(ambiguous, Mode.NATIVE, LISTED, failsafes=False) == ["driver"] * len(ambiguous)


ENTRIES: dict[str, tuple[list[Entry], Packet, str]] = {
    "no entry for XDP": ([], four(SYN), "delivered"),
    "another source": ([LISTED], four(SYN, src="203.0.114.0"), "delivered"),
    "nets of sources": ([entry_of("n", Action.DENY, source=SideMatch(nets=(ip_network("203.0.113.7/32"),)))],
                        four(SYN), "driver"),
    "any source": ([entry_of("any", Action.DENY)], six(SYN), "driver"),
    "any IPv4 source, and an IPv6 packet": ([entry_of("any", Action.DENY, ip_version=4)], six(SYN), "delivered"),
    "a set, and only its IPv4 members": ([entry_of("s", Action.DENY, ip_version=4, source=SideMatch(ip_set="s:bad"))],
                                         six(SYN), "delivered"),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "packet", "expected"), ENTRIES.values(), ids=ENTRIES)
def test_entries(entries: list[Entry], packet: Packet, expected: str) -> None:
    assert columns([packet], Mode.NATIVE, *entries) == [expected]


def test_the_first_entry_with_the_source_is_counted() -> None:
    narrow = entry_of("narrow", Action.DENY, source=SideMatch(nets=(ip_network("203.0.113.7/32"),)))
    entries = (narrow, LISTED)
    table = RuleTable("eth0", "hep", entries, sets=SETS)
    planned = tuple(PlannedEntry(entry, Stage.DRIVER) for entry in entries)
    plan = InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, planned, held=len(entries))
    frames = [bytes(four(SYN, src=source)) for source in (BAD, "203.0.113.8", BAD)]
    prediction = predict(Capture.from_frames(frames), plan, HOST)
    assert prediction.entry.tolist() == [0, 1, 0]
    assert prediction.entry_counts() == {"narrow": 2, "listed": 1}


def test_a_fragment_dropped_by_xdp_leaves_its_datagram_incomplete() -> None:
    """XDP drops the first fragment of a listed datagram; the last one, which it passes, times out in reassembly."""
    first = four(DATAGRAM / Raw(b"x" * 8), flags="MF", id=5)
    last = four(Raw(b"x" * 8), frag=2, proto=17, id=5)
    assert columns([first, last], Mode.NATIVE, LISTED) == ["driver", "defrag"]
    assert columns([first, last], None, LISTED) == ["raw", "raw"]
