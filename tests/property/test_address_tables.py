"""Address tables give for every address what the CIDRs give: when built, and after each store of any change.

The expected result for an address is computed from the CIDRs one by one. Sets are generated with dense segments, around
few addresses at all distances, so that nodes, buckets and tails nest.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.backends.xdp.tables.classes import Classified, classify
from enforcer.backends.xdp.tables.image4 import build4, holds4, lookup4, read4
from enforcer.backends.xdp.tables.image6 import Image6, build6, lookup6
from enforcer.backends.xdp.tables.keys import keys6
from enforcer.backends.xdp.tables.live import Arrays, Changed, Full, Live
from enforcer.backends.xdp.tables.patch import Patch
from enforcer.backends.xdp.tables.read6 import read6, whole_walk6
from enforcer.model.nets import Nets
from tests.support.examples import examples

ANCHORS = {
    4: (0, 0x0A000000, 0x0A00FFFF, 0x0A010000, 0xCB007100, 0xFFFFFFFF),
    6: (0, 0x20010DB8 << 96, (0x20010DB8 << 96) + (1 << 64), (0x20010DB9 << 96) - 1, 0xFE80 << 112, (1 << 128) - 1),
}
BITS = {4: 32, 6: 128}
LOW = (1 << 64) - 1
SPARE = 3 << 16  # words in each array beyond those that a table needs: room for changes

Prefix = tuple[int, int, int]  # version, network, length
Sets = Mapping[str, frozenset[Prefix]]


def prefix(rng: random.Random, version: int) -> Prefix:
    """Prefixes near an anchor, at any distance; long ones and those of 64 bits more often than others."""
    bits = BITS[version]
    address = rng.choice(ANCHORS[version]) ^ rng.getrandbits(128) % (1 << rng.randint(0, bits))
    if version == 6 and rng.random() < 0.3:
        address &= ~LOW
    length = rng.choice((bits, bits, bits - rng.randint(0, 6), rng.choice((16, 24, 32, 48, 64)), rng.randint(0, bits)))
    length = min(length, bits)
    return version, address >> (bits - length) << (bits - length), length


def packed(prefixes: frozenset[Prefix]) -> Nets:
    four = sorted((network, length) for version, network, length in prefixes if version == 4)
    six = sorted((network, length) for version, network, length in prefixes if version == 6)
    return Nets(
        np.array([network for network, _ in four], np.uint32),
        np.array([length for _, length in four], np.uint8),
        np.array([(network >> 64, network & LOW) for network, _ in six], np.uint64).reshape(-1, 2),
        np.array([length for _, length in six], np.uint8),
    )


def of_interest(sets: list[Sets], version: int) -> list[int]:
    """The ends of all prefixes, and the adjacent addresses."""
    bits = BITS[version]
    found = {0, (1 << bits) - 1}
    for state in sets:
        for _, network, length in (item for items in state.values() for item in items if item[0] == version):
            last = network | (1 << (bits - length)) - 1
            found |= {network - 1, network, last, last + 1}
    return sorted(address for address in found if 0 <= address < 1 << bits)


def members(sets: Sets, version: int, address: int) -> frozenset[str]:
    bits = BITS[version]
    return frozenset(
        name
        for name, items in sets.items()
        if any(item[0] == version and (item[1] ^ address) >> (bits - item[2]) == 0 for item in items)
    )


class Probe:
    """Looks up the same addresses repeatedly."""

    def __init__(self, sets: list[Sets], version: int) -> None:
        self.version, self.addresses = version, of_interest(sets, version)
        self._four = np.array(self.addresses if version == 4 else [], np.uint32)
        self._high = np.array([address >> 64 for address in self.addresses], np.uint64)
        self._low = np.array([address & LOW for address in self.addresses], np.uint64)

    def classes(self, arrays: Arrays) -> npt.NDArray[np.uint16]:
        if self.version == 4:
            return lookup4(arrays.sieve4, arrays.root4, arrays.lists4, self._four)
        return lookup6(Image6(arrays.root6, arrays.nodes6, arrays.buckets6, arrays.lists6), self._high, self._low)

    def expected(self, sets: Sets) -> list[frozenset[str]]:
        return [members(sets, self.version, address) for address in self.addresses]


def arrays_of(found: Classified, spare: int = SPARE) -> Arrays:
    image4, image6 = build4(found.segments4), build6(found.segments6)

    def longer(array: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        return np.concatenate([array, np.full(spare, 0xDEADBEEF, np.uint32)])

    return Arrays(
        image4.sieve,
        image4.root,
        longer(image4.lists),
        image6.root,
        np.concatenate([image6.nodes, np.zeros(spare and 64, image6.nodes.dtype)]),
        longer(image6.buckets),
        longer(image6.lists),
    )


def copied(arrays: Arrays) -> Arrays:
    return replace(arrays, **{name: np.array(getattr(arrays, name)) for name in arrays.__dataclass_fields__})


def classes_of(found: list[frozenset[str]], numbers: Mapping[frozenset[str], int]) -> list[int]:
    return [numbers[item] for item in found]


@st.composite
def crowded(draw: st.DrawFn, most: int = 120) -> Sets:
    """A few atoms with up to ``most`` prefixes in total."""
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    version = draw(st.sampled_from((4, 6, 6)))
    count = draw(st.integers(0, most))
    names = "abc"[: draw(st.integers(1, 3))]
    items = [(rng.choice(names), prefix(rng, version)) for _ in range(count)]
    return {name: frozenset(item for of, item in items if of == name) for name in names}


@settings(max_examples=examples(45, nightly=50_000))
@given(crowded(400))
def test_built_tables_say_what_the_cidrs_say_and_are_read_back(sets: Sets) -> None:
    found = classify({name: packed(items) for name, items in sets.items()})
    arrays = arrays_of(found, spare=0)
    for version in (4, 6):
        probe = Probe([sets], version)
        numbers = probe.classes(arrays).tolist()
        assert [found.members[number] for number in numbers] == probe.expected(sets)
    four = read4(arrays.root4, arrays.lists4)
    assert holds4(arrays.sieve4, four)
    six = read6(arrays.root6, arrays.nodes6, arrays.buckets6, arrays.lists6)
    assert four.start.tolist() == found.segments4.start.tolist()
    assert four.cls.tolist() == found.segments4.cls.tolist()
    assert six.high.tolist() == found.segments6.high.tolist()
    assert six.low.tolist() == found.segments6.low.tolist()
    assert six.cls.tolist() == found.segments6.cls.tolist()


# --- changes in place -------------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[Sets]:
    """States of the atoms; each changes a few prefixes of the one before, or many, so that whole nodes change."""
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    version = draw(st.sampled_from((4, 6, 6, 6)))
    state = {
        name: frozenset(prefix(rng, version) for _ in range(count))
        for name, count in zip("abc", draw(st.tuples(*[st.integers(0, 60)] * 3)), strict=True)
    }
    states: list[Sets] = [state]
    for _ in range(draw(st.integers(1, 4))):
        after = dict(state)
        for name in draw(st.sampled_from(("a", "b", "ab", "abc"))):
            gone = rng.sample(sorted(after[name]), min(len(after[name]), rng.choice((0, 1, 1, 2, 40))))
            new = [prefix(rng, version) for _ in range(rng.choice((0, 1, 1, 3, 40)))]
            after[name] = after[name] - frozenset(gone) | frozenset(new)
        states.append(state := after)
    return states


def changes_between(before: Sets, after: Sets) -> dict[str, Changed]:
    return {
        name: Changed(packed(after[name]), packed(after[name] ^ before[name]))
        for name in after
        if after[name] != before[name]
    }


def reachable(arrays: Arrays) -> set[tuple[str, int]]:
    """Every word that a lookup can read now, except those of the roots."""
    found = set()
    for word in arrays.root4[arrays.root4 >> 28 != 0].tolist():
        begin = (word & 0x0FFFFFFF) * 4
        found |= {("lists4", at) for at in range(begin, begin + (2 << (word >> 28)))}
    used = whole_walk6(arrays.root6, arrays.nodes6, arrays.buckets6, arrays.lists6).used
    for name, words in (("nodes6", 8), ("buckets6", 16), ("lists6", 16)):
        for blocks in used[name]:
            for offset, units in zip(blocks.offset.tolist(), blocks.units.tolist(), strict=True):
                found |= {(name, at) for at in range(offset * words, (offset + units) * words)}
    return found


def assert_fills_are_apart(patch: Patch, held: set[tuple[str, int]]) -> None:
    """Where a program may still read, only the words that lead to a new list or node are written."""
    filled = {(name, index) for name, fills in patch.fills.items() for fill in fills for index, _ in fill.stores()}
    assert not filled & held


def store_by_store(live: Live, patch: Patch, probe: Probe, old: list[int], new: list[int]) -> None:
    """Make the change, and check every address after each store to a word in use, and sometimes in between.

    With very many stores (a prefix shorter than /9 changes hundreds of words of the root), after some of them only.
    """
    words, points = live.arrays.words, sum(len(item.index) for items in patch.points.values() for item in items)
    stores = list(patch.stores())
    filled, both = len(stores) - points, np.array([old, new])
    step = points // 150 + 1
    for number, (name, index, value) in enumerate(stores):
        words[name][index] = value
        if number % 197 == 0 if number < filled else (number - filled) % step == 0:
            found = probe.classes(live.arrays)
            assert ((found == both[0]) | (found == both[1] if number >= filled else False)).all()


@settings(max_examples=examples(20, nightly=50_000))
@given(histories(), st.booleans())
def test_after_every_store_an_address_has_its_old_class_or_its_new_one(states: list[Sets], releases: bool) -> None:
    first = classify({name: packed(items) for name, items in states[0].items()})
    live = Live(arrays_of(first), first.members)
    version = next((item[0] for state in states for items in state.values() for item in items), 4)
    probe, held = Probe(states, version), set()
    for before, after in pairwise(states):
        numbers = {item: number for number, item in live.members.items()}
        old = classes_of(probe.expected(before), numbers)
        held |= reachable(live.arrays)
        patch = live.plan(changes_between(before, after))
        numbers |= {item: number for number, item in live.new_classes().items()}
        assert_fills_are_apart(patch, held)
        store_by_store(live, patch, probe, old, classes_of(probe.expected(after), numbers))
        live.settle(patch)
        assert probe.classes(live.arrays).tolist() == classes_of(probe.expected(after), numbers)
        if releases:
            live.release()
            held.clear()
    assert_like_new(live, states[-1])


def assert_like_new(live: Live, state: Sets) -> None:
    """The tables equal newly built tables, and a new process finds the same free space in them."""
    numbers = {item: number for number, item in live.members.items()}
    wanted = classify({name: packed(items) for name, items in state.items()}, numbers)
    segments4, segments6 = live.segments()
    assert live.arrays.sieve4.tolist() == build4(segments4).sieve.tolist()
    assert segments4.start.tolist() == wanted.segments4.start.tolist()
    assert segments4.cls.tolist() == wanted.segments4.cls.tolist()
    assert keys6(segments6.high, segments6.low).tolist() == keys6(wanted.segments6.high, wanted.segments6.low).tolist()
    assert segments6.cls.tolist() == wanted.segments6.cls.tolist()
    live.release()
    again = Live(live.arrays, live.members)
    assert {name: item.free_units for name, item in again._allocators.items()} == {
        name: item.free_units for name, item in live._allocators.items()
    }


@settings(max_examples=examples(20, nightly=50_000))
@given(histories())
def test_a_whole_replacement_does_the_same(states: list[Sets]) -> None:
    first = classify({name: packed(items) for name, items in states[0].items()})
    live = Live(arrays_of(first), first.members)
    version = next((item[0] for state in states for items in state.values() for item in items), 4)
    probe = Probe(states, version)
    for before, after in pairwise(states):
        numbers = {item: number for number, item in live.members.items()}
        wanted = classify({name: packed(items) for name, items in after.items()}, numbers)
        held = reachable(live.arrays)
        patch = live.plan_replace(wanted)
        assert_fills_are_apart(patch, held)
        old = classes_of(probe.expected(before), numbers)
        numbers |= {item: number for number, item in wanted.members.items()}
        store_by_store(live, patch, probe, old, classes_of(probe.expected(after), numbers))
        live.settle(patch)
        live.release()
    assert_like_new(live, states[-1])


@settings(max_examples=examples(20, nightly=50_000))
@given(histories())
def test_without_room_nothing_is_written_and_nothing_taken(states: list[Sets]) -> None:
    first = classify({name: packed(items) for name, items in states[0].items()})
    arrays = arrays_of(first, spare=0)
    live = Live(arrays, first.members, most_classes=max(first.members) + 1)
    # All space is in use by others.
    for allocator in live._allocators.values():
        allocator.take(np.ones(allocator.free_units, np.int64))
        assert not allocator.free_units
    for before, after in pairwise(states):
        untouched = copied(arrays)
        try:
            live.change(changes_between(before, after), new_class=lambda *_: None, fence=lambda: None)
        except Full:
            assert all(np.array_equal(getattr(arrays, name), getattr(untouched, name)) for name in arrays.words)
            assert not live.new_classes()
            assert all(not allocator.free_units for allocator in live._allocators.values())
            return
