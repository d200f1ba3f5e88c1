"""IPv6 tables: a look-up gives what the segments give; how nodes nest; invalid tables are refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from enforcer.backends.xdp.tables.classes import Segments6, classify
from enforcer.backends.xdp.tables.forest6 import NODE6
from enforcer.backends.xdp.tables.format import PAGE_WORDS, NotOurs
from enforcer.backends.xdp.tables.image6 import Image6, build6, lookup6, read6
from enforcer.backends.xdp.tables.keys import keys6
from enforcer.backends.xdp.tables.read6 import whole_walk6
from enforcer.model.abi import TABLE_PAGE_BYTES
from enforcer.model.nets import Nets
from tests.unit.enforcer.backends.tables import brute

LAST = (1 << 128) - 1
DOC = 0x20010DB8 << 96
LIST, NODE = range(1, 14), 15


def single(addresses: list[int], length: int = 128) -> Nets:
    """Prefixes of one length."""
    net = np.array([(address >> 64, address & brute.LOW) for address in sorted(addresses)], np.uint64).reshape(-1, 2)
    return Nets(net6=net, len6=np.full(len(net), length, np.uint8))


def spread(count: int, first: int, step: int, length: int) -> Nets:
    return single([first + number * step for number in range(count)], length)


TABLES = {
    "nothing": {},
    "everything": {"a": Nets.of(["::/0"])},
    "the first and the last address": {"a": single([0, LAST])},
    "a few prefixes": {"a": Nets.of(["2001:db8::/32", "2001:db8:5::/48", "fe80::/10"])},
    "a prefix of /64 and one within it": {"a": Nets.of(["2001:db8::/64"]), "b": Nets.of(["2001:db8::7/128"])},
    "tails side by side": {"a": single([DOC + 7, DOC + (1 << 64) + 7, DOC + (2 << 64)]), "b": single([DOC + 8])},
    "a tail at the end of a /16": {"a": single([(0x2001 << 112) + (1 << 112) - 1]), "b": Nets.of(["2002::/16"])},
    "/48s enough for a node": {"a": spread(40, DOC, 3 << 80, 48)},
    "/64s without a gap, of two atoms in turn": {
        "a": spread(3000, DOC, 2 << 64, 64),
        "b": spread(3000, DOC + (1 << 64), 2 << 64, 64),
    },
    "many addresses in one /64": {"a": spread(5000, DOC, 7, 128)},
    "as many /64s with addresses": {"a": spread(2000, DOC + 5, 1 << 64, 128), "b": spread(50, DOC + 9, 1 << 64, 128)},
    "half of all distances": {"a": single([DOC + (1 << bit) for bit in range(0, 112, 2)])},
    "crowds at all distances": {
        "a": single(sorted({DOC + (near << bit) for bit in range(0, 108, 4) for near in range(16)}))
    },
    "the last of each /16": {"a": single([(slot << 112) - 1 for slot in range(1, 40)])},
}


def image_of(atoms: dict[str, Nets]) -> tuple[Segments6, Image6]:
    segments = classify(atoms).segments6
    return segments, build6(segments)


def kind_at(image: Image6, slot: int) -> int:
    return int(image.root[slot] >> 28)


@pytest.mark.parametrize("name", TABLES)
def test_lookups_find_the_class_and_reading_gives_the_segments_back(name: str) -> None:
    segments, image = image_of(TABLES[name])
    assert brute.same(read6(image.root, image.nodes, image.buckets, image.lists), segments)
    high, low = brute.arrays6(brute.edges_of(TABLES[name], 128))
    at = np.searchsorted(keys6(segments.high, segments.low), keys6(high, low), side="right") - 1
    assert np.array_equal(lookup6(image, high, low), segments.cls[at])


def test_up_to_four_boundaries_are_a_list_more_a_node() -> None:
    _, image = image_of({"a": Nets.of(["2001:db8::/32", "2001:db9:1::/48", "2002:db8::/32"])})
    assert [kind_at(image, slot) for slot in (0x2001, 0x2002, 0x2003)] == [2, 1, 0]
    _, image = image_of({"a": spread(4, DOC, 5 << 80, 48)})  # eight boundaries
    assert kind_at(image, 0x2001) == NODE


def test_a_node_has_no_more_buckets_than_boundaries_and_at_least_half_as_many() -> None:
    _, image = image_of({"a": spread(1000, DOC, 3 << 80, 48)})
    node = image.nodes[int(image.root[0x2001]) & 0x0FFFFFFF]
    assert int(node["low"]) == DOC >> 64
    assert 1000 <= int(node["last"]) + 1 <= 2000
    assert int(node["below"]) == 0


def test_the_abi_spells_a_tail_so() -> None:
    _, image = image_of({"a": single([DOC + 7])})
    top = (int(image.root[0x2001]) & 0x0FFFFFFF) * 16
    assert kind_at(image, 0x2001) == 1
    starts = image.lists.view(np.uint64)
    assert starts[top // 2 : top // 2 + 4].tolist() == [0x2001 << 48, DOC >> 64, (DOC >> 64) + 1, (DOC >> 64) + 1]
    none, tail, behind, padding = image.lists[top + 8 : top + 12].tolist()
    assert (none, tail >> 28, behind, padding) == (0, 1, 0, 0)
    low = (tail & 0x0FFFFFFF) * 16
    assert starts[low // 2 : low // 2 + 4].tolist() == [0, 7, 8, 8]
    assert image.lists[low + 8 : low + 12].tolist() == [0, 1, 0, 0]


def test_prefixes_up_to_64_have_no_tails() -> None:
    segments, image = image_of({"a": spread(20000, DOC, 5 << 64, 64)})
    assert not segments.low.any()
    lists = image.lists[: image.lists.nonzero()[0][-1] + 1]
    walked = whole_walk6(image.root, image.nodes, image.buckets, image.lists)
    assert sum(len(rows.low) for rows in walked.rows if rows.low.any()) == 0
    assert lists.nbytes <= 64 * 20000  # at most a list of 64 bytes per CIDR


def test_lists_are_aligned_to_their_size_and_within_a_page() -> None:
    _, image = image_of(TABLES["crowds at all distances"])
    for blocks in whole_walk6(image.root, image.nodes, image.buckets, image.lists).used["lists6"]:
        assert (blocks.offset % blocks.units == 0).all()
        assert (blocks.units * 64 <= TABLE_PAGE_BYTES).all()


def steps(image: Image6, high: int, low: int) -> int:
    """How many nodes and lists the program visits for an address."""
    word, key, visits = int(image.root[high >> 48]), high, 0
    while word >> 28:
        visits += 1
        if word >> 28 == NODE:
            node = image.nodes[word & 0x0FFFFFFF]
            at = min(max(key - int(node["low"]), 0) >> int(node["shift"]), int(node["last"]))
            word = int(node["below"]) if key < int(node["low"]) else int(image.buckets[int(node["base"]) + at])
        else:
            begin, size = (word & 0x0FFFFFFF) * 16, 2 << (word >> 28)
            starts = image.lists.view(np.uint64)[begin // 2 : begin // 2 + size]
            word = int(image.lists[begin + 2 * size + int(np.searchsorted(starts, np.uint64(key), side="right")) - 1])
            key = low
    return visits


def test_the_worst_crowds_take_ten_steps_at_most() -> None:
    atoms = {"a": single(sorted({DOC + (near << bit) for bit in range(0, 108, 3) for near in range(40)}))}
    _, image = image_of(atoms)
    most = max(steps(image, address >> 64, address & brute.LOW) for address in brute.edges_of(atoms, 128))
    assert 5 <= most <= 10


def mixed(count: int, seed: int) -> Nets:
    """Distinct prefixes of all usual lengths in 2000::/4; an eighth are addresses."""
    rng = np.random.default_rng(seed)
    length = rng.choice(np.array([32, 40, 44, 48, 48, 56, 64, 128], np.uint8), size=count)
    high = np.uint64(2 << 60) | rng.integers(0, 1 << 60, size=count, dtype=np.uint64)
    shift = np.where(length < 64, 64 - length, 0).astype(np.uint64)
    low = np.where(length == 128, rng.integers(1, 1 << 63, size=count, dtype=np.uint64), np.uint64(0))
    net = np.column_stack([high >> shift << shift, low])
    order = np.lexsort((length, net[:, 1], net[:, 0]))
    return Nets(net6=net[order], len6=length[order])


@pytest.mark.parametrize("nets", [mixed(100_000, 1), spread(100_000, DOC, 9 << 40, 128)], ids=["mixed", "one /48"])
def test_memory_of_100_000_prefixes_is_below_16_mb(nets: Nets) -> None:
    _, image = image_of({"a": nets})
    assert sum(array.nbytes for array in (image.root, image.nodes, image.buckets, image.lists)) < 16 << 20
    assert len(image.lists) % PAGE_WORDS == len(image.buckets) % PAGE_WORDS == 0


def word(kind: int, rest: int) -> int:
    return kind << 28 | rest


def node_of(low: int, *, base: int = 0, last: int = 0, shift: int = 0, below: int = 0) -> npt.NDArray[np.void]:
    return np.array([(low, below, base, last, shift, (0, 0))], NODE6)


FIRST_KEY = 77 << 48
GARBAGE = {
    "a class beyond 65,535": (0x10000, None),
    "a list beyond the pages": (word(1, TABLE_PAGE_BYTES // 64), None),
    "a list that is not aligned": (word(2, 1), None),
    "a list of a size that no page has": (word(14, 0), None),
    "a list that starts too late": (word(1, 1), None),
    "a node that is not there": (word(NODE, 8), None),
    "a node of other keys": (word(NODE, 0), node_of(5)),
    "a node whose first key is the slot's": (word(NODE, 0), node_of(FIRST_KEY)),
    "a node of buckets that are not there": (word(NODE, 0), node_of(FIRST_KEY + 1, base=PAGE_WORDS)),
    "a node of more buckets than keys": (word(NODE, 0), node_of(FIRST_KEY + 1, last=9, shift=45)),
    "a shift beyond 63": (word(NODE, 0), node_of(FIRST_KEY + 1, shift=64)),
    "a node in itself": (word(NODE, 0), node_of(FIRST_KEY + 1, below=word(NODE, 0))),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused(name: str) -> None:
    value, node = GARBAGE[name]
    root, buckets, lists = (
        np.zeros(1 << 16, np.uint32),
        np.zeros(PAGE_WORDS, np.uint32),
        np.zeros(PAGE_WORDS, np.uint32),
    )
    nodes = np.zeros(8, NODE6)
    root[77] = value
    lists.view(np.uint64)[8:12] = 78 << 48
    if node is not None:
        nodes[0] = node[0]
    with pytest.raises(NotOurs):
        read6(root, nodes, buckets, lists)


def test_random_garbage_is_refused_or_read_without_another_error() -> None:
    rng = np.random.default_rng(7)
    _, image = image_of(TABLES["crowds at all distances"])
    for _ in range(200):
        arrays = [np.array(array) for array in (image.root, image.nodes, image.buckets, image.lists)]
        for array in arrays[1:]:
            words = array.view(np.uint32)
            used = max(8, int(words.nonzero()[0][-1]) + 1)
            at = rng.integers(0, used, 3)
            words[at] = rng.integers(0, 1 << 32, 3) >> rng.integers(0, 32, 3)
        try:
            brute.assert_canonical(read6(*arrays))
        except NotOurs:
            continue


def test_a_root_of_the_wrong_size_and_overlapping_blocks_are_refused() -> None:
    nodes, words = np.zeros(8, NODE6), np.zeros(PAGE_WORDS, np.uint32)
    with pytest.raises(NotOurs, match="65536 words, found 3"):
        read6(np.zeros(3, np.uint32), nodes, words, words)
    with pytest.raises(NotOurs, match="more is used than the array has"):
        read6(np.full(1 << 16, word(5, 0), np.uint32), nodes, words, words)


def test_lookups_that_leave_the_maps_find_class_0() -> None:
    words = np.ones(PAGE_WORDS, np.uint32)
    nodes = np.zeros(8, NODE6)
    nodes["base"] = PAGE_WORDS
    for value in (word(1, TABLE_PAGE_BYTES // 64), word(NODE, 8), word(NODE, 0)):
        image = Image6(np.full(1 << 16, value, np.uint32), nodes, words, words)
        assert lookup6(image, *brute.arrays6([DOC])).tolist() == [0]


def test_a_lookup_that_never_ends_finds_class_0() -> None:
    nodes = np.zeros(8, NODE6)
    buckets = np.full(PAGE_WORDS, word(NODE, 0), np.uint32)
    image = Image6(np.full(1 << 16, word(NODE, 0), np.uint32), nodes, buckets, np.zeros(PAGE_WORDS, np.uint32))
    assert lookup6(image, *brute.arrays6([DOC])).tolist() == [0]
