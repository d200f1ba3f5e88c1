"""The kernel's bytes of rules and of set members: what is written is what is read, and all else is left opaque."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.backends.iptables.blob import KernelRule, SetIndex, counters_of, decode, encode, without_counters
from enforcer.backends.iptables.members import difference, members_of, none_of, pack, parse
from enforcer.backends.iptables.rules import (
    Comment,
    IcmpType,
    Jump,
    Log,
    NoTrack,
    OpaqueRule,
    PortsMatch,
    Rule,
    SetMark,
    SetMatch,
    Side,
    Verdict,
)
from enforcer.policy.nets import Nets
from enforcer.policy.resources import PortRange

SETS = SetIndex({"enf4-a": 0, "enf4-b": 7})
HEADER_SIZE = {4: 112, 6: 168}  # sizeof(struct ipt_entry), sizeof(struct ip6t_entry)
COUNTERS_OFFSET = {4: 96, 6: 152}

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=15)
port_ranges = st.builds(
    lambda one, other: PortRange(min(one, other), max(one, other)), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)
)
matches = st.one_of(
    st.builds(SetMatch, st.sampled_from(["enf4-a", "enf4-b"]), st.sampled_from(Side), st.booleans()),
    st.builds(
        PortsMatch, st.sampled_from(Side), st.lists(port_ranges, min_size=1, max_size=7).map(tuple), st.booleans()
    ),
    st.builds(IcmpType, st.integers(0, 254), st.none() | st.integers(0, 255), st.booleans()),
    st.builds(Comment, st.text("gnp/edge ingress[0]\"'\\", max_size=255)),
)
targets = st.one_of(
    st.sampled_from(Verdict),
    st.builds(Jump, names.map("enf-{}".format), st.booleans()),
    st.builds(SetMark, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF)),
    st.just(NoTrack()),
    st.builds(Log, st.text("abc: ", max_size=29), st.integers(0, 7)),
)


def networks(version: int):
    bits, kind = (32, IPv4Network) if version == 4 else (128, IPv6Network)
    return st.builds(
        lambda value, length: kind((value >> (bits - length) << (bits - length), length)),
        st.integers(0, (1 << bits) - 1),
        st.integers(1, bits),
    )


@st.composite
def rules(draw: st.DrawFn, version: int) -> Rule:
    source, destination = draw(st.none() | networks(version)), draw(st.none() | networks(version))
    protocol = draw(st.none() | st.integers(1, 255))
    return Rule(
        draw(targets),
        in_interface=draw(st.just("") | names),
        out_interface=draw(st.just("") | names),
        source=source,
        not_source=source is not None and draw(st.booleans()),
        destination=destination,
        not_destination=destination is not None and draw(st.booleans()),
        protocol=protocol,
        not_protocol=protocol is not None and draw(st.booleans()),
        matches=draw(st.lists(matches, max_size=4).map(tuple)),
    )


def as_read(blob: bytes, rule: Rule) -> KernelRule:
    """What libiptc hands out for it: a standard target has no name of its own any more, only the one libiptc finds."""
    name = rule.target.chain if isinstance(rule.target, Jump) else str(rule.target)
    if not isinstance(rule.target, Jump | Verdict):
        return KernelRule(blob, name)
    offset = struct.unpack_from("=H", blob, _target_offset_at(blob))[0]
    return KernelRule(blob[: offset + 2] + bytes(29) + blob[offset + 31 :], name)


def _target_offset_at(blob: bytes) -> int:
    """Where target_offset is: the header whose size leads to a target that ends the blob."""
    for at in (88, 140):
        target, end = struct.unpack_from("=HH", blob, at)
        if end == len(blob) and HEADER_SIZE[4 if at == 88 else 6] <= target < end:
            return at
    raise AssertionError("no header of either family")


@pytest.mark.parametrize("version", [4, 6])
@given(data=st.data())
def test_a_rule_is_read_as_it_was_written(version: int, data: st.DataObject) -> None:
    rule = data.draw(rules(version))
    blob = encode(rule, version, SETS)
    assert len(blob) % 8 == 0
    assert decode(as_read(blob, rule), version, SETS) == rule


@pytest.mark.parametrize("version", [4, 6])
def test_counters_are_no_part_of_the_rule(version: int) -> None:
    rule = Rule(Verdict.DROP, protocol=253)
    blob = bytearray(encode(rule, version, SETS))
    struct.pack_into("=QQ", blob, COUNTERS_OFFSET[version], 3, 180)
    assert counters_of(bytes(blob), version) == (3, 180)
    assert without_counters(bytes(blob), version) == encode(rule, version, SETS)
    assert decode(as_read(bytes(blob), rule), version, SETS) == rule


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        pytest.param(82, b"\x01", "-f: only fragments", id="a flag we never set"),
        pytest.param(83, b"\x04", "! --tos", id="an inversion we never set"),
        pytest.param(10, b"\xff", "mask 255.0.255.0", id="a mask that is no prefix"),
        pytest.param(48, b"\xff\xff\xff\x00", "-i eth+", id="an interface prefix"),
    ],
)
def test_a_header_we_cannot_say_is_opaque(offset: int, value: bytes, why: str) -> None:
    rule = Rule(Verdict.DROP, in_interface="eth0", source=IPv4Network("10.0.0.0/8"))
    read = as_read(encode(rule, 4, SETS), rule)
    assert decode(read, 4, SETS) == rule
    changed = KernelRule(read.blob[:offset] + value + read.blob[offset + len(value) :], read.target)
    assert isinstance(decode(changed, 4, SETS), OpaqueRule), why


@pytest.mark.parametrize(
    ("name", "why"),
    [(b"owner", "an extension of somebody else"), (b"", "no name at all")],
)
def test_a_match_we_do_not_know_is_opaque(name: bytes, why: str) -> None:
    rule = Rule(Verdict.DROP, matches=(Comment("x"),))
    blob = encode(rule, 4, SETS)
    changed = blob[:114] + name.ljust(29, b"\0") + blob[143:]
    assert isinstance(decode(as_read(changed, rule), 4, SETS), OpaqueRule), why


def test_a_set_without_a_name_is_opaque_and_an_unknown_one_cannot_be_written() -> None:
    rule = Rule(Verdict.DROP, matches=(SetMatch("enf4-b", Side.SOURCE),))
    read = as_read(encode(rule, 4, SETS), rule)
    assert isinstance(decode(read, 4, SetIndex({"enf4-a": 0})), OpaqueRule)
    with pytest.raises(KeyError):
        encode(rule, 4, SetIndex({}))


def test_garbage_after_a_name_is_not_looked_at() -> None:
    """The kernel copies names up to the NUL; libiptc's buffer keeps what was there before."""
    rule = Rule(Verdict.DROP, matches=(Comment("x"),))
    blob = encode(rule, 4, SETS)
    dirty = blob[:124] + b"leftover" + blob[132:]
    assert decode(as_read(dirty, rule), 4, SETS) == rule


def test_header_sizes_are_the_kernels() -> None:
    for version, size in HEADER_SIZE.items():
        standard_target = 40
        assert len(encode(Rule(Verdict.DROP), version, SETS)) == size + standard_target


# --- members of sets ------------------------------------------------------------------------------

cidrs = {4: networks(4).map(str), 6: networks(6).map(str)}


@pytest.mark.parametrize("version", [4, 6])
@given(data=st.data())
def test_members_are_read_as_they_were_written(version: int, data: st.DataObject) -> None:
    members = members_of(Nets.of(data.draw(st.lists(cidrs[version], max_size=30))), version)
    packed = list(pack(members, version))
    parsed = [parse(piece, version) for piece in packed]
    assert all(piece is not None for piece in parsed)
    assert np.array_equal(np.concatenate([none_of(version), *parsed]), members)


def test_a_message_holds_no_more_than_an_attribute_can() -> None:
    nets = Nets(np.arange(10_000, dtype=np.uint32), np.full(10_000, 32, np.uint8))
    pieces = list(pack(members_of(nets, 4), 4))
    assert len(pieces) > 1
    assert all(len(piece) < 1 << 16 for piece in pieces)


@pytest.mark.parametrize(
    ("version", "everything", "halves"),
    [(4, "0.0.0.0/0", ["0.0.0.0/1", "128.0.0.0/1"]), (6, "::/0", ["::/1", "8000::/1"])],
)
def test_everything_is_stored_as_its_halves(version: int, everything: str, halves: list[str]) -> None:
    assert np.array_equal(members_of(Nets.of([everything]), version), members_of(Nets.of(halves), version))


def test_members_of_the_other_family_are_left_out() -> None:
    nets = Nets.of(["10.0.0.0/8", "2001:db8::/32"])
    assert [len(members_of(nets, version)) for version in (4, 6)] == [1, 1]


def test_a_member_with_an_option_is_not_a_plain_prefix() -> None:
    (piece,) = pack(members_of(Nets.of(["10.0.0.0/8"]), 4), 4)
    flags = struct.pack("=HHI", 8, 8 | 0x4000, 0x04000000)  # IPSET_ATTR_CADT_FLAGS: nomatch
    with_flags = struct.pack("=HH", len(piece) + len(flags), 7 | 0x8000) + piece[4:] + flags
    assert parse(with_flags, 4) is None
    assert parse(piece + with_flags, 4) is None


def test_difference() -> None:
    left, right = (members_of(Nets.of(cidrs), 4) for cidrs in (["10.0.0.0/8", "10.0.0.0/9"], ["10.0.0.0/9"]))
    assert np.array_equal(difference(left, right), members_of(Nets.of(["10.0.0.0/8"]), 4))
    assert not len(difference(right, left))
