"""Ranges against sets of numbers: every operation, on both families' representation."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dossim.lint.ranges import Ranges, numbers
from enforcer.model.nets import Nets

BASE = {4: int(ip_network("10.0.0.0/27").network_address), 6: int(ip_network("fd00::/123").network_address)}
SPACE = range(32)


@st.composite
def few_nets(draw: st.DrawFn, version: int) -> list[tuple[int, int]]:
    """(offset, length in bits from the right) of nets within 32 addresses."""
    sizes = draw(st.lists(st.integers(0, 5), max_size=5))
    return [(draw(st.sampled_from(range(0, 32, 1 << size))), size) for size in sizes]


def build(version: int, nets: list[tuple[int, int]]) -> tuple[Ranges, set[int]]:
    bits = 32 if version == 4 else 128
    kind = ip_network(0).__class__ if version == 4 else ip_network("::/0").__class__
    found = Nets.of(kind((BASE[version] + at, bits - size)) for at, size in nets)
    return Ranges.of(found, version), {at + step for at, size in nets for step in range(1 << size)}


def members(ranges: Ranges) -> set[int]:
    held = ranges.holds(numbers(ranges.version, (BASE[ranges.version] + at for at in SPACE)))
    return {at for at in SPACE if held[at]}


@pytest.mark.parametrize("version", [4, 6])
@given(st.data())
def test_operations_are_those_of_sets(version: int, data: st.DataObject) -> None:
    one, some = build(version, data.draw(few_nets(version)))
    other, more = build(version, data.draw(few_nets(version)))
    assert members(one) == some
    assert members(one & other) == some & more
    assert members(one - other) == some - more
    assert (one <= other) == (some <= more)
    assert one.meets(other) == bool(some & more)
    assert bool(one) == bool(some)
    assert members(one.complement()) == set(SPACE) - some
    assert (one - other) <= one


@pytest.mark.parametrize("version", [4, 6])
def test_the_ends_of_a_family(version: int) -> None:
    full, empty = Ranges.full(version), Ranges.empty(version)
    assert full.is_full
    assert not full.complement()
    assert empty.complement().is_full
    assert empty <= full
    assert not full <= empty
    assert not full - full
    assert (full - Ranges.single(version, 0)).complement() <= Ranges.single(version, 0)


def test_halves_that_touch_are_one_whole() -> None:
    halves = Ranges.of([ip_network("0.0.0.0/1"), ip_network("128.0.0.0/1")], 4)
    assert halves.is_full
    assert Ranges.of([ip_network("10.0.0.0/24")], 4) <= Ranges.of(
        [ip_network("10.0.0.0/25"), ip_network("10.0.0.128/25")], 4
    )
