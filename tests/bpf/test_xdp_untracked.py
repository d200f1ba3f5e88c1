"""The XDP program, one frame at a time through BPF_PROG_TEST_RUN: its verdict, and the counter that says why.

A row is a frame and whether it is dropped. The policy is always the same: entry 0 lists 203.0.113.0/24 and
2001:db8:bad::/48, entry 1 203.0.113.128/25 (covered, so entry 0 has it) and 198.51.100.0/24; failsafe are TCP to 22
and UDP from 53. The XDP column of docs/packet-fates.md is held by rows that bear its words.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from enforcer.backends.xdp.generation import OBJECT, XDP_PROGRAM, fill
from enforcer.backends.xdp.render import XdpTable, render
from enforcer.errors import KernelError
from enforcer.kernel import bpf
from enforcer.kernel.bpf import BpfObject
from enforcer.kernel.maps import Map
from enforcer.plan import InterfacePlan, PlannedEntry
from enforcer.policy.nets import Nets
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, RuleTable
from enforcer.words import Action, Backend, Mode, Stage
from tests.bpf.xdp_frames import (
    ARP,
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    LISTED6,
    NONE,
    QINQ,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    UNLISTED4,
    UNLISTED6,
    VLAN,
    authentication,
    ether,
    fragment6,
    ipv4,
    ipv6,
    options,
    sctp,
    tcp,
    udp,
)

pytestmark = pytest.mark.needs_root

XDP_DROP, XDP_PASS = 1, 2
COUNT = struct.Struct("=QQ")


@dataclass(frozen=True)
class Program:
    """The loaded program with its counters."""

    fd: int
    counters: Map

    def run(self, frame: bytes) -> int:
        """The verdict; the frame must come out as it went in."""
        verdict, out, _ = bpf.test_run(self.fd, frame)
        assert out == frame
        return verdict

    def counts(self) -> list[tuple[int, int]]:
        """(packets, bytes) of each entry, summed over the CPUs."""
        found = []
        for index in range(self.counters.max_entries):
            values = [COUNT.unpack(value) for value in self.counters.lookup_percpu(struct.pack("=I", index))]
            found.append((sum(packets for packets, _ in values), sum(size for _, size in values)))
        return found


LISTS = (["203.0.113.0/24", "2001:db8:bad::/48"], ["203.0.113.128/25", "198.51.100.0/24"])
INBOUND, OUTBOUND = (Failsafe(TCP, 22),), (Failsafe(UDP, 53),)


def table_of(
    *lists: list[str], inbound: tuple[Failsafe, ...] = INBOUND, outbound: tuple[Failsafe, ...] = OUTBOUND
) -> XdpTable:
    sets = {f"s:{number}": IpSet(f"s:{number}", "", Nets.of(nets)) for number, nets in enumerate(lists)}
    entries = tuple(Entry(name, Action.DENY, source=AddressMatch(ip_set=name)) for name in sets)
    table = RuleTable("eth0", "hep", entries, failsafe_inbound=inbound, failsafe_outbound=outbound, sets=sets)
    planned = tuple(PlannedEntry(entry, Stage.DRIVER) for entry in entries)
    return render(InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, planned))


def loaded(table: XdpTable, *, pass_tagged: bool = False) -> Iterator[Program]:
    with BpfObject(OBJECT) as obj:
        obj.set_const("multi_buffer", 1)
        obj.set_const("pass_tagged", int(pass_tagged))
        obj.resize_map("entry_counters", len(table.entries))
        obj.load()
        for name, content in (("deny4", table.deny4), ("deny6", table.deny6), ("failsafe", table.failsafe)):
            with obj.map(name) as target:
                fill(target, content)
        with obj.map("entry_counters") as counters:
            yield Program(obj.program(XDP_PROGRAM).fd, counters)


@pytest.fixture
def program() -> Iterator[Program]:
    yield from loaded(table_of(*LISTS))


@pytest.fixture
def without_failsafes() -> Iterator[Program]:
    yield from loaded(table_of(*LISTS, inbound=(), outbound=()))


def check(program: Program, frame: bytes, *, dropped_by: int | None) -> None:
    """The verdict, and that nothing but the entry that caused it has counted: one packet, the bytes of IP."""
    assert program.run(frame) == (XDP_PASS if dropped_by is None else XDP_DROP)
    counts = program.counts()
    for index, (packets, size) in enumerate(counts):
        assert packets == (index == dropped_by)
        assert bool(size) == (index == dropped_by)


def row(name: str, frame: bytes, *, dropped: bool) -> object:
    return pytest.param(frame, 0 if dropped else None, id=f"{name}: {'dropped' if dropped else 'passes'}")


# -- sources -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ("203.0.112.255", None),
        ("203.0.113.0", 0),
        ("203.0.113.127", 0),
        ("203.0.113.128", 0),  # entry 1 lists it more precisely, entry 0 comes first
        ("203.0.113.255", 0),
        ("203.0.114.0", None),
        ("198.51.100.0", 1),
        ("198.51.100.255", 1),
        ("198.51.101.0", None),
        ("0.0.0.0", None),
        ("255.255.255.255", None),
    ],
)
def test_the_first_entry_that_lists_an_ipv4_source_drops(program: Program, source: str, entry: int | None) -> None:
    check(program, ether(IPV4, ipv4(source=source)), dropped_by=entry)


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ("2001:db8:bac:ffff:ffff:ffff:ffff:ffff", None),
        ("2001:db8:bad::", 0),
        ("2001:db8:bad:ffff:ffff:ffff:ffff:ffff", 0),
        ("2001:db8:bae::", None),
        ("::", None),
    ],
)
def test_the_first_entry_that_lists_an_ipv6_source_drops(program: Program, source: str, entry: int | None) -> None:
    check(program, ether(IPV6, ipv6(source=source)), dropped_by=entry)


@pytest.mark.parametrize("net", ["0.0.0.0/0", "128.0.0.0/1", "203.0.113.7/32"])
def test_the_shortest_and_the_longest_prefixes_work(net: str) -> None:
    for program in loaded(table_of([net])):
        check(program, ether(IPV4, ipv4()), dropped_by=0)


@pytest.mark.parametrize("net", ["::/0", "2000::/3", f"{LISTED6}/128"])
def test_the_shortest_and_the_longest_ipv6_prefixes_work(net: str) -> None:
    for program in loaded(table_of([net])):
        check(program, ether(IPV6, ipv6()), dropped_by=0)


def test_an_empty_policy_passes_everything() -> None:
    for program in loaded(table_of([])):
        check(program, ether(IPV4, ipv4()), dropped_by=None)
        check(program, ether(IPV6, ipv6()), dropped_by=None)


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (ether(IPV4, ipv4(bytes(64))), 84),
        (ether(IPV4, ipv4(bytes(6)) + bytes(20)), 26),  # padding of short frames is not the packet's
        (ether(IPV4, ipv4(bytes(6), total=1500)), 26),  # nor are bytes that did not come
        (ether(IPV4, ipv4(bytes(6)), (VLAN, 0)), 26),
        (ether(IPV6, ipv6(bytes(64))), 104),
        (ether(IPV6, ipv6(bytes(6)) + bytes(20)), 46),
        (ether(IPV6, ipv6(bytes(6), length=1400)), 46),
    ],
)
def test_bytes_are_those_of_the_ip_packet(program: Program, frame: bytes, size: int) -> None:
    assert program.run(frame) == XDP_DROP
    assert program.run(frame) == XDP_DROP
    assert program.counts()[0] == (2, 2 * size)


# -- layer 2 -------------------------------------------------------------------------------------------------------

PACKET = ipv4()


@pytest.mark.parametrize(
    ("frame", "entry"),
    [
        row("802.3 length, LLC", ether(0x0026, b"\x42\x42\x03" + PACKET), dropped=False),
        row("an ethertype that is not IP", ether(0x88B5, PACKET), dropped=False),
        row(
            "ARP from a listed address",
            ether(ARP, b"\0\1\x08\0\x06\x04\0\1" + bytes(6) + PACKET[12:16] + bytes(10)),
            dropped=False,
        ),
        row("IPv6 ethertype on an IPv4 packet", ether(IPV6, PACKET + bytes(40)), dropped=False),
        row("IPv4 ethertype on an IPv6 packet", ether(IPV4, ipv6()), dropped=False),
        row("VLAN tag, id 0", ether(IPV4, PACKET, (VLAN, 0)), dropped=True),
        row("802.1ad tag, id 0", ether(IPV4, PACKET, (QINQ, 0)), dropped=True),
        row("VLAN tag, id not 0, no VLAN interface", ether(IPV4, PACKET, (VLAN, 5)), dropped=True),
        row("priority bits only", ether(IPV4, PACKET, (VLAN, 0xE000)), dropped=True),
        row("two tags", ether(IPV4, PACKET, (QINQ, 5), (VLAN, 6)), dropped=True),
        row("two tags, IPv6", ether(IPV6, ipv6(), (VLAN, 5), (VLAN, 6)), dropped=True),
        row("three tags", ether(IPV4, PACKET, (QINQ, 5), (VLAN, 6), (VLAN, 7)), dropped=False),
        row("tag cut short", ether(IPV4, PACKET, (VLAN, 5))[:16], dropped=False),
        row("a tag, an unlisted source", ether(IPV4, ipv4(source=UNLISTED4), (VLAN, 5)), dropped=False),
    ],
)
def test_layer_2(program: Program, frame: bytes, entry: int | None) -> None:
    check(program, frame, dropped_by=entry)


@pytest.mark.parametrize(
    ("frame", "entry"),
    [
        row("no tag", ether(IPV4, PACKET), dropped=True),
        row("id 0 is no VLAN", ether(IPV4, PACKET, (VLAN, 0xE000)), dropped=True),
        row("a VLAN's", ether(IPV4, PACKET, (VLAN, 5)), dropped=False),
        row("a VLAN's behind id 0", ether(IPV4, PACKET, (QINQ, 0), (VLAN, 5)), dropped=False),
        row("a VLAN's in a VLAN", ether(IPV4, PACKET, (QINQ, 5), (VLAN, 0)), dropped=False),
    ],
)
def test_where_vlan_interfaces_exist_their_packets_are_not_this_interfaces(frame: bytes, entry: int | None) -> None:
    for program in loaded(table_of(*LISTS), pass_tagged=True):
        check(program, frame, dropped_by=entry)


# -- IP headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "entry"),
    [
        row("20 bytes of header and nothing else", ether(IPV4, ipv4()), dropped=True),
        row("frame ends before the 20-byte header", ether(IPV4, ipv4()[:19]), dropped=False),
        row("IHL below 5", ether(IPV4, ipv4(header_words=4)), dropped=False),
        row("version not 4", ether(IPV4, ipv4(version=5)), dropped=False),
        row("IP options", ether(IPV4, ipv4(options=b"\x01" * 40)), dropped=True),
        row(
            "frame ends inside the header (IHL)",
            ether(IPV4, ipv4(header_words=15, total=60, payload=bytes(39))),
            dropped=False,
        ),
        row("bad header checksum", ether(IPV4, ipv4(checksum=0xDEAD)), dropped=True),
        row("total length longer than the frame (cut capture)", ether(IPV4, ipv4(bytes(40), total=1500)), dropped=True),
        row("total length shorter than the header", ether(IPV4, ipv4(bytes(40), total=19)), dropped=False),
        row(
            "total length shorter than the header with its options",
            ether(IPV4, ipv4(bytes(40), options=bytes(8), total=27)),
            dropped=False,
        ),
        row("total length of just the header", ether(IPV4, ipv4(bytes(40), total=20)), dropped=True),
    ],
)
def test_ipv4_headers(program: Program, frame: bytes, entry: int | None) -> None:
    check(program, frame, dropped_by=entry)


@pytest.mark.parametrize(
    ("frame", "entry"),
    [
        row("40 bytes of header and nothing else", ether(IPV6, ipv6()), dropped=True),
        row("frame ends before the 40-byte header", ether(IPV6, ipv6()[:39]), dropped=False),
        row("version not 6", ether(IPV6, ipv6(version=4)), dropped=False),
        row("destination ::1", ether(IPV6, ipv6(destination="::1")), dropped=True),
        row("destination multicast of scope 1", ether(IPV6, ipv6(destination="ff01::1")), dropped=True),
        row("payload longer than the frame", ether(IPV6, ipv6(bytes(8), length=1400)), dropped=True),
        row("an unlisted source", ether(IPV6, ipv6(source=UNLISTED6)), dropped=False),
    ],
)
def test_ipv6_headers(program: Program, frame: bytes, entry: int | None) -> None:
    check(program, frame, dropped_by=entry)


def test_a_malformed_hop_by_hop_header_is_decided_by_the_entries_where_there_are_no_failsafes(
    without_failsafes: Program,
) -> None:
    check(without_failsafes, ether(IPV6, ipv6(b"\x3a\xff" + bytes(6), next_header=HOP_BY_HOP)), dropped_by=0)


@pytest.mark.parametrize("length", range(14))
def test_a_frame_shorter_than_an_ethernet_header_cannot_be_sent(program: Program, length: int) -> None:
    """The first row of docs/packet-fates.md: the kernel refuses to make one (bpf_test_init, net/bpf/test_run.c)."""
    with pytest.raises(KernelError, match="EINVAL"):
        bpf.test_run(program.fd, bytes(length))


# -- failsafes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "payload", "dropped"),
    [
        pytest.param(TCP, tcp(dport=22), False, id="to an inbound port"),
        pytest.param(TCP, tcp(dport=21), True, id="one below it"),
        pytest.param(TCP, tcp(dport=23), True, id="one above it"),
        pytest.param(TCP, tcp(sport=22), True, id="from an inbound port"),
        pytest.param(UDP, udp(dport=22), True, id="to an inbound port of another protocol"),
        pytest.param(UDP, udp(sport=53), False, id="from an outbound port: an answer"),
        pytest.param(UDP, udp(dport=53), True, id="to an outbound port"),
        pytest.param(TCP, tcp(sport=53), True, id="from an outbound port of another protocol"),
        pytest.param(TCP, tcp(dport=22, length=19), False, id="TCP cut short, failsafe port"),
        pytest.param(TCP, tcp(length=19), False, id="TCP cut short: it might be"),
        pytest.param(TCP, b"", False, id="no TCP at all: it might be"),
        pytest.param(UDP, udp(length=7), False, id="UDP cut short: it might be"),
        pytest.param(UDP, udp(length=8), True, id="UDP just long enough"),
        pytest.param(SCTP, sctp(dport=22), True, id="SCTP has no failsafe"),
        pytest.param(ICMP, tcp(dport=22), True, id="what looks like ports of a protocol without"),
        pytest.param(4, tcp(dport=22), True, id="IP in IP"),
    ],
)
@pytest.mark.parametrize("version", [4, 6])
def test_failsafes_pass_and_what_may_be_one_passes(
    program: Program, version: int, protocol: int, payload: bytes, dropped: bool
) -> None:
    if version == 4:
        frame = ether(IPV4, ipv4(payload, protocol=protocol))
    else:
        frame = ether(IPV6, ipv6(payload, next_header=protocol))
    check(program, frame, dropped_by=0 if dropped else None)


def test_a_failsafe_restricted_to_a_net_passes_any_source() -> None:
    """Raw looks at the net; passing too much only costs the early drop."""
    elsewhere = Failsafe(TCP, 22, next(iter(Nets.of(["10.0.0.0/8"]))))
    for program in loaded(table_of(*LISTS, inbound=(elsewhere,), outbound=())):
        check(program, ether(IPV4, ipv4(tcp(dport=22), protocol=TCP)), dropped_by=None)
        check(program, ether(IPV6, ipv6(tcp(dport=22), next_header=TCP)), dropped_by=None)


def test_an_sctp_failsafe_passes() -> None:
    for program in loaded(table_of(*LISTS, inbound=(Failsafe(SCTP, 22),), outbound=())):
        check(program, ether(IPV4, ipv4(sctp(dport=22), protocol=SCTP)), dropped_by=None)
        check(program, ether(IPV4, ipv4(sctp(dport=22)[:11], protocol=SCTP)), dropped_by=None)
        check(program, ether(IPV4, ipv4(sctp(dport=23), protocol=SCTP)), dropped_by=0)


def test_ports_are_read_inside_what_the_ip_header_says_is_the_packet(program: Program) -> None:
    """Behind it is padding, which raw does not see: to it the header is cut short."""
    check(program, ether(IPV4, ipv4(tcp(dport=80), protocol=TCP, total=39)), dropped_by=None)
    check(program, ether(IPV6, ipv6(tcp(dport=80), next_header=TCP, length=19)), dropped_by=None)
    check(program, ether(IPV4, ipv4(tcp(dport=80), protocol=TCP, total=40)), dropped_by=0)


def test_ports_are_found_behind_ip_options(program: Program) -> None:
    padding = b"\x01" * 8
    check(program, ether(IPV4, ipv4(tcp(dport=22), protocol=TCP, options=padding)), dropped_by=None)
    check(program, ether(IPV4, ipv4(tcp(dport=80), protocol=TCP, options=padding)), dropped_by=0)


# -- fragments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "entry"),
    [
        row("first, not a failsafe's", ether(IPV4, ipv4(udp(), protocol=UDP, more=True)), dropped=True),
        row("first, a failsafe's", ether(IPV4, ipv4(udp(sport=53), protocol=UDP, more=True)), dropped=False),
        row(
            "first, too small for the ports", ether(IPV4, ipv4(tcp(length=16), protocol=TCP, more=True)), dropped=False
        ),
        row(
            "later, of TCP: its datagram may be a failsafe's",
            ether(IPV4, ipv4(bytes(64), protocol=TCP, offset=1)),
            dropped=False,
        ),
        row("later, of UDP", ether(IPV4, ipv4(bytes(64), protocol=UDP, offset=8191)), dropped=False),
        row("later, what looks like ports", ether(IPV4, ipv4(udp(), protocol=UDP, offset=1, more=True)), dropped=False),
        row("later, of ICMP", ether(IPV4, ipv4(bytes(64), protocol=ICMP, offset=185)), dropped=True),
        row(
            "later, of SCTP, which has no failsafe", ether(IPV4, ipv4(bytes(64), protocol=SCTP, offset=1)), dropped=True
        ),
        row("later, unlisted", ether(IPV4, ipv4(bytes(64), source=UNLISTED4, offset=1)), dropped=False),
        row(
            "v6 first, not a failsafe's", ether(IPV6, ipv6(fragment6(UDP) + udp(), next_header=FRAGMENT)), dropped=True
        ),
        row(
            "v6 first, a failsafe's",
            ether(IPV6, ipv6(fragment6(UDP) + udp(sport=53), next_header=FRAGMENT)),
            dropped=False,
        ),
        row(
            "v6 later, of UDP", ether(IPV6, ipv6(fragment6(UDP, offset=1) + udp(), next_header=FRAGMENT)), dropped=False
        ),
        row(
            "v6 later, of ICMPv6",
            ether(IPV6, ipv6(fragment6(ICMPV6, offset=1) + bytes(8), next_header=FRAGMENT)),
            dropped=True,
        ),
        row(
            "v6 later, protocol not known",
            ether(IPV6, ipv6(fragment6(DESTINATION, offset=1) + options(ICMPV6), next_header=FRAGMENT)),
            dropped=False,
        ),
        row("v6 atomic", ether(IPV6, ipv6(fragment6(TCP, more=False) + tcp(), next_header=FRAGMENT)), dropped=True),
        row(
            "v6 fragment header cut short",
            ether(IPV6, ipv6(fragment6(ICMPV6)[:7], next_header=FRAGMENT)),
            dropped=False,
        ),
    ],
)
def test_fragments_are_decided_each_on_its_own(program: Program, frame: bytes, entry: int | None) -> None:
    check(program, frame, dropped_by=entry)


@pytest.mark.parametrize(
    "frame",
    [
        ether(IPV4, ipv4(bytes(64), protocol=TCP, offset=1)),
        ether(IPV4, ipv4(tcp(length=19), protocol=TCP)),
        ether(IPV6, ipv6(fragment6(DESTINATION, offset=1) + bytes(8), next_header=FRAGMENT)),
        ether(IPV6, ipv6(b"\x06\xff" + bytes(6), next_header=DESTINATION)),
    ],
)
def test_without_failsafes_unknown_ports_are_no_doubt(without_failsafes: Program, frame: bytes) -> None:
    check(without_failsafes, frame, dropped_by=0)


# -- extension headers ---------------------------------------------------------------------------------------------


def chain(*kinds: int, last: int = TCP, payload: bytes = b"") -> bytes:
    """An IPv6 packet with these extension headers in front of its transport."""
    following = [*kinds[1:], last]
    make = {AUTHENTICATION: authentication, FRAGMENT: fragment6}
    headers = b"".join(make.get(kind, options)(after) for kind, after in zip(kinds, following, strict=True))
    return ether(IPV6, ipv6(headers + payload, next_header=kinds[0] if kinds else last))


@pytest.mark.parametrize("kind", [HOP_BY_HOP, ROUTING, DESTINATION, AUTHENTICATION, FRAGMENT])
def test_ports_are_found_behind_each_kind_of_extension_header(program: Program, kind: int) -> None:
    check(program, chain(kind, payload=tcp(dport=22)), dropped_by=None)
    check(program, chain(kind, payload=tcp(dport=80)), dropped_by=0)


def test_eight_extension_headers_are_followed_and_nine_are_in_doubt(program: Program) -> None:
    check(program, chain(*[DESTINATION] * 8, payload=tcp(dport=22)), dropped_by=None)
    check(program, chain(*[DESTINATION] * 9, payload=tcp(dport=80)), dropped_by=None)
    check(program, chain(*[DESTINATION] * 8, payload=tcp(dport=80)), dropped_by=0)


def test_the_longest_extension_headers_are_followed(program: Program) -> None:
    long = options(TCP, size=2048)
    check(program, ether(IPV6, ipv6(long + tcp(dport=22), next_header=DESTINATION)), dropped_by=None)
    check(program, ether(IPV6, ipv6(long + tcp(dport=80), next_header=DESTINATION)), dropped_by=0)


@pytest.mark.parametrize(
    ("frame", "entry"),
    [
        row("no next header", ether(IPV6, ipv6(options(NONE), next_header=DESTINATION)), dropped=True),
        row(
            "header longer than the packet",
            ether(IPV6, ipv6(b"\x06\x02" + bytes(6) + tcp(), next_header=DESTINATION, length=20)),
            dropped=False,
        ),
        row(
            "header longer than the frame",
            ether(IPV6, ipv6(b"\x06\xff" + bytes(6), next_header=DESTINATION, length=4000)),
            dropped=False,
        ),
        row("header behind the frame's end", ether(IPV6, ipv6(next_header=DESTINATION, length=8)), dropped=False),
        row(
            "payload length 0, not a jumbogram",
            ether(IPV6, ipv6(tcp(dport=80), next_header=TCP, length=0)),
            dropped=False,
        ),
        row(
            "jumbogram with a failsafe port",
            ether(IPV6, ipv6(options(TCP) + tcp(dport=22), next_header=HOP_BY_HOP, length=0)),
            dropped=False,
        ),
        row(
            "jumbogram", ether(IPV6, ipv6(options(TCP) + tcp(dport=80), next_header=HOP_BY_HOP, length=0)), dropped=True
        ),
    ],
)
def test_extension_headers(program: Program, frame: bytes, entry: int | None) -> None:
    check(program, frame, dropped_by=entry)


# -- every length --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "shortest_drop"),
    [
        pytest.param(ether(IPV4, ipv4(tcp(), protocol=TCP)), 14 + 20 + 20, id="IPv4 TCP"),
        pytest.param(ether(IPV4, ipv4(udp(), protocol=UDP)), 14 + 20 + 8, id="IPv4 UDP"),
        pytest.param(ether(IPV4, ipv4(bytes(8))), 14 + 20, id="IPv4 ICMP"),
        pytest.param(ether(IPV6, ipv6(tcp(), next_header=TCP), (VLAN, 5)), 18 + 40 + 20, id="IPv6 TCP with a tag"),
        pytest.param(
            chain(HOP_BY_HOP, FRAGMENT, last=UDP, payload=udp()), 14 + 40 + 8 + 8 + 8, id="IPv6 UDP behind two headers"
        ),
    ],
)
def test_a_frame_cut_anywhere_passes_until_all_that_decides_is_there(
    program: Program, frame: bytes, shortest_drop: int
) -> None:
    verdicts = [program.run(frame[:length]) for length in range(14, len(frame) + 1)]
    expected = [XDP_DROP if length >= shortest_drop else XDP_PASS for length in range(14, len(frame) + 1)]
    assert verdicts == expected
