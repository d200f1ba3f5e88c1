"""The kernel's binary rules: what is written can be read back, and everything else stays opaque."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.backends.iptables.blob import KernelRule, SetIndex, counters_of, decode, encode, without_counters
from enforcer.backends.iptables.rules import (
    Comment,
    IcmpType,
    Jump,
    Limit,
    Log,
    MarkMatch,
    NoTrack,
    OpaqueRule,
    PortsMatch,
    Rule,
    SetMark,
    SetMatch,
    Verdict,
)
from enforcer.model.vocabulary import Side
from enforcer.policy.resources import PortRange

SETS = SetIndex({"enf4-a": 0, "enf4-b": 7})
HEADER_SIZE = {4: 112, 6: 168}  # sizeof(struct ipt_entry), sizeof(struct ip6t_entry)
COUNTERS_OFFSET = {4: 96, 6: 152}

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=15)
port_ranges = st.builds(
    lambda one, other: PortRange(min(one, other), max(one, other)), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)
)
matches = st.one_of(
    st.builds(SetMatch, st.sampled_from(["enf4-a", "enf4-b"]), st.sampled_from(Side), st.booleans(), st.booleans()),
    st.builds(Limit, st.integers(1, 864_000_000), st.integers(1, 9999)),
    st.builds(MarkMatch, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF)),
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
    """The form that libiptc returns: a standard target's name is no longer in the bytes, libiptc derives it."""
    name = rule.target.chain if isinstance(rule.target, Jump) else str(rule.target)
    if not isinstance(rule.target, Jump | Verdict):
        return KernelRule(blob, name)
    offset = struct.unpack_from("=H", blob, _target_offset_at(blob))[0]
    return KernelRule(blob[: offset + 2] + bytes(29) + blob[offset + 31 :], name)


def _target_offset_at(blob: bytes) -> int:
    """The offset of target_offset: the header field that points to a target ending at the end of the blob."""
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


def test_an_inverted_mark_is_opaque() -> None:
    rule = Rule(Verdict.ACCEPT, matches=(MarkMatch(1, 1),))
    blob = encode(rule, 4, SETS)
    inverted = blob[:152] + b"\x01" + blob[153:]  # after the header, the extension's 32 bytes, mark and mask
    assert decode(as_read(blob, rule), 4, SETS) == rule
    assert isinstance(decode(as_read(inverted, rule), 4, SETS), OpaqueRule)


def test_a_set_matched_on_source_address_and_destination_port_is_opaque() -> None:
    rule = Rule(Verdict.DROP, matches=(SetMatch("enf4-b", Side.SOURCE, port=True),))
    blob = encode(rule, 4, SETS)
    assert blob[144:148] == struct.pack("=HBB", 7, 2, 0x06)  # index, dimensions, flags
    mixed = blob[:147] + b"\x02" + blob[148:]
    assert isinstance(decode(as_read(mixed, rule), 4, SETS), OpaqueRule)


def test_a_set_without_a_name_is_opaque_and_an_unknown_one_cannot_be_written() -> None:
    rule = Rule(Verdict.DROP, matches=(SetMatch("enf4-b", Side.SOURCE),))
    read = as_read(encode(rule, 4, SETS), rule)
    assert isinstance(decode(read, 4, SetIndex({"enf4-a": 0})), OpaqueRule)
    with pytest.raises(KeyError):
        encode(rule, 4, SetIndex({}))


def test_a_rule_names_the_set_that_has_the_index_now() -> None:
    """The kernel gives the index of a set that is gone to a new one, and two sets may be swapped."""
    rule = Rule(Verdict.DROP, matches=(SetMatch("enf4-b", Side.SOURCE),))
    read = as_read(encode(rule, 4, SETS), rule)
    for numbers, name in (({"enf4-b": 7}, "enf4-b"), ({"enf4-c": 7}, "enf4-c"), ({"enf4-b": 7}, "enf4-b")):
        assert decode(read, 4, SetIndex(numbers)) == Rule(Verdict.DROP, matches=(SetMatch(name, Side.SOURCE),))


def test_garbage_after_a_name_is_not_looked_at() -> None:
    """The kernel copies names up to the NUL; the rest of libiptc's buffer keeps its previous content."""
    rule = Rule(Verdict.DROP, matches=(Comment("x"),))
    blob = encode(rule, 4, SETS)
    dirty = blob[:124] + b"leftover" + blob[132:]
    assert decode(as_read(dirty, rule), 4, SETS) == rule


def test_header_sizes_are_the_kernels() -> None:
    for version, size in HEADER_SIZE.items():
        standard_target = 40
        assert len(encode(Rule(Verdict.DROP), version, SETS)) == size + standard_target
