"""The XDP program, one frame at a time through BPF_PROG_TEST_RUN: the verdict, and the counter that shows its cause.

A row is a frame and whether it is dropped. The policy is always the same: entry 0 lists 203.0.113.0/24 and
2001:db8:bad::/48, entry 1 203.0.113.128/25 (covered by entry 0, which comes first) and 198.51.100.0/24; failsafes are
TCP to 22 and UDP from 53. Rows with the words of docs/packet-fates.md test its XDP column.
"""

from __future__ import annotations

import platform

import pytest

from enforcer.kernel.bpf import programs
from enforcer.model.errors import KernelError
from tests.bpf.xdp_frames import (
    ARP,
    GROUP,
    HOP_BY_HOP,
    IPV4,
    IPV6,
    LISTED6,
    OTHER,
    OWN,
    QINQ,
    UNLISTED4,
    UNLISTED6,
    VLAN,
    ether,
    ipv4,
    ipv6,
)
from tests.bpf.xdp_program import XDP_DROP, XDP_PASS, Program, check, loaded, row, table_of

pytestmark = pytest.mark.needs_root

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
        (ether(IPV4, ipv4(bytes(6)) + bytes(20)), 26),  # padding of short frames is not part of the packet
        (ether(IPV4, ipv4(bytes(6), total=1500)), 26),  # missing bytes do not count
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
        row("VLAN tag, id not 0", ether(IPV4, PACKET, (VLAN, 5)), dropped=False),
        row("priority bits only", ether(IPV4, PACKET, (VLAN, 0xE000)), dropped=True),
        row("two tags, id 0", ether(IPV4, PACKET, (QINQ, 0), (VLAN, 0)), dropped=True),
        row("two tags, IPv6, id 0", ether(IPV6, ipv6(), (VLAN, 0), (VLAN, 0xE000)), dropped=True),
        row("a VLAN's after id 0", ether(IPV4, PACKET, (QINQ, 0), (VLAN, 5)), dropped=False),
        row("a VLAN's in a VLAN", ether(IPV4, PACKET, (QINQ, 5), (VLAN, 0)), dropped=False),
        row("three tags", ether(IPV4, PACKET, (QINQ, 0), (VLAN, 0), (VLAN, 0)), dropped=False),
        row("tag cut short", ether(IPV4, PACKET, (VLAN, 5))[:16], dropped=False),
        row("a tag, an unlisted source", ether(IPV4, ipv4(source=UNLISTED4), (VLAN, 5)), dropped=False),
    ],
)
def test_layer_2(program: Program, frame: bytes, entry: int | None) -> None:
    check(program, frame, dropped_by=entry)


@pytest.mark.parametrize(
    ("destination", "verdict"), [(OWN, XDP_DROP), (OTHER, XDP_PASS), (GROUP, XDP_DROP), (b"\xff" * 6, XDP_DROP)]
)
def test_a_frame_for_another_interface_passes(program: Program, destination: bytes, verdict: int) -> None:
    """One frame for each byte of the address: raw sees none of them."""
    assert program.run_as_it_is(destination + ether(IPV4, PACKET)[6:]) == verdict
    for at in range(6):
        other = bytes(byte ^ 2 * (number == at) for number, byte in enumerate(OWN))
        assert program.run_as_it_is(other + ether(IPV4, PACKET)[6:]) == XDP_PASS


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


@pytest.mark.skipif(platform.release().startswith("5."), reason="BPF_PROG_TEST_RUN took them before Linux 6")
@pytest.mark.parametrize("length", range(14))
def test_a_frame_shorter_than_an_ethernet_header_cannot_be_sent(program: Program, length: int) -> None:
    """The first row of docs/packet-fates.md: the kernel refuses to create one (bpf_test_init, net/bpf/test_run.c)."""
    with pytest.raises(KernelError, match="EINVAL"):
        programs.test_run(program.fd, bytes(length))
