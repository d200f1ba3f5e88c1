"""Members of sets: the kernel's bytes are read as they were written; members with further attributes are foreign."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.backends.iptables.members import members_of, none_of, pack, parse, port_members_of
from enforcer.backends.iptables.rules import (
    PortMember,
    SetType,
)
from enforcer.backends.netfilter.members import difference, intersection, union
from enforcer.model.nets import Nets


def networks(version: int):
    bits, kind = (32, IPv4Network) if version == 4 else (128, IPv6Network)
    return st.builds(
        lambda value, length: kind((value >> (bits - length) << (bits - length), length)),
        st.integers(0, (1 << bits) - 1),
        st.integers(1, bits),
    )


cidrs = {4: networks(4).map(str), 6: networks(6).map(str)}


@pytest.mark.parametrize("version", [4, 6])
@given(data=st.data())
def test_members_are_read_as_they_were_written(version: int, data: st.DataObject) -> None:
    members = members_of(Nets.of(data.draw(st.lists(cidrs[version], max_size=30))), version)
    packed = list(pack(members, version))
    parsed = [parse(piece, version) for piece in packed]
    assert all(piece is not None for piece in parsed)
    assert np.array_equal(np.concatenate([none_of(version), *parsed]), members)


def addresses(version: int):
    return st.builds(
        IPv4Address if version == 4 else IPv6Address, st.integers(0, (1 << (32 if version == 4 else 128)) - 1)
    )


def port_members(*versions: int):
    address = st.one_of([addresses(version) for version in versions])
    return st.lists(st.builds(PortMember, address, st.sampled_from([6, 17, 132]), st.integers(0, 0xFFFF)), max_size=30)


@pytest.mark.parametrize("version", [4, 6])
@given(data=st.data())
def test_addresses_with_ports_are_read_as_they_were_written(version: int, data: st.DataObject) -> None:
    given_members = data.draw(port_members(4, 6))
    members = port_members_of(given_members, version)
    assert len(members) == len({item for item in given_members if item.address.version == version})
    parsed = [parse(piece, version, SetType.IP_PORT) for piece in pack(members, version, SetType.IP_PORT)]
    assert np.array_equal(np.concatenate([none_of(version, SetType.IP_PORT), *parsed]), members)
    assert len(members) == 0 or all(parse(piece, version) is None for piece in pack(members, version, SetType.IP_PORT))


def test_nothing_read_is_nothing_of_either_type() -> None:
    """The type of members cannot be read from an empty set."""
    members = port_members_of([PortMember(IPv4Address("10.0.0.1"), 6, 80)], 4)
    assert np.array_equal(union(none_of(4), members), members)
    assert np.array_equal(difference(members, none_of(4)), members)
    assert not len(intersection(members, none_of(4)))
    assert not len(difference(none_of(4), members))


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
