"""Changes in place: their order, what is written and what is not, and the state after a refusal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from enforcer.backends.xdp.tables.classes import Segments4, Segments6, classify
from enforcer.backends.xdp.tables.edits import Registry
from enforcer.backends.xdp.tables.format import PAGE_WORDS, NotOurs
from enforcer.backends.xdp.tables.image4 import build4, lookup4
from enforcer.backends.xdp.tables.image6 import Image6, build6, lookup6
from enforcer.backends.xdp.tables.keys import keys6
from enforcer.backends.xdp.tables.live import Arrays, Changed, Full, Live
from enforcer.backends.xdp.tables.read6 import Items6
from enforcer.backends.xdp.tables.slots6 import Ranges6
from enforcer.model.nets import Nets
from tests.unit.enforcer.backends.tables import brute

EMPTY: frozenset[str] = frozenset()
A, B, AB = frozenset("a"), frozenset("b"), frozenset("ab")
LISTED = Nets.of(["10.1.0.0/24", "10.2.0.0/16", "2001:db8::/48", "2001:db8:7::7/128"])


def live_of(atoms: Mapping[str, Nets], *, pages: int = 1, most_classes: int = 1 << 16) -> Live:
    found = classify(atoms)
    image4, image6 = build4(found.segments4), build6(found.segments6)
    spare = np.zeros(pages * PAGE_WORDS, np.uint32)
    arrays = Arrays(
        image4.sieve,
        image4.root,
        np.concatenate([image4.lists, spare]),
        image6.root,
        np.concatenate([image6.nodes, np.zeros(64, image6.nodes.dtype)]),
        np.concatenate([image6.buckets, spare]),
        np.concatenate([image6.lists, spare]),
    )
    return Live(arrays, found.members, most_classes=most_classes)


def members_at(live: Live, address: int, bits: int) -> frozenset[str]:
    arrays = live.arrays
    if bits == 32:
        return live.members[int(lookup4(arrays.sieve4, arrays.root4, arrays.lists4, brute.array4([address]))[0])]
    image = Image6(arrays.root6, arrays.nodes6, arrays.buckets6, arrays.lists6)
    return live.members[int(lookup6(image, *brute.arrays6([address]))[0])]


def assert_says(live: Live, atoms: Mapping[str, Nets]) -> None:
    for bits in (32, 128):
        for address in brute.edges_of(atoms, bits):
            assert members_at(live, address, bits) == brute.members_of(atoms, address, bits)


def quiet(number: int, members: frozenset[str]) -> None:
    """The caller's part: writes rows for a new class."""


def same_segments(one: tuple[Segments4, Segments6], two: tuple[Segments4, Segments6]) -> bool:
    return brute.same(one[0], two[0]) and brute.same(one[1], two[1])


def never(*_: object) -> None:
    pytest.fail("called, though nothing should be written")


def changed(live: Live, atoms: dict[str, Nets], **after: Nets) -> bool:
    """Change some atoms to these nets, with a fence that returns at once."""
    ranges = {name: difference(atoms.get(name, Nets()), nets) for name, nets in after.items()}
    done = live.change(
        {name: Changed(nets, ranges[name]) for name, nets in after.items()}, new_class=quiet, fence=lambda: None
    )
    atoms.update(after)
    return done


def difference(one: Nets, two: Nets) -> Nets:
    return Nets.of(sorted(set(one) ^ set(two), key=str))


def test_first_the_class_then_the_lists_then_the_fence_then_the_words() -> None:
    live = live_of({"a": LISTED})
    words = live.arrays.words
    before = {name: np.array(array) for name, array in words.items()}
    seen: list[object] = []

    def differing() -> list[str]:
        return sorted(name for name, array in words.items() if not np.array_equal(array, before[name]))

    def new_class(number: int, members: frozenset[str]) -> None:
        seen.append((number, members, differing()))

    nets = Nets.of(["10.1.0.77/32"])
    assert live.change({"b": Changed(nets, nets)}, new_class=new_class, fence=lambda: seen.append(differing()))
    assert seen == [(2, AB, []), ["lists4"]]
    assert differing() == ["lists4", "root4"]
    assert live.members == {0: EMPTY, 1: A, 2: AB}


def test_only_the_slots_that_change_are_stored_to() -> None:
    live = live_of({"a": LISTED})
    ranges = Nets.of(["10.0.0.0/14"])
    patch = live.plan({"a": Changed(LISTED | Nets.of(["10.3.0.0/16"]), ranges)})
    every = 0xFFFFFFFF
    assert list(patch.stores()) == [
        ("sieve4", 2 * 0x0A03, every),
        ("sieve4", 2 * 0x0A03 + 1, every),
        ("root4", 0x0A03, 1),
    ]
    live.drop(patch)


def test_a_change_that_changes_nothing_writes_nothing() -> None:
    live = live_of({"a": LISTED})
    inside = Nets.of(["10.2.3.0/24", "2001:db8:0:1::/64"])
    assert not live.change({"a": Changed(LISTED | inside, inside)}, new_class=never, fence=never)


STEPS = {
    "an address": ("a", ["10.9.9.9", "2001:db8:9::9"]),
    "a prefix over many /16s": ("a", ["10.0.0.0/8", "2001::/16"]),
    "everything": ("b", ["0.0.0.0/0", "::/0"]),
    "a prefix around others": ("a", ["10.1.0.0/16", "2001:db8::/32"]),
    "a prefix within one listed": ("b", ["10.1.0.128/25", "2001:db8:0:5::/64"]),
    "an address in a /64 that has one": ("a", ["2001:db8:7::8"]),
    "the /64 around an address": ("a", ["2001:db8:7::/64"]),
    "the first and the last address": (
        "a",
        ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
    ),
    "another atom": ("c", ["10.1.0.0/24", "2001:db8:7::7"]),
}


@pytest.mark.parametrize("name", STEPS)
def test_adding_and_removing_again(name: str) -> None:
    atom, cidrs = STEPS[name]
    atoms = {"a": LISTED, "b": Nets.of(["10.1.0.7", "2001:db8:7::/48"])}
    live = live_of(atoms)
    before = live.segments()
    assert changed(live, atoms, **{atom: atoms.get(atom, Nets()) | Nets.of(cidrs)})
    assert_says(live, atoms)
    assert changed(live, atoms, **{atom: difference(atoms[atom], Nets.of(cidrs))})
    assert_says(live, atoms)
    assert same_segments(live.segments(), before)


@pytest.mark.slow
def test_many_ranges_at_once() -> None:
    atoms = {
        "a": LISTED,
        "b": Nets.of([f"10.{n}.0.0/17" for n in range(100)] + [f"2001:db8:{n:x}::/49" for n in range(100)]),
    }
    live = live_of(atoms, pages=2)
    more = Nets.of([f"10.{n}.128.0/24" for n in range(0, 200, 2)] + [f"2001:db8:{n:x}:{n:x}::7" for n in range(150)])
    changed(live, atoms, a=LISTED | more, b=Nets())
    assert_says(live, atoms)


def test_several_atoms_change_at_once_and_classes_on_the_way_are_none() -> None:
    atoms = {"a": LISTED, "b": Nets()}
    live = live_of(atoms)
    announced: list[frozenset[str]] = []
    every = Nets.of(["10.1.0.0/24"])
    changes = {"a": Changed(difference(LISTED, every), every), "b": Changed(every, every)}
    live.change(changes, new_class=lambda _, members: announced.append(members), fence=lambda: None)
    assert announced == [B]
    assert members_at(live, 0x0A010000, 32) == B


def test_a_large_tail_is_not_written_again() -> None:
    crowd = Nets.of([f"2001:db8::{n:x}" for n in range(1, 4000, 3)])
    live = live_of({"a": crowd | Nets.of(["2001:db8:0:1::1"])})
    for cidr in ("2001:db8::2", "2001:db8:0:1::2", "2001:db8:0:2::/64"):
        new = Nets.of([cidr])
        patch = live.plan({"b": Changed(new, new)})
        assert sum(1 for _ in patch.stores()) < 150
        live.drop(patch)


@pytest.mark.slow
def test_where_segments_always_come_at_the_end_lists_stay_short() -> None:
    atoms = {"a": Nets.of([f"2001:db8:{n:x}::/48" for n in range(0, 64, 2)])}
    live = live_of(atoms, pages=4)
    for n in range(0, 5000, 40):
        net = np.array([(0x20010DB800050000 + 3 * m, 0) for m in range(n, n + 40)], np.uint64)
        new = Nets(net6=net, len6=np.full(40, 64, np.uint8))
        atoms["a"] |= new
        live.change({"a": Changed(atoms["a"], new)}, new_class=never, fence=lambda: None)
        live.release()
    assert brute.same(live.segments()[1], classify(atoms).segments6)
    kinds = live.arrays.buckets6 >> 28
    assert 15 in kinds
    assert max(kinds[kinds != 15]) <= 7  # 256 segments, of 10,000


# --- refusals ---


def full(live: Live) -> Live:
    for allocator in live._allocators.values():
        while allocator.free_units:
            allocator.take(np.array([1], np.int64))
    return live


@pytest.mark.parametrize("cidr", ["10.9.9.9", "2001:db8:9::/48"])
def test_without_room_it_says_so_and_leaves_everything(cidr: str) -> None:
    live = full(live_of({"a": LISTED}, pages=0))
    before = {name: np.array(array) for name, array in live.arrays.words.items()}
    new = Nets.of([cidr])
    with pytest.raises(Full, match=r"lists[46]: no room for [12] of its \d+ units"):
        live.change({"b": Changed(new, new)}, new_class=never, fence=never)
    assert all(np.array_equal(array, before[name]) for name, array in live.arrays.words.items())
    assert live.members == {0: EMPTY, 1: A}
    assert not live.new_classes()


def test_room_for_one_family_only_takes_nothing_of_it() -> None:
    live = live_of({"a": LISTED})
    six = live._allocators["lists6"]
    while six.free_units:
        six.take(np.array([1], np.int64))
    free = live._allocators["lists4"].free_units
    new = Nets.of(["10.9.9.9", "2001:db8:9::9"])
    with pytest.raises(Full):
        live.change({"a": Changed(LISTED | new, new)}, new_class=quiet, fence=never)
    assert live._allocators["lists4"].free_units == free


def test_no_class_number_beyond_those_there_are_rows_for() -> None:
    live = live_of({"a": LISTED}, most_classes=2)
    new = Nets.of(["10.1.0.7"])
    with pytest.raises(Full, match="classes: there is room for 2"):
        live.change({"b": Changed(new, new)}, new_class=never, fence=never)
    assert live.members == {0: EMPTY, 1: A}


def test_what_the_row_writer_raises_leaves_everything() -> None:
    live = live_of({"a": LISTED})
    before, free = live.segments(), live._allocators["lists4"].free_units

    def refuse(number: int, members: frozenset[str]) -> None:
        raise OSError(number, str(members))

    new = Nets.of(["10.1.0.7"])
    with pytest.raises(OSError, match="frozenset"):
        live.change({"b": Changed(new, new)}, new_class=refuse, fence=never)
    assert same_segments(live.segments(), before)
    assert live._allocators["lists4"].free_units == free
    assert live.members == {0: EMPTY, 1: A}


def test_what_was_replaced_is_reused_only_once_released() -> None:
    atoms = {"a": LISTED}
    live = live_of(atoms)
    room = live._allocators["lists4"]
    before = room.free_units
    changed(live, atoms, a=LISTED | Nets.of(["10.1.5.0/24"]))
    assert room.free_units == before - 1
    live.release()
    assert room.free_units == before


# --- replacing, restarting ---


def test_a_replacement_takes_over_a_new_classification() -> None:
    live = live_of({"a": LISTED})
    after = {
        "a": Nets.of(["10.1.0.0/25", "255.255.255.255", "2001:db8::/47"]),
        "b": Nets.of(["10.1.0.0/16", "ffff::/16"]),
    }
    wanted = classify(after, {members: number for number, members in live.members.items()})
    announced: dict[int, frozenset[str]] = {}
    assert live.replace(wanted, new_class=announced.__setitem__, fence=lambda: None)
    assert_says(live, after)
    assert announced == {number: members for number, members in wanted.members.items() if number > 1}
    assert not live.replace(wanted, new_class=never, fence=never)


def test_a_replacement_whose_numbers_stand_for_others_is_refused() -> None:
    live = live_of({"a": LISTED})
    with pytest.raises(Full, match="1 stands for other sets"):
        live.replace(classify({"b": LISTED}), new_class=never, fence=never)
    assert not live.new_classes()


def test_another_process_goes_on_where_one_ended() -> None:
    atoms = {"a": LISTED}
    live = live_of(atoms)
    changed(live, atoms, a=LISTED | Nets.of(["10.1.5.0/24", "2001:db8:5::/64"]))
    live.release()
    again = Live(live.arrays, live.members)
    assert {name: item.free_units for name, item in again._allocators.items()} == {
        name: item.free_units for name, item in live._allocators.items()
    }
    changed(again, atoms, a=LISTED)
    assert_says(again, atoms)


def test_tables_that_are_not_ours_are_refused() -> None:
    live = live_of({"a": LISTED})
    live.arrays.root4[3] = live.arrays.root4[0x0A01]  # two /16s in one list
    with pytest.raises(NotOurs, match="overlap"):
        Live(live.arrays, live.members)


def test_a_registry_gives_the_lowest_numbers_and_takes_back_what_is_not_needed() -> None:
    registry = Registry({0: EMPTY, 2: A}, most=4)
    assert [registry.number(item) for item in (A, B, AB)] == [2, 1, 3]
    registry.keep({3})
    assert registry.new == {3: AB}
    registry.commit()
    assert registry.number(B) == 1
    registry.forget()
    assert registry.members == {0: EMPTY, 2: A, 3: AB}


def test_a_range_beyond_a_tail_reaches_to_the_ends_of_its_low_half() -> None:
    """Replacements have ranges that are not prefixes: here from the middle of a /64 to the middle of the next one."""
    ranges = Ranges6.of(keys6(*brute.arrays6([5 << 64 | 7])), keys6(*brute.arrays6([6 << 64 | 9])))
    every = np.array([(1 << 64) - 1] * 3, np.uint64)
    tails = Items6(
        np.zeros(3, np.uint32),
        np.zeros(3, np.uint64),
        every,
        np.array([5, 6, 5], np.uint64),
        np.array([True, True, False]),
    )
    first, last = ranges.keys(np.zeros(3, np.int64), tails)
    assert first.tolist() == [7, 0, 5]
    assert last.tolist() == [(1 << 64) - 1, 9, 6]
