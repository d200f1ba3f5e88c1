"""Shards of any size, and the chain that proves where they begin."""

from __future__ import annotations

import random

import pytest

from dossim.cluster.chain import Place, Walked, counted_shards, first_records, to_walk_again
from dossim.cluster.split import Shard, shards_of


@pytest.mark.parametrize(
    ("sizes", "least", "expected"),
    [
        pytest.param([10], 100, [(0, 0, 10)], id="one that is smaller is one shard"),
        pytest.param([199], 100, [(0, 0, 199)], id="one that is not twice as large is one shard"),
        pytest.param([200], 100, [(0, 0, 100), (0, 100, 200)], id="one that is twice as large is two"),
        pytest.param([0, 5], 2, [(0, 0, 0), (1, 0, 2), (1, 2, 5)], id="an empty one has a shard, which says so"),
    ],
)
def test_how_captures_are_split(sizes: list[int], least: int, expected: list[tuple[int, int, int]]) -> None:
    assert shards_of(sizes, least) == [Shard(*each) for each in expected]


class Chain:
    """A file as the places of its records, some of which change the head; ``stop``: the byte from which on none can be
    read.
    """

    def __init__(self, rng: random.Random) -> None:
        self.size = rng.randint(1, 400)
        starts = sorted({0, *(rng.randrange(self.size) for _ in range(rng.randint(0, 60)))})
        head, self.places = b"", []
        for at in starts:
            self.places.append(Place(at, head))
            change = rng.random()
            head = head + b"i" if change < 0.1 else b"s%d" % at if change < 0.15 else head
        self.over = Place(self.size, head)
        self.stop = rng.choice(starts) if rng.random() < 0.3 else None

    def walk(self, shard: Shard, start: Place | None) -> Walked:
        """A walk from a place that is one of the file's; from any other one it finds something that is wrong."""
        if start is None:
            return Walked(None)
        if start not in self.places and start != self.over:
            return Walked(start, Place(start.at + 7, start.head + b"?"), start.at % 3 == 0, 5)
        mine = [place for place in self.places if start.at <= place.at < shard.last]
        if self.stop is not None and any(place.at == self.stop for place in mine):
            kept = [place for place in mine if place.at < self.stop]
            return Walked(start, next(place for place in self.places if place.at == self.stop), True, len(kept))
        after = [place for place in self.places if place.at >= max(shard.last, start.at)]
        return Walked(start, after[0] if after else self.over, False, len(mine))


@pytest.mark.parametrize("seed", range(200))
def test_whatever_was_guessed_the_walk_ends_as_one_over_the_whole_file(seed: int) -> None:
    rng = random.Random(seed)
    files = [Chain(rng) for _ in range(rng.randint(1, 3))]
    shards = shards_of([file.size for file in files], rng.choice((1, 5, 20, 100, 1000)))
    walked = []
    for shard in shards:
        right = next((place for place in files[shard.file].places if place.at >= shard.first), files[shard.file].over)
        guess = rng.choice((right, right, Place(right.at, b"other"), Place(shard.first + 1, b""), None))
        walked.append(files[shard.file].walk(shard, guess if shard.first else files[shard.file].places[0]))
    rounds = 0
    while again := to_walk_again(shards, walked):
        rounds += 1
        assert rounds <= len(shards)
        for number, place in again.items():
            walked[number] = files[shards[number].file].walk(shards[number], place)
    for number, file in enumerate(files):
        mine = [index for index in counted_shards(shards, walked) if shards[index].file == number]
        records = [place for place in file.places if file.stop is None or place.at < file.stop]
        assert sum(walked[index].records for index in mine) == len(records)
        for index, before in zip(mine[1:], mine, strict=False):
            assert walked[index].start == walked[before].end
            assert (
                first_records(shards, walked)[index] == first_records(shards, walked)[before] + walked[before].records
            )


def test_a_new_head_costs_one_more_walk_of_what_is_after_it_not_one_for_each_shard() -> None:
    shards = shards_of([100], 10)
    walked = [Walked(Place(at, b"a"), Place(at + 10, b"ab" if at == 20 else b"a")) for at in range(0, 100, 10)]
    assert to_walk_again(shards, walked) == {number: Place(number * 10, b"ab") for number in range(3, 10)}
