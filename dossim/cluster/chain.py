"""What proves where shards begin: the records of a capture are a chain, of which each shard has walked a part. Pure.

A shard's part is right if it begins where that of the shard before it ends, with the same headers before it. The first
shard begins where its capture does, so that all are proved one after the other; a shard that does not fit is walked
again, from where it has to begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dossim.cluster.split import Shard


@dataclass(frozen=True)
class Place:
    """A byte of a capture at which a record begins, or its end. ``head``: the headers that the records from there on
    need, as a file has them: with these before them they are a capture of their own.
    """

    at: int
    head: bytes


@dataclass(frozen=True)
class Walked:
    """What the walk of a shard found. ``start`` None: no place was plausible, and nothing was walked. ``end``: the
    place of the first record after the shard's. ``stopped``: nothing of the file can be read from there on.
    ``records``: how many the shard has.
    """

    start: Place | None
    end: Place | None = None
    stopped: bool = False
    records: int = 0


def to_walk_again(shards: Sequence[Shard], walked: Sequence[Walked]) -> dict[int, Place]:
    """The shards that do not begin where those before them end, by number, and where they have to begin. Without any,
    all is proved.

    What a shard found that does not fit counts for nothing, but for its headers where only these were wrong. One after
    it is taken to be right until the next call: each time at least one more is.
    """
    again: dict[int, Place] = {}
    for numbers in _files(shards):
        place: Place | None = None  # where the next shard has to begin, if that is known
        for number in numbers:
            found = walked[number]
            if place is None or found.start == place:
                place = found.end
            else:
                again[number] = place
                fits = found.start is not None and found.start.at == place.at
                place = _with_head(found, place.head) if fits else found.end
            if found.stopped:
                place = None
    return again


def _with_head(found: Walked, head: bytes) -> Place | None:
    """Where a shard ends if it had begun with this head."""
    start, end = found.start, found.end
    if start is None or end is None or not end.head.startswith(start.head):
        return end  # a section began: the headers of the one before it do not matter any more
    return Place(end.at, head + end.head[len(start.head) :])


def counted_shards(shards: Sequence[Shard], walked: Sequence[Walked]) -> list[int]:
    """The numbers of the shards whose records are those of a capture: of a file that stops, those up to there."""
    found: list[int] = []
    for numbers in _files(shards):
        for number in numbers:
            found.append(number)
            if walked[number].stopped:
                break
    return found


def first_records(shards: Sequence[Shard], walked: Sequence[Walked]) -> list[int]:
    """The number in its file of the first record of each shard."""
    found: list[int] = []
    for numbers in _files(shards):
        before = 0
        for number in numbers:
            found.append(before)
            before += walked[number].records
    return found


def _files(shards: Sequence[Shard]) -> Iterator[range]:
    """The numbers of the shards of each capture."""
    first = 0
    for number in range(1, len(shards) + 1):
        if number == len(shards) or shards[number].file != shards[first].file:
            yield range(first, number)
            first = number
