"""The XDP program after the IP header: failsafe ports, fragments, extension headers, truncated frames.

The policy is that of tests/bpf/test_xdp_untracked.py.
"""

from __future__ import annotations

import pytest

from enforcer.model.nets import Nets
from enforcer.policy.resources import Failsafe
from tests.bpf.xdp_frames import (
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    NONE,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    UNLISTED4,
    VLAN,
    chain,
    ether,
    fragment6,
    ipv4,
    ipv6,
    options,
    sctp,
    tcp,
    udp,
)
from tests.bpf.xdp_program import LISTS, XDP_DROP, XDP_PASS, Program, check, loaded, row, table_of

pytestmark = pytest.mark.needs_root

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


def test_a_failsafe_restricted_to_a_net_passes_its_sources_alone() -> None:
    for net, dropped_by in (("10.0.0.0/8", 0), ("203.0.113.0/25", None)):
        restricted = Failsafe(TCP, 22, next(iter(Nets.of([net]))))
        for program in loaded(table_of(*LISTS, inbound=(restricted,), outbound=())):
            check(program, ether(IPV4, ipv4(tcp(dport=22), protocol=TCP)), dropped_by=dropped_by)


def test_an_sctp_failsafe_passes() -> None:
    for program in loaded(table_of(*LISTS, inbound=(Failsafe(SCTP, 22),), outbound=())):
        check(program, ether(IPV4, ipv4(sctp(dport=22), protocol=SCTP)), dropped_by=None)
        check(program, ether(IPV4, ipv4(sctp(dport=22)[:11], protocol=SCTP)), dropped_by=None)
        check(program, ether(IPV4, ipv4(sctp(dport=23), protocol=SCTP)), dropped_by=0)


def test_ports_are_read_only_within_the_packet_by_its_ip_header(program: Program) -> None:
    """Padding follows, which raw does not see: for raw, the header is truncated."""
    check(program, ether(IPV4, ipv4(tcp(dport=80), protocol=TCP, total=39)), dropped_by=None)
    check(program, ether(IPV6, ipv6(tcp(dport=80), next_header=TCP, length=19)), dropped_by=None)
    check(program, ether(IPV4, ipv4(tcp(dport=80), protocol=TCP, total=40)), dropped_by=0)


def test_ports_are_found_after_ip_options(program: Program) -> None:
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
            "v6 later, says ICMPv6: it may be TCP",
            ether(IPV6, ipv6(fragment6(ICMPV6, offset=1) + bytes(8), next_header=FRAGMENT)),
            dropped=False,
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
def test_without_failsafes_unknown_ports_do_not_matter(without_failsafes: Program, frame: bytes) -> None:
    check(without_failsafes, frame, dropped_by=0)


# -- extension headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT])
def test_ports_are_found_after_each_kind_of_extension_header(program: Program, kind: int) -> None:
    check(program, chain(kind, payload=tcp(dport=22)), dropped_by=None)
    check(program, chain(kind, payload=tcp(dport=80)), dropped_by=0)


def test_after_an_authentication_header_nothing_is_known(program: Program) -> None:
    """iptables skips the header, nftables does not."""
    check(program, chain(AUTHENTICATION, payload=tcp(dport=80)), dropped_by=None)


def test_eight_extension_headers_are_parsed_and_nine_are_indeterminate(program: Program) -> None:
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
        row("header after the frame's end", ether(IPV6, ipv6(next_header=DESTINATION, length=8)), dropped=False),
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
        pytest.param(ether(IPV6, ipv6(tcp(), next_header=TCP), (VLAN, 0)), 18 + 40 + 20, id="IPv6 TCP, priority tag"),
        pytest.param(
            chain(HOP_BY_HOP, FRAGMENT, last=UDP, payload=udp()), 14 + 40 + 8 + 8 + 8, id="IPv6 UDP after two headers"
        ),
    ],
)
def test_a_frame_cut_anywhere_passes_until_all_that_decides_is_there(
    program: Program, frame: bytes, shortest_drop: int
) -> None:
    verdicts = [program.run(frame[:length]) for length in range(14, len(frame) + 1)]
    expected = [XDP_DROP if length >= shortest_drop else XDP_PASS for length in range(14, len(frame) + 1)]
    assert verdicts == expected
