"""The RuleTable applied to packets: which entry denies which packet in raw, and which packets are too short for a
match.

A row is a table and, for each packet, the entry that denies it, "short" for a packet too short for a match (hotdrop),
or None.
"""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.predict import predict
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action, Backend, Stage
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.resources import Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import Entry, IpSet, RuleTable
from tests.support.entries import SideMatch, entry_of

ME, ME6, BAD, GOOD, BAD6, GOOD6 = "10.10.10.10", "fd00::10", "203.0.113.7", "8.8.8.8", "2001:db8::7", "2600::1"
HOST = Host("jasper", addresses=(ip_interface(f"{ME}/24"), ip_interface(f"{ME6}/64")))
E = Ether(dst="06:00:00:00:00:01", src="02:00:00:00:00:00")

SETS = {
    "s:bad": IpSet("s:bad", "deny", Nets.of(["203.0.113.0/24", "2001:db8::/32"])),
    "s:none": IpSet("s:none", "none", Nets()),
}


def four(payload: Packet, source: str = BAD, **fields: object) -> Packet:
    return E / IP(src=source, dst=ME, **fields) / payload


def six(payload: Packet, source: str = BAD6, **fields: object) -> Packet:
    return E / IPv6(src=source, dst=ME6, **fields) / payload


def nets(*cidrs: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(cidr) for cidr in cidrs)


def ports(*pairs: tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(PortRange(first, last) for first, last in pairs)


def denied(packets: list[Packet], *entries: Entry, **table: tuple[Failsafe, ...]) -> list[str | None]:
    plan = InterfacePlan(RuleTable("eth0", "hep", entries, sets=SETS, **table), None, Backend.IPTABLES, ())
    prediction = predict(Capture.from_frames(map(bytes, packets)), plan, HOST)
    found: list[str | None] = []
    for number in range(len(packets)):
        item = prediction.disposition(number)
        at_raw = item.stage is Stage.RAW
        found.append((item.entry or "short") if at_raw else None)
        assert at_raw or item.entry is None
    return found


def entry(name: str, action: Action = Action.DENY, **fields: object) -> Entry:
    return entry_of(name, action, **fields)  # type: ignore[arg-type]  # of several types


BAD_SET = SideMatch(ip_set="s:bad")
SYN, DATAGRAM = TCP(sport=1024, dport=80), UDP(sport=1024, dport=9)
PING, PING6 = ICMP(type=8, code=0), ICMPv6EchoRequest()
CUT_TCP = Raw(b"\x04\x00")  # two bytes: not even both ports

MATCHES: dict[str, tuple[Entry, list[Packet], list[Packet]]] = {
    "everything": (entry("d"), [four(SYN), six(SYN), four(CUT_TCP, proto=6)], []),
    "a set of sources": (entry("d", source=BAD_SET), [four(SYN), six(DATAGRAM)], [four(SYN, GOOD), six(SYN, GOOD6)]),
    "an empty set": (entry("d", source=SideMatch(ip_set="s:none")), [], [four(SYN), six(SYN)]),
    "a set, one version": (entry("d", ip_version=4, source=BAD_SET), [four(SYN)], [six(SYN)]),
    "nets of sources": (
        entry("d", ip_version=4, source=SideMatch(nets=nets("8.8.8.8/32", "203.0.113.7/32"))),
        [four(SYN), four(SYN, GOOD)],
        [four(SYN, "8.8.8.9"), six(SYN)],
    ),
    "nets of IPv6 sources": (
        entry("d", ip_version=6, source=SideMatch(nets=nets("2001:db8::/33"))),
        [six(SYN), six(SYN, "2001:db8:7fff:ffff::")],
        [six(SYN, "2001:db8:8000::"), four(SYN)],
    ),
    "negated nets": (
        entry("d", ip_version=4, source=SideMatch(not_nets=nets("203.0.113.0/24"))),
        [four(SYN, GOOD), four(SYN, "203.0.114.0")],
        [four(SYN), four(SYN, "203.0.113.255"), six(SYN)],
    ),
    "a set and nets at once": (
        entry("d", ip_version=4, source=SideMatch(nets=nets("203.0.113.7/32"), ip_set="s:bad")),
        [four(SYN)],
        [four(SYN, "203.0.113.8"), four(SYN, GOOD)],
    ),
    "the destination": (entry("d", ip_version=4, destination=SideMatch(nets=nets(ME))), [four(SYN)], [six(SYN)]),
    "another destination": (entry("d", destination=SideMatch(nets=nets("10.10.10.11"))), [], [four(SYN)]),
    "a protocol": (entry("d", protocol=17), [four(DATAGRAM), six(DATAGRAM)], [four(SYN), six(SYN), four(PING)]),
    "not a protocol": (entry("d", not_protocol=17), [four(SYN), six(SYN), four(PING)], [four(DATAGRAM), six(DATAGRAM)]),
    "the protocol after extension headers": (
        entry("d", protocol=17),
        [six(IPv6ExtHdrDestOpt() / DATAGRAM)],
        [six(IPv6ExtHdrDestOpt() / SYN)],
    ),
    "destination ports, both ends of a range": (
        entry("d", protocol=6, destination=SideMatch(ports=ports((80, 81), (443, 443)))),
        [four(TCP(dport=80)), four(TCP(dport=81)), six(TCP(dport=443))],
        [four(TCP(dport=79)), four(TCP(dport=82)), four(TCP(sport=80, dport=1)), four(UDP(dport=80))],
    ),
    "source ports": (
        entry("d", protocol=17, source=SideMatch(ports=ports((53, 53)))),
        [four(UDP(sport=53))],
        [four(UDP(sport=54, dport=53)), four(TCP(sport=53))],
    ),
    "negated ports": (
        entry("d", protocol=6, destination=SideMatch(not_ports=ports((80, 443)))),
        [four(TCP(dport=79)), four(TCP(dport=444))],
        [four(TCP(dport=80)), four(TCP(dport=443)), four(UDP(dport=1))],
    ),
    "an ICMP type": (
        entry("d", protocol=1, icmp=IcmpMatch(8)),
        [four(ICMP(type=8)), four(ICMP(type=8, code=3))],
        [four(ICMP(type=0)), six(PING6), four(SYN)],
    ),
    "an ICMP type and code": (
        entry("d", protocol=1, icmp=IcmpMatch(3, 1)),
        [four(ICMP(type=3, code=1))],
        [four(ICMP(type=3, code=2)), four(ICMP(type=8, code=1))],
    ),
    "not an ICMP type": (entry("d", protocol=1, not_icmp=IcmpMatch(8)), [four(ICMP(type=0))], [four(ICMP(type=8))]),
    "an ICMPv6 type": (entry("d", protocol=58, icmp=IcmpMatch(128)), [six(PING6)], [four(PING), six(SYN)]),
}


@pytest.mark.parametrize(("one", "matching", "others"), MATCHES.values(), ids=MATCHES)
def test_a_deny_entry_drops_what_it_matches(one: Entry, matching: list[Packet], others: list[Packet]) -> None:
    assert denied(matching, one) == ["d"] * len(matching)
    assert denied(others, one) == [None] * len(others)


ORDERS: dict[str, tuple[list[Entry], str | None]] = {
    "the first that matches decides": ([entry("a"), entry("b")], "a"),
    "one that does not match is skipped": ([entry("a", protocol=17), entry("b")], "b"),
    "Allow ends it": ([entry("a", Action.ALLOW), entry("b")], None),
    "Log goes on": ([entry("a", Action.LOG), entry("b")], "b"),
    "Pass skips the rest of its tier": ([entry("a", Action.PASS), entry("b")], None),
    "Pass goes on with the next tier": ([entry("a", Action.PASS, tier="t"), entry("b", tier="t"), entry("c")], "c"),
    "Pass of another packet skips nothing": ([entry("a", Action.PASS, protocol=17), entry("b")], "b"),
    "no entry, no drop": ([], None),
}


@pytest.mark.parametrize(("entries", "by"), ORDERS.values(), ids=ORDERS)
def test_entries_in_order(entries: list[Entry], by: str | None) -> None:
    assert denied([four(SYN), six(SYN)], *entries) == [by, by]


FAILSAFES = {"failsafe_inbound": (Failsafe(6, 22), Failsafe(17, 68)), "failsafe_outbound": (Failsafe(17, 53),)}
REMOTE = {"failsafe_inbound": (Failsafe(6, 22, ip_network("203.0.113.0/24")),)}
ROWS_FAILSAFE: dict[str, tuple[dict[str, tuple[Failsafe, ...]], Packet, str | None]] = {
    "an inbound port": (FAILSAFES, four(TCP(dport=22)), None),
    "an inbound port over IPv6": (FAILSAFES, six(TCP(dport=22)), None),
    "the port as a source": (FAILSAFES, four(TCP(sport=22)), "d"),
    "the port of another protocol": (FAILSAFES, four(UDP(sport=1024, dport=22)), "d"),
    "the answer to an outbound port": (FAILSAFES, four(UDP(sport=53)), None),
    "to an outbound port": (FAILSAFES, four(UDP(sport=1024, dport=53)), "d"),
    "too short to have ports, of a failsafe's protocol": (FAILSAFES, four(CUT_TCP, proto=6), "short"),
    "too short to have ports, of no failsafe's protocol": (FAILSAFES, four(CUT_TCP, proto=132), "d"),
    "ports alone are enough": (FAILSAFES, four(Raw(b"\x04\x00\x00\x16"), proto=6), None),
    "a failsafe for this source": (REMOTE, four(TCP(dport=22)), None),
    "a failsafe for other sources": (REMOTE, four(TCP(dport=22), GOOD), "d"),
    "too short, and the failsafe is for other sources": (REMOTE, four(CUT_TCP, GOOD, proto=6), "d"),
    "a failsafe for sources of the other family": (REMOTE, six(TCP(dport=22)), "d"),
}


@pytest.mark.parametrize(("failsafes", "packet", "by"), ROWS_FAILSAFE.values(), ids=ROWS_FAILSAFE)
def test_failsafes_come_first(failsafes: dict[str, tuple[Failsafe, ...]], packet: Packet, by: str | None) -> None:
    assert denied([packet], entry("d"), **failsafes) == [by]


def test_failsafes_without_entries_ask_nothing() -> None:
    assert denied([four(CUT_TCP, proto=6)], **FAILSAFES) == [None]


ON_PORTS = entry("d", protocol=6, source=BAD_SET, destination=SideMatch(ports=ports((80, 80))))
ON_TYPE = entry("d", protocol=1, source=BAD_SET, icmp=IcmpMatch(8))
SHORT: dict[str, tuple[Entry, Packet, str | None]] = {
    "two bytes of TCP where ports are matched on": (ON_PORTS, four(CUT_TCP, proto=6), "short"),
    "four bytes of TCP": (ON_PORTS, four(Raw(b"\x04\x00\x00\x50"), proto=6), "d"),
    "but the source was requested before": (ON_PORTS, four(CUT_TCP, GOOD, proto=6), None),
    "and the protocol": (ON_PORTS, four(CUT_TCP, proto=17), None),
    "seven bytes of ICMP where a type is matched on": (ON_TYPE, four(Raw(b"\x08" + bytes(6)), proto=1), "short"),
    "eight bytes of ICMP": (ON_TYPE, four(Raw(b"\x08" + bytes(7)), proto=1), "d"),
    "IPv6 extension headers that break off, where a protocol is matched on": (
        entry("d", protocol=6),
        six(Raw(b"\x2c"), nh=60),
        "short",
    ),
    "IPv6 extension headers that break off, where none is": (entry("d", source=BAD_SET), six(Raw(b"\x2c"), nh=60), "d"),
}


@pytest.mark.parametrize(("one", "packet", "by"), SHORT.values(), ids=SHORT)
def test_a_packet_too_short_for_a_question_is_dropped(one: Entry, packet: Packet, by: str | None) -> None:
    assert denied([packet], one) == [by]


def fragments(ident: int, buf: bytes, *, source: str = BAD, protocol: int = 17) -> list[Packet]:
    """Two fragments; the first holds 8 bytes."""
    head = E / IP(src=source, dst=ME, id=ident, proto=protocol, flags="MF") / Raw(buf[:8])
    return [head, E / IP(src=source, dst=ME, id=ident, proto=protocol, frag=1) / Raw(buf[8:])]


def test_raw_sees_the_reassembled_datagram() -> None:
    one = entry("d", protocol=17, destination=SideMatch(ports=ports((9, 9))))
    hit, miss = bytes(UDP(dport=9) / Raw(b"x" * 8)), bytes(UDP(dport=10) / Raw(b"x" * 8))
    packets = [*fragments(1, hit), *fragments(2, miss), *reversed(fragments(3, hit))]
    assert denied(packets, one) == ["d", "d", None, None, "d", "d"]


def test_a_datagram_that_stays_incomplete_never_gets_to_raw() -> None:
    plan = InterfacePlan(RuleTable("eth0", "hep", (entry("d"),)), None, Backend.IPTABLES, ())
    frames = [bytes(packet) for packet in fragments(1, bytes(16))]
    for kept in ([frames[0]], [frames[1]]):
        assert predict(Capture.from_frames(kept), plan, HOST).totals() == {"defrag": 1}
    assert predict(Capture.from_frames(frames), plan, HOST).totals() == {"raw": 2}
