"""Random sources as uneven as those of real attacks: a few networks have most of them, at every prefix length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dossim.suggest.tally import Tally

U64 = npt.NDArray[np.uint64]

_UNEVEN_BITS = 12  # the first ones are divided as unevenly as address space is between registries and providers


def sources(count: int, shape: int, seed: int) -> U64:
    """IPv4 unicast addresses, in the upper half; those of one shape are in the same networks, whatever the seed.

    Each bit of an address is drawn with a probability that depends on the bits before it (a multiplicative cascade).
    """
    rng = np.random.default_rng(seed)
    found = np.zeros(0, np.uint64)
    while len(found) < count:
        drawn = _drawn(rng, count, shape)
        first = drawn >> np.uint64(24)
        found = np.concatenate([found, drawn[(first > 0) & (first < 224) & (first != 127)]])
    return found[:count] << np.uint64(32)


def _drawn(rng: np.random.Generator, count: int, shape: int) -> U64:
    found = np.zeros(count, np.uint64)
    for bit in range(32):
        chance = _chance(found, bit, shape)
        spread = 0.02 + 0.96 * chance if bit < _UNEVEN_BITS else 0.1 + 0.8 * chance
        found = found << np.uint64(1) | (rng.random(count) < spread).astype(np.uint64)
    return found


def _chance(prefix: U64, bit: int, shape: int) -> npt.NDArray[np.float64]:
    """A number of each prefix between 0 and 1, near one of them for most (splitmix64)."""
    mixed = prefix * np.uint64(0x9E3779B97F4A7C15) + np.uint64(bit * 7919 + shape * 104_729)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    even = (mixed ^ mixed >> np.uint64(31)).astype(np.float64) / 2.0**64
    return np.sin(np.pi / 2 * even) ** 2


def tally_of(keys: U64) -> Tally:
    """One packet of each."""
    keys = np.sort(keys)
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    none = np.zeros(len(first), np.bool_)
    return Tally(none, keys[first], none.astype(np.uint32), np.diff(np.append(first, len(keys))))
