"""The engine's cover of sources is the cheapest there is: compared with all sets of prefixes of small tries."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dossim.engine.cover import EVERYTHING, NEVER, Cover, Group, Prefix
from tests.support.examples import examples

BITS = 3
PREFIXES = [(value << (BITS - length), length) for length in range(BITS + 1) for value in range(1 << length)]
COSTS = st.lists(st.integers(0, 9), min_size=1 << BITS, max_size=1 << BITS)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """Of keys of three bits; many costs are 0 or the same."""
    attack, collateral = np.array(draw(COSTS)), np.array(draw(COSTS))
    keys = np.flatnonzero(draw(st.lists(st.booleans(), min_size=8, max_size=8)))
    protected = np.array(draw(st.lists(st.integers(0, 4), min_size=8, max_size=8))) == 0
    collateral = np.where(protected & draw(st.booleans()), NEVER, collateral)
    space = draw(st.sampled_from([0, 0, 8, 20, 100]))
    widest = draw(st.sampled_from([0, 0, 0, 1, 2, BITS]))
    most = draw(st.sampled_from([NEVER, NEVER, 0, 5, 12]))
    keys64 = keys.astype(np.uint64) << np.uint64(64 - BITS)
    everything = draw(st.sampled_from([NEVER, NEVER, -1, 3, 20]))
    return Group(keys64, attack[keys], collateral[keys], BITS, space, widest, most, everything)


def covered(group: Group, key: int, length: int) -> np.ndarray:
    """Which keys of the group a prefix has."""
    mask = ((1 << length) - 1) << (64 - length)
    return np.array([value & mask == key & mask for value in group.keys.tolist()], bool)


def cost(groups: list[Group], chosen: list[tuple[int, int, int]]) -> int:
    """What a set of disjoint (group, key, length) leaves uncovered, and its collateral."""
    paid = 0
    for number, group in enumerate(groups):
        left = np.ones(len(group.keys), bool)
        for _, key, length in (item for item in chosen if item[0] == number):
            if length == EVERYTHING:
                paid, left = paid + group.everything, left & False
                continue
            mine = covered(group, key, length)
            mine_paid = int(group.collateral[mine].sum()) + (group.space >> length)
            paid += mine_paid if mine_paid <= group.most else NEVER
            left &= ~mine
        paid += int(group.attack[left].sum())
    return paid


def cheapest(group: Group, budget: int) -> list[int]:
    """The least cost of every set of at most 0, 1, ... disjoint prefixes."""
    best = []
    for number in range(budget + 1):
        options = (
            cost([group], [(0, key << (64 - BITS), length) for key, length in chosen])
            for chosen in combinations([item for item in PREFIXES if item[1] >= group.widest], number)
            if not any(overlap(one, other) for one, other in combinations(chosen, 2))
        )
        everything = [group.everything] if number and len(group.keys) else []
        best.append(min([*options, *everything, *best[-1:]]))
    return best


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    shift = BITS - min(one[1], other[1])
    return one[0] >> shift == other[0] >> shift


@settings(max_examples=examples(150, nightly=20_000))
@given(groups(), st.integers(0, 4))
def test_no_set_of_prefixes_is_cheaper(group: Group, budget: int) -> None:
    with Cover([group], budget) as cover:
        curve = padded(cover.curve().tolist(), budget)
        assert curve == cheapest(group, budget)
        for number in range(budget + 1):
            found = cover.prefixes(number)
            assert len(found) <= number
            assert cost([group], places(found)) == curve[number]


@settings(max_examples=examples(150, nightly=20_000))
@given(st.lists(groups(), min_size=1, max_size=4), st.integers(0, 4))
def test_groups_share_the_budget(several: list[Group], budget: int) -> None:
    """As well as any division of the budget among the groups, each solved apart."""
    shared = [0]
    for group in several:
        with Cover([group], budget) as alone:
            own = padded(alone.curve().tolist(), budget)
        shared = [
            min(shared[one] + own[number - one] for one in range(number + 1) if one < len(shared))
            for number in range(budget + 1)
        ]
    with Cover(several, budget) as cover:
        assert padded(cover.curve().tolist(), budget) == shared
        for number in range(budget + 1):
            assert cost(several, places(cover.prefixes(number))) == shared[number]


def test_what_is_protected_is_in_no_prefix() -> None:
    keys = np.array([1, 2, 5, 6], np.uint64) << np.uint64(61)
    group = Group(keys, np.array([100, 0, 100, 100]), np.array([0, NEVER, 0, 0]), BITS)
    with Cover([group], 1) as cover:
        assert cover.prefixes(1) == [Prefix(0, 5 << 61, 1)]
        assert cover.curve().tolist() == [300, 100]


@pytest.mark.parametrize("several", [[], [Group(np.array([], np.uint64), np.array([]), np.array([]), 32)]])
def test_without_sources_there_is_nothing_to_cover(several: list[Group]) -> None:
    with Cover(several, 5) as cover:
        assert cover.curve().tolist() == [0]
        assert cover.prefixes(5) == []


def padded(curve: list[int], budget: int) -> list[int]:
    return curve + curve[-1:] * (budget + 1 - len(curve))


def places(found: list[Prefix]) -> list[tuple[int, int, int]]:
    return [(item.group, item.key, item.length) for item in found]


@settings(max_examples=examples(25, nightly=2_000))
@given(st.integers(0, 2**32), st.integers(6, 11), st.sampled_from([1, 3, 50]), st.sampled_from([0, 0, 300]))
def test_large_curves_are_those_of_a_plain_dynamic_program(seed: int, bits: int, most: int, space: int) -> None:
    """Curves of hundreds of budgets, most of them nearly convex, are joined by another way than short ones."""
    rng = np.random.default_rng(seed)
    keys = np.flatnonzero(rng.random(1 << bits) < rng.choice([0.3, 0.9]))
    attack = rng.integers(0, most + 1, len(keys))
    collateral = np.where(rng.random(len(keys)) < 0.4, rng.integers(0, 2 * most + 1, len(keys)), 0)
    collateral[rng.random(len(keys)) < 0.02] = NEVER
    budget = int(rng.integers(1, 1 << bits))
    limit = int(rng.choice([NEVER, 8 * most]))
    group = Group(keys.astype(np.uint64) << np.uint64(64 - bits), attack, collateral, bits, space, 0, limit)
    with Cover([group], budget) as cover:
        curve = np.array(padded(cover.curve().tolist(), budget))
        assert curve.tolist() == plain(group, budget).tolist()
        for number in rng.integers(0, budget + 1, 3).tolist():
            assert cost([group], places(cover.prefixes(number))) == curve[number]


def plain(group: Group, budget: int) -> np.ndarray:
    """The same program on the whole trie, without any of the short cuts."""
    attack, collateral = (dict(zip((group.keys >> np.uint64(64 - group.bits)).tolist(), column.tolist(), strict=True))
                          for column in (group.attack, group.collateral))  # fmt: skip

    def solve(value: int, length: int) -> tuple[np.ndarray, int]:
        if length == group.bits:
            charged = collateral.get(value, 0)
            none = np.array([attack.get(value, 0)])
        else:
            (left, one), (right, other) = (solve(value << 1 | bit, length + 1) for bit in (0, 1))
            charged, none = min(one + other, NEVER), joined(left, right)
        most = np.append(none, none[-1])[: budget + 1]
        whole = charged + (group.space >> length)
        most[1:] = np.minimum(most[1:], whole if whole <= group.most else NEVER)
        end = int(np.argmax(most == most[-1]))  # it is flat from there on
        return most[: end + 1], charged

    return np.array(padded(solve(0, 0)[0].tolist(), budget))


def joined(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    found = np.full(len(left) + len(right) - 1, np.iinfo(np.int64).max)
    for at, value in enumerate(left.tolist()):
        found[at : at + len(right)] = np.minimum(found[at : at + len(right)], value + right)
    return found
