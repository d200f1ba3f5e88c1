"""Blocks never overlap, are aligned to their size, and are reused only after their release."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.backends.xdp.tables.allocator import Allocator
from enforcer.backends.xdp.tables.format import NotOurs
from enforcer.backends.xdp.tables.room import Blocks, Fresh, Full, power_of_two


def sizes(*units: int) -> npt.NDArray[np.int64]:
    return np.array(units, np.int64)


def blocks(*pairs: tuple[int, int]) -> Blocks:
    return Blocks(sizes(*(offset for offset, _ in pairs)), sizes(*(units for _, units in pairs)))


def test_an_empty_array_is_given_out_to_the_last_unit_and_no_further() -> None:
    room = Allocator("lists4", 7)
    assert sorted(room.take(sizes(4, 2, 1)).tolist()) == [0, 4, 6]
    with pytest.raises(Full, match="lists4: no room for 1 of its 7 units"):
        room.take(sizes(1))


def test_when_one_of_several_does_not_fit_none_is_taken() -> None:
    room = Allocator("lists4", 8)
    with pytest.raises(Full):
        room.take(sizes(2, 4, 4))
    assert room.free_units == 8
    assert room.take(sizes(8)).tolist() == [0]


def test_freed_blocks_wait_for_release_and_join_again() -> None:
    room = Allocator("lists4", 8)
    offsets = room.take(sizes(*[1] * 8))
    room.free(Blocks(offsets, sizes(*[1] * 8)))
    with pytest.raises(Full):
        room.take(sizes(1))
    room.release()
    assert room.take(sizes(8)).tolist() == [0]


def test_blocks_given_back_are_free_at_once() -> None:
    room = Allocator("lists4", 4)
    room.give_back(Blocks(room.take(sizes(4)), sizes(4)))
    assert room.free_units == 4


def test_a_restart_finds_what_is_not_used() -> None:
    room = Allocator("lists4", 16, [blocks((4, 4)), blocks((1, 1), (8, 2))])
    assert room.free_units == 16 - 7
    assert sorted(room.take(sizes(4, 2, 2, 1)).tolist()) == [0, 2, 10, 12]


@pytest.mark.parametrize(
    ("used", "why"), [(((0, 4), (2, 2)), "overlap"), (((14, 4),), "outside"), (((0, 1),) * 2, "twice")]
)
def test_blocks_that_cannot_be_are_refused(used: tuple[tuple[int, int], ...], why: str) -> None:
    with pytest.raises(NotOurs):
        Allocator("lists4", 16, [blocks(*used)])


@given(st.integers(1, 300), st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_any_sequence_keeps_blocks_apart_and_a_restart_knows_the_same(
    capacity: int, steps: list[tuple[bool, int]]
) -> None:
    room = Allocator("x", capacity)
    held: list[tuple[int, int]] = []
    for takes, number in steps:
        if takes:
            try:
                held.append((int(room.take(sizes(1 << number))[0]), 1 << number))
            except Full:
                assert Allocator("x", capacity, [blocks(*held)]).free_units == room.free_units
        elif held:
            room.free(blocks(held.pop(number % len(held))))
            room.release()
        cells = [cell for offset, units in held for cell in range(offset, offset + units)]
        assert len(set(cells)) == len(cells)
        assert all(0 <= cell < capacity for cell in cells)
        assert all(offset % units == 0 for offset, units in held)
        assert room.free_units == capacity - len(cells)
    for offset, units in held:
        room.give_back(blocks((offset, units)))
    largest = 1 << capacity.bit_length() - 1
    assert room.take(sizes(largest)).tolist() == [0]


def test_fresh_room_lies_largest_first_and_aligned() -> None:
    room = Fresh()
    assert room.take(sizes(1, 4, 2, 1)).tolist() == [6, 0, 4, 7]
    assert room.take(sizes(4, 1)).tolist() == [8, 12]
    assert room.used == 13
    assert room.take(sizes()).tolist() == []


def test_powers_of_two() -> None:
    assert power_of_two(sizes(1, 2, 3, 4, 5, 1 << 40, (1 << 40) + 1)).tolist() == [1, 2, 4, 4, 8, 1 << 40, 1 << 41]
