"""Where captures are split into shards: by size alone, before anything of them is read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# A shard costs a task, a guess and a proof, whatever its size: of smaller ones that is much of the time.
LEAST = 1 << 30


@dataclass(frozen=True)
class Shard:
    """The records of a capture that begin at byte ``first`` or later and before byte ``last``. ``file`` is its number
    among the captures; their packets arrive in that order.
    """

    file: int
    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first


def shards_of(sizes: Sequence[int], least: int = LEAST) -> list[Shard]:
    """The shards of captures with these sizes in bytes, in order, each of ``least`` bytes or more, where its capture is
    not smaller. Every capture has at least one.
    """
    found = []
    for file, size in enumerate(sizes):
        count = max(size // least, 1)
        edges = [size * number // count for number in range(count + 1)]
        found += [Shard(file, first, last) for first, last in pairwise(edges)]
    return found
