"""Each address gets the class of exactly the atoms that contain it, and classes keep their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from enforcer.backends.xdp.tables.classes import Classified, Classifier, TooManyClasses, classify
from enforcer.model.nets import Nets
from tests.unit.enforcer.backends.tables import brute

LAST6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
EMPTY: frozenset[str] = frozenset()

TABLES = {
    "no atoms": {},
    "atoms without addresses": {"a": Nets(), "b": Nets()},
    "everything": {"a": Nets.of(["0.0.0.0/0", "::/0"])},
    "the first and the last address": {"a": Nets.of(["0.0.0.0", "255.255.255.255", "::", LAST6])},
    "halves side by side": {"a": Nets.of(["10.0.0.0/25", "10.0.0.128/25", "fd00::/65", "fd00::8000:0:0:0/65"])},
    "prefixes that nest in one atom": {
        "a": Nets.of(["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/1", "2001:db8::/32", "2001:db8::/128"])
    },
    "a hole in the middle, filled by another": {
        "a": Nets.of(["10.0.0.0/24", "2001:db8::/48"]),
        "b": Nets.of(["10.0.0.64/26", "10.0.0.255", "2001:db8:0:1::/64", "2001:db8::ffff"]),
        "c": Nets.of(["10.0.0.0/16", "2001:db8::/32"]),
    },
    "the same in two": {"a": Nets.of(["10.0.0.0/24"]), "b": Nets.of(["10.0.0.0/24"])},
}


def assert_right(atoms: dict[str, Nets], found: Classified) -> None:
    for segments, bits in ((found.segments4, 32), (found.segments6, 128)):
        brute.assert_canonical(segments)
        for address in brute.edges_of(atoms, bits):
            assert found.members[brute.class_at(segments, address)] == brute.members_of(atoms, address, bits)


@pytest.mark.parametrize("name", TABLES)
def test_addresses_are_in_the_class_of_their_atoms(name: str) -> None:
    found = classify(TABLES[name])
    assert found.members[0] == EMPTY
    assert_right(TABLES[name], found)


def test_only_classes_that_occur_are_there_and_the_empty_one() -> None:
    atoms = {"a": Nets.of(["0.0.0.0/0", "::/0"]), "b": Nets.of(["10.0.0.0/8"])}
    assert classify(atoms).members == {0: EMPTY, 1: frozenset("a"), 2: frozenset("ab")}


@pytest.mark.slow
def test_more_atoms_than_a_word_has_bits() -> None:
    atoms = {f"a{n}": Nets.of([f"10.0.{n}.0/23", f"10.0.{n // 2}.7/32", f"fd00:{n}::/31"]) for n in range(150)}
    assert_right(atoms, classify(atoms))


def test_numbers_are_kept_and_new_classes_take_those_never_given() -> None:
    atoms = {"a": Nets.of(["10.0.0.0/8"]), "b": Nets.of(["10.1.0.0/16"]), "c": Nets.of(["fd00::/8"])}
    found = classify(atoms, {EMPTY: 0, frozenset("a"): 7, frozenset("x"): 1})
    assert found.members == {0: EMPTY, 7: frozenset("a"), 2: frozenset("ab"), 3: frozenset("c")}
    assert_right(atoms, found)


def test_a_number_of_a_class_that_is_gone_is_given_last() -> None:
    numbers = {frozenset([f"gone{number}"]): number for number in range(1, 1 << 16)}
    found = classify({"a": Nets.of(["10.0.0.0/8"])}, numbers)
    assert found.members == {0: EMPTY, 1: frozenset("a")}


def overlapping(ways: int) -> dict[str, Nets]:
    """Atom b contains address n if bit b of n is set: ``ways`` classes, including the empty one."""
    number = np.arange(ways, dtype=np.uint32)
    return {f"b{bit}": Nets(held, np.full(len(held), 32, np.uint8))
            for bit in range(17) for held in [number[number >> np.uint32(bit) & np.uint32(1) == 1]]}  # fmt: skip


@pytest.mark.slow
def test_as_many_classes_as_a_number_can_say() -> None:
    assert len(classify(overlapping(1 << 16)).members) == 1 << 16


def test_one_class_more_is_refused_with_a_sentence() -> None:
    with pytest.raises(TooManyClasses, match="overlap in at least 65,537 ways"):
        classify(overlapping((1 << 16) + 1))


def test_too_many_classes_over_several_words_are_refused() -> None:
    atoms = overlapping(1 << 16)
    more = {f"more{n}": Nets.of([f"10.{n}.0.0/24"]) for n in range(60)}
    with pytest.raises(TooManyClasses):
        classify({**atoms, **more})


def test_the_same_atoms_are_classified_once() -> None:
    """The same objects and numbers; else they are classified again, and nothing of the last result is left."""
    classifier = Classifier()
    atoms = {"a": Nets.of(["192.0.2.0/24"]), "b": Nets.of(["192.0.2.0/25", "2001:db8::/32"])}
    first = classifier.classify(atoms)
    assert classifier.classify(dict(atoms)) is first
    changed = atoms | {"b": Nets.of(["198.51.100.0/24"])}
    numbers = {members: number for number, members in first.members.items()}
    for given, known in ((changed, None), (atoms, None), (atoms, numbers), ({"b": atoms["b"], "a": atoms["a"]}, None)):
        found, expected = classifier.classify(given, known), classify(given, known)
        assert found is not first
        assert found.members == expected.members
        for got, wanted in ((found.segments4, expected.segments4), (found.segments6, expected.segments6)):
            assert all(np.array_equal(*pair) for pair in zip(vars(got).values(), vars(wanted).values(), strict=True))
