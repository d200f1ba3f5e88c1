"""reassemble: which fragments become a datagram (``inet_fragment.c``, ``ip_fragment.c``, ``nf_conntrack_reasm.c``).

A row is a list of fragments in order of arrival: (first byte, end, more fragments follow) and the result of each:
``whole``, or a word of the reason for which it is dropped.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from dossim.packet.fields import IPv4
from dossim.packet.fields import IPv6 as IPv6Header
from dossim.packet.parse import header_checksum_ok, parse
from dossim.pipeline.reassembly import Lost, Reassembly, Untouched, Whole, reassemble

# Addresses are set explicitly: otherwise Scapy searches a route and a neighbour for each packet.
MACS = {"src": "02:00:00:00:00:00", "dst": "06:00:00:00:00:01"}
DATA = bytes(range(256)) * 8
Piece = tuple[int, int, bool]


def four(start: int, end: int, more: bool, **fields: object) -> bytes:
    usual = {"src": "203.0.113.7", "dst": "10.10.10.10", "id": 1, "proto": 17, "flags": "MF" if more else ""}
    return bytes(Ether(**MACS) / IP(**usual | fields, frag=start // 8) / Raw(DATA[start:end]))


def six(start: int, end: int, more: bool, **fields: object) -> bytes:
    header = IPv6(**{"src": "2001:db8::7", "dst": "fd00::10"} | fields)
    fragment = IPv6ExtHdrFragment(id=1, nh=17, offset=start // 8, m=int(more))
    return bytes(Ether(**MACS) / header / fragment / Raw(DATA[start:end]))


def fates(frames: list[bytes]) -> list[Reassembly]:
    arrivals = [(number, parse(frame).ip) for number, frame in enumerate(frames)]
    found = reassemble((number, ip) for number, ip in arrivals if ip is not None)
    return [found[number] for number in range(len(frames))]


def word(fate: Reassembly) -> str:
    match fate:
        case Lost(reason):
            return reason
        case Whole():
            return "whole"
        case Untouched():
            return "untouched"


BOTH: list[tuple[str, list[Piece], list[str]]] = [
    ("in order", [(0, 24, True), (24, 48, False)], ["whole", "whole"]),
    ("last first", [(24, 48, False), (0, 24, True)], ["whole", "whole"]),
    ("a hole filled last", [(0, 8, True), (16, 24, False), (8, 16, True)], ["whole"] * 3),
    ("one missing", [(0, 8, True), (16, 24, False)], ["timeout"] * 2),
    ("no last", [(0, 8, True), (8, 16, True)], ["timeout"] * 2),
    ("the same twice", [(0, 24, True), (0, 24, True), (24, 48, False)], ["whole", "duplicate", "whole"]),
    ("part of what is there, within a run", [(0, 16, True), (16, 32, True), (8, 24, True), (32, 40, False)],
     ["whole", "whole", "duplicate", "whole"]),
    ("part of what is there, of two runs", [(16, 32, True), (0, 16, True), (8, 24, True)], ["overlap"] * 3),
    ("overlapping at the tail", [(0, 24, True), (16, 40, True), (40, 48, False)], ["overlap", "overlap", "timeout"]),
    ("overlapping in front", [(16, 32, True), (8, 24, True)], ["overlap"] * 2),
    ("a second datagram of the same id", [(0, 8, True), (8, 16, False), (0, 8, True), (8, 16, False)], ["whole"] * 4),
]  # fmt: skip


@pytest.mark.parametrize("build", [four, six], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("pieces", "expected"), [pytest.param(*row[1:], id=row[0]) for row in BOTH])
def test_fragments(build: object, pieces: list[Piece], expected: list[str]) -> None:
    assert callable(build)
    found = [word(fate) for fate in fates([build(*piece) for piece in pieces])]
    assert all(wanted in what for wanted, what in zip(expected, found, strict=True)), found


ENDS: list[tuple[str, list[Piece], list[str], list[str]]] = [
    ("two different ends", [(24, 48, False), (48, 56, False), (0, 24, True)],
     ["beyond the end", "beyond the end", "timeout"], ["whole", "beyond the end", "whole"]),
    ("data after the end", [(24, 48, False), (48, 56, True), (0, 24, True)],
     ["beyond the end", "beyond the end", "timeout"], ["whole", "beyond the end", "whole"]),
    ("an end before data that is there", [(0, 24, True), (8, 16, False)],
     ["beyond the end", "beyond the end"], ["timeout", "beyond the end"]),
    ("no data", [(0, 24, True), (24, 24, True)],
     ["without data", "without data"], ["timeout", "without data"]),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "for4", "for6"), [pytest.param(*row[1:], id=row[0]) for row in ENDS])
def test_a_contradiction_costs_ipv4_the_datagram_and_ipv6_the_fragment(
    pieces: list[Piece], for4: list[str], for6: list[str]
) -> None:
    for build, expected in ((four, for4), (six, for6)):
        found = [word(fate) for fate in fates([build(*piece) for piece in pieces])]
        assert all(wanted in what for wanted, what in zip(expected, found, strict=True)), found


def test_a_length_that_is_no_multiple_of_8_is_rounded_down_in_ipv4() -> None:
    first, last = fates([four(0, 29, True), four(24, 48, False)])
    assert isinstance(first, Whole)
    assert first is last
    assert isinstance(first.datagram, IPv4)
    assert first.datagram.payload == DATA[:48]


def test_a_length_that_is_no_multiple_of_8_is_left_to_the_stack_in_ipv6_and_ends_the_queue() -> None:
    assert [word(fate)[:9] for fate in fates([six(0, 24, True), six(24, 45, True)])] == ["IPv6 frag", "untouched"]


@pytest.mark.parametrize("same", [{"src": "203.0.113.8"}, {"dst": "10.10.10.11"}, {"id": 2}, {"proto": 6}])
def test_ipv4_fragments_of_different_datagrams_do_not_meet(same: dict[str, object]) -> None:
    assert {word(fate)[:10] for fate in fates([four(0, 24, True), four(24, 48, False, **same)])} == {"reassembly"}


def test_the_datagram_has_the_first_fragments_header_and_a_good_checksum() -> None:
    whole, _ = fates([four(24, 48, False, ttl=9), four(0, 24, True, ttl=7)])
    assert isinstance(whole, Whole)
    assert isinstance(whole.datagram, IPv4)
    assert (whole.datagram.ttl, whole.datagram.total_length, whole.datagram.is_fragment) == (7, 68, False)
    assert header_checksum_ok(whole.datagram)
    assert whole.parts == (0, 1)
    assert whole.largest == 44


@pytest.mark.parametrize(
    ("flags", "kept"),
    [(("MF+DF", "DF"), True), (("MF", ""), False), (("MF+DF", ""), True), (("MF", "DF"), False)],
    ids=["on all", "on none", "on the larger", "on the smaller"],
)
def test_dont_fragment_is_kept_when_the_largest_fragment_had_it(flags: tuple[str, str], kept: bool) -> None:
    whole, _ = fates([four(0, 24, True, flags=flags[0]), four(24, 40, False, flags=flags[1])])
    assert isinstance(whole, Whole)
    assert isinstance(whole.datagram, IPv4)
    assert whole.datagram.dont_fragment is kept


@pytest.mark.parametrize(("marks", "lost"), [((0, 0), False), ((1, 3), False), ((1, 2), False), ((0, 1), True)])
def test_fragments_with_and_without_ecn_do_not_go_together(marks: tuple[int, int], lost: bool) -> None:
    assert isinstance(fates([four(0, 8, True, tos=marks[0]), four(8, 16, False, tos=marks[1])])[0], Lost) is lost
    assert isinstance(fates([six(0, 8, True, tc=marks[0]), six(8, 16, False, tc=marks[1])])[0], Lost) is lost


def test_a_datagram_longer_than_65535_is_lost() -> None:
    """65,535 bytes of data fit the fragment offsets, but not the total length with a header."""
    pieces = [(at, at + 8192, True) for at in range(0, 57344, 8192)]
    frames = [long_fragment(*piece) for piece in (*pieces, (57344, 65528, True), (65528, 65535, False))]
    assert {word(fate) for fate in fates(frames)} == {"datagram too long"}


def long_fragment(start: int, end: int, more: bool) -> bytes:
    header = IP(src="203.0.113.7", dst="10.10.10.10", id=1, proto=17, flags="MF" if more else "", frag=start // 8)
    return bytes(Ether(**MACS) / header / Raw(bytes(end - start)))


def test_an_ipv6_fragment_beyond_65535_is_lost_alone() -> None:
    assert "65,535" in word(fates([six(65528, 65528, False, plen=16) + bytes(8)])[0])


def test_the_ipv6_datagram_loses_its_fragment_header_and_keeps_those_in_front() -> None:
    frames = [
        bytes(Ether(**MACS) / IPv6(src="2001:db8::7", dst="fd00::10") / IPv6ExtHdrDestOpt()
              / IPv6ExtHdrFragment(id=1, nh=17, offset=at // 8, m=more) / Raw(DATA[at:end]))
        for at, end, more in ((0, 24, 1), (24, 40, 0))
    ]  # fmt: skip
    whole = fates(frames)[0]
    assert isinstance(whole, Whole)
    assert isinstance(whole.datagram, IPv6Header)
    assert (whole.datagram.next_header, whole.datagram.payload_length, whole.transport_at) == (60, 48, 48)
    assert whole.datagram.buf[40] == 17, "the options header now announces UDP"
    assert whole.datagram.buf[48:] == DATA[:40]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(b"\x11\0\0\1\0\0\0\1" + bytes(4), "untouched", id="a first fragment without its UDP header"),
        pytest.param(b"\x11\0\0\1\0\0\0\1" + bytes(8), "reassembly", id="a first fragment with it"),
        pytest.param(b"\x11\0\0\x09\0\0", "IPv6 fragment header cut short", id="a later fragment's header cut short"),
        pytest.param(b"\x11\0\0\0\0\0\0\1" + bytes(8), "whole", id="an atomic fragment"),
    ],
)
def test_single_ipv6_fragments(payload: bytes, expected: str) -> None:
    frame = bytes(Ether(**MACS) / IPv6(src="2001:db8::7", dst="fd00::10", nh=44) / Raw(payload))
    assert word(fates([frame])[0]).startswith(expected)
