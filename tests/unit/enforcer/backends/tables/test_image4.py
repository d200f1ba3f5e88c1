"""IPv4 tables: a look-up gives what the segments give; invalid tables are refused; lists are laid out as in the ABI."""

from __future__ import annotations

import numpy as np
import pytest

from enforcer.backends.xdp.tables.classes import Segments4, classify
from enforcer.backends.xdp.tables.format import PAGE_WORDS, NotOurs
from enforcer.backends.xdp.tables.image4 import build4, lookup4, read4
from enforcer.model.abi import TABLE_PAGE_BYTES
from enforcer.model.nets import Nets
from tests.unit.enforcer.backends.tables import brute

MIXED = {
    "a": Nets.of(["10.0.0.0/8", "10.1.0.0/24", "0.0.0.0/32", "255.255.255.255/32", "192.0.2.0/24"]),
    "b": Nets.of(["10.1.0.0/16", "10.1.0.1/32", "203.0.113.0/25", "203.0.113.128/26"]),
}


def every(step: int, first: int, count: int) -> Nets:
    """``count`` single addresses, ``step`` apart."""
    net = np.arange(first, first + step * count, step, dtype=np.uint64).astype(np.uint32)
    return Nets(net, np.full(count, 32, np.uint8))


TABLES = {
    "nothing": {},
    "everything": {"a": Nets.of(["0.0.0.0/0"])},
    "mixed": MIXED,
    "a whole /16": {"a": Nets.of(["10.1.0.0/16"])},
    "a range over several /16s that ends within one": {"a": Nets.of(["10.0.0.0/14", "10.4.0.0/24"])},
    "the largest list there is": {"a": every(2, 0x0A010000, 1 << 15)},
    "the largest list, two classes without a gap": {"a": every(2, 0x0A010000, 1 << 15), "b": Nets.of(["10.1.0.0/16"])},
    "lists of every size": {"a": Nets.union(every(2, n << 16, 1 << n) for n in range(15))},
}


@pytest.mark.parametrize("name", TABLES)
def test_lookups_find_the_class_and_reading_gives_the_segments_back(name: str) -> None:
    segments = classify(TABLES[name]).segments4
    image = build4(segments)
    assert brute.same(read4(image.root, image.lists), segments)
    addresses = brute.array4(brute.edges_of(TABLES[name], 32))
    expected = segments.cls[np.searchsorted(segments.start, addresses, side="right") - 1]
    assert np.array_equal(lookup4(image.sieve, image.root, image.lists, addresses), expected)


def test_classes_up_to_the_highest_are_told_apart() -> None:
    segments = Segments4(np.array([0, 1, 65536], np.uint32), np.array([65535, 0, 65534], np.uint16))
    image = build4(segments)
    assert lookup4(image.sieve, image.root, image.lists, brute.array4([0, 1, 65535, 65536, 1 << 31])).tolist() == [
        65535, 0, 0, 65534, 65534]  # fmt: skip


def test_lists_are_aligned_to_their_size() -> None:
    image = build4(classify(TABLES["lists of every size"]).segments4)
    kinds = image.root >> 28
    offset, buf = (image.root & 0x0FFFFFFF).astype(np.int64) * 16, 8 << kinds.astype(np.int64)
    assert set(kinds[:15].tolist()) == {1, *range(1, 15)}
    assert (offset[:15] % buf[:15] == 0).all()
    assert (buf <= TABLE_PAGE_BYTES).all()


def test_the_abi_spells_a_small_list_so() -> None:
    image = build4(classify({"a": Nets.of(["10.1.2.0/24"])}).segments4)
    assert image.root[0x0A01] == 1 << 28
    assert image.lists[:4].tolist() == [0, 0x0200 << 16 | 1, 0x0300 << 16, 0x0300 << 16]
    assert not image.root[:0x0A01].any()
    assert np.flatnonzero(image.sieve).tolist() == [0x0A01 << 1]
    assert image.sieve[0x0A01 << 1] == 1  # the first /22 of the /16


def test_memory() -> None:
    """100,000 random addresses: at most the root and 8 bytes per segment, in whole pages."""
    found = np.unique(np.random.default_rng(1).integers(0, 1 << 32, size=100_000, dtype=np.uint32))
    image = build4(classify({"a": Nets(found, np.full(len(found), 32, np.uint8))}).segments4)
    assert image.root.nbytes == 1 << 18
    assert len(image.lists) % PAGE_WORDS == 0
    assert image.lists.nbytes <= 2 << 20


def word(kind: int, offset: int) -> int:
    return kind << 28 | offset


GARBAGE = {
    "a class beyond 65,535": (0x10000, []),
    "a list beyond the pages": (word(1, TABLE_PAGE_BYTES // 16), []),
    "a list that is not aligned": (word(2, 1), []),
    "a list that does not start with 0": (word(1, 0), [1 << 16]),
    "a list that is not sorted": (word(1, 0), [0, 5 << 16, 4 << 16, 6 << 16]),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused(name: str) -> None:
    value, entries = GARBAGE[name]
    root, lists = np.zeros(1 << 16, np.uint32), np.zeros(PAGE_WORDS, np.uint32)
    root[77] = value
    lists[: len(entries)] = entries
    with pytest.raises(NotOurs):
        read4(root, lists)


def test_a_root_of_the_wrong_size_and_overlapping_lists_are_refused() -> None:
    with pytest.raises(NotOurs, match="65536 words, found 3"):
        read4(np.zeros(3, np.uint32), np.zeros(PAGE_WORDS, np.uint32))
    with pytest.raises(NotOurs, match="overlap"):
        read4(np.full(1 << 16, word(3, 0), np.uint32), np.zeros(PAGE_WORDS, np.uint32))


def test_random_garbage_is_refused_or_read_without_another_error() -> None:
    rng = np.random.default_rng(7)
    for _ in range(50):
        root = np.where(rng.random(1 << 16) < 1e-4, rng.integers(0, 1 << 32, 1 << 16), 0).astype(np.uint32)
        lists = rng.integers(0, 1 << 32, PAGE_WORDS, dtype=np.uint32)
        try:
            read4(root, lists)
        except NotOurs:
            continue
        assert root.max() <= 65535


def test_a_lookup_in_a_page_that_is_not_there_finds_class_0() -> None:
    root = np.full(1 << 16, word(1, TABLE_PAGE_BYTES // 16), np.uint32)
    assert lookup4(
        np.full(1 << 17, 0xFFFFFFFF, np.uint32), root, np.ones(PAGE_WORDS, np.uint32), brute.array4([5])
    ).tolist() == [0]
