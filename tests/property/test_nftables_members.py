"""A set while its members change: it always holds what old and new members share, which is not touched."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.backends.netfilter.members import difference
from enforcer.backends.nftables.members import between, none_of, port_members
from enforcer.backends.nftables.rules import NAMED_PORTS, PORTS, Members
from enforcer.policy.resources import PortRange

# Few ports, including the last one, so that intervals touch, overlap and reach the end.
FIRST, LAST = 65_520, 65_535


@st.composite
def intervals(draw: st.DrawFn) -> Members:
    """Disjoint intervals, some of which touch."""
    edges = draw(st.lists(st.integers(FIRST, LAST + 1), unique=True, max_size=8).map(sorted))
    wanted = draw(st.lists(st.booleans(), min_size=len(edges), max_size=len(edges)))
    pairs = [pair for pair, take in zip(pairwise(edges), wanted, strict=False) if take]
    parts = [port_members([PortRange(first, behind - 1)]) for first, behind in pairs]
    return np.unique(np.concatenate([none_of(PORTS), *parts]))


def ports_of(members: Members) -> set[int]:
    found: list[int] = []
    for record in members.tolist():
        first, behind = (int.from_bytes(record.ljust(4, b"\0")[at : at + 2], "big") for at in (0, 2))
        found += range(first, behind or LAST + 1)
    assert len(found) == len(set(found)), "intervals overlap"
    return set(found)


@given(intervals(), intervals(), st.booleans())
def test_intervals(present: Members, wanted: Members, lenient: bool) -> None:
    found = between(present, wanted, PORTS, lenient=lenient)
    one, other = ports_of(present), ports_of(wanted)
    assert ports_of(found) == (one & other if lenient else one | other)
    assert (np.sort(found) == found).all()
    kept = np.intersect1d(present, wanted)
    assert len(difference(kept, found)) == 0


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.booleans())
def test_single_keys(one: set[int], other: set[int], lenient: bool) -> None:
    kind = NAMED_PORTS[4]

    def keys(numbers: set[int]) -> Members:
        return np.array(sorted(bytes([10, 0, 0, number]) + bytes(8) for number in numbers), none_of(kind).dtype)

    found = between(keys(one), keys(other), kind, lenient=lenient)
    assert found.tolist() == keys(one & other if lenient else one | other).tolist()


@pytest.mark.parametrize("lenient", [False, True])
def test_what_is_added_or_deleted_alone_takes_one_step(lenient: bool) -> None:
    fewer, more = port_members([PortRange(1, 5)]), port_members([PortRange(1, 5), PortRange(9, 9)])
    assert between(fewer, more, PORTS, lenient=lenient).tolist() == (fewer if lenient else more).tolist()
    assert between(more, fewer, PORTS, lenient=lenient).tolist() == (fewer if lenient else more).tolist()
