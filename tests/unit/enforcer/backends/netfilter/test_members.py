"""Operations on sorted members of every width are those of Python's sets."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.backends.netfilter.members import difference, differences, intersection, ordered, union


@st.composite
def two_sets(draw: st.DrawFn) -> tuple[int, set[bytes], set[bytes]]:
    width = draw(st.sampled_from([4, 5, 7, 8, 17, 32]))
    some = st.sampled_from([b"\0" * width, b"\0" * (width - 1) + b"\1", b"\1" + b"\0" * (width - 1), b"\xff" * width])
    one = st.sets(st.one_of(some, st.binary(min_size=width, max_size=width)), max_size=12)
    return width, draw(one), draw(one)


@given(two_sets())
def test_operations_on_members(sets: tuple[int, set[bytes], set[bytes]]) -> None:
    width, left, right = sets
    one, other = (ordered(np.array([*items, *items], f"S{width}")) for items in (left, right))
    for found, wanted in (
        (one, left),
        (difference(one, other), left - right),
        (differences(one, other)[0], left - right),
        (differences(one, other)[1], right - left),
        (intersection(one, other), left & right),
        (union(one, other), left | right),
    ):
        assert found.dtype == np.dtype(f"S{width}")
        assert [bytes(item).ljust(width, b"\0") for item in found.tolist()] == sorted(wanted)


@pytest.mark.parametrize("width", [5, 17], ids=["as numbers", "as strings"])
@pytest.mark.parametrize("more", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("fewer", [0, 1, 63, 64, 200])
def test_many_members_that_differ_in_some(width: int, more: int, fewer: int) -> None:
    rng = random.Random(width * more + fewer)
    every = [rng.randrange(1 << 32).to_bytes(width, "big") for _ in range(5000 + more)]
    left, right = set(every[fewer:]), set(every[: len(every) - more])
    one, other = (ordered(np.array(list(items), f"S{width}")) for items in (left, right))
    for found, wanted in (
        (difference(one, other), left - right),
        (difference(other, one), right - left),
        (differences(one, other)[0], left - right),
        (differences(one, other)[1], right - left),
        (intersection(one, other), left & right),
        (union(one, other), left | right),
        (union(difference(one, other), other), left | right),
        (difference(one, difference(one, other)), left & right),
    ):
        assert found.dtype == np.dtype(f"S{width}")
        assert [bytes(item).ljust(width, b"\0") for item in found.tolist()] == sorted(wanted)


@pytest.mark.parametrize("width", [5, 17], ids=["as numbers", "as strings"])
def test_no_members(width: int) -> None:
    none, some = np.empty(0, f"S{width}"), np.array([b"a", b"b"], f"S{width}")
    assert ordered(none).dtype == none.dtype
    assert union(none, some).tolist() == some.tolist()
    assert not len(difference(none, some))
    assert not len(intersection(some, none))
