"""The cheapest list within a budget, and one that also keeps the collateral below a limit.

What a list costs is the share of the attack that it lets through, and ``weight`` times the share of the baseline that
it denies. For a given weight the cover is exact for every size. The weight starts at 1 (a list never denies a larger
share of the baseline than it takes of the attack) and grows as far as the limit needs: the higher it is, the less a
list of the same size denies of the baseline. Of a list beyond the limit, those parts are left out that deny most of
the baseline for what they block, until it is within; of all lists within the limit, the one that blocks most is taken.

With signatures each packet of the attack is covered by rules of the first one that it matches, or, if it matches none,
by sources alone. What a rule denies of the baseline is counted for each rule, so that rules which overlap are
never taken for cheaper than they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dossim.engine.cover import EVERYTHING, NEVER, Cover, Group, Prefix
from dossim.suggest.measure import SPREAD, Rule, Suggested
from dossim.suggest.signature import Signature
from dossim.suggest.tally import BITS, FAMILIES, Ranges, Tally, distinct, network_of, prefix_range
from dossim.suggest.traffic import I64, U64
from enforcer.emergency.protection import WIDEST

F64 = npt.NDArray[np.float64]

_UNIT = 1 << 40  # what all of the attack costs, and with a weight of 1 all of the baseline
_WEIGHT_MAX = 1 << 14  # beyond it one of 16,384 equal customers costs as much as all of the attack
_FACTOR = 1.5
_ROUNDING = 1e-12  # of sums of shares
_BETWEEN = (-0.75, -0.5, -0.25, 0.25, 0.5)  # weights tried beside the best one
# What all addresses cost beside the baseline: of lists that cost the same, the one with fewer addresses is the better.
_TIE = 1 << 16
_SOURCES_FOR_EVERYWHERE = 16  # fewer are listed: others may use the same port


@dataclass(frozen=True)
class Problem:
    """``baseline`` None: nothing is known of legitimate traffic, which is then taken to come evenly from everywhere.
    ``limit``: the share of it that a list may deny. ``signatures``: those of the tallies' masks; none: sources alone.
    ``only_anywhere``: no lists of sources.
    """

    attack: Tally
    baseline: Tally | None
    protected: Ranges
    limit: float = 1.0
    signatures: tuple[Signature, ...] = ()
    only_anywhere: bool = False

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        return tuple(_parts(self))

    def suggested(self, prefixes: Sequence[Prefix]) -> Suggested:
        """A list of prefixes of the parts."""
        rules: dict[Signature | None, Rule] = {}
        for number, some in _by_part(prefixes).items():
            part = self.parts[number]
            rules[part.signature] = _with(rules.get(part.signature, Rule(part.signature)), part, some)
        return Suggested(tuple(rules.values()), self.signatures, self.protected)

    def effects(self, prefixes: Sequence[Prefix]) -> tuple[I64, F64]:
        """Of each prefix, sorted by part: packets of the attack, and the share of the baseline, or without one of all
        addresses of its family.
        """
        each = [(self.parts[number], some) for number, some in _by_part(prefixes).items()]
        counts = [part.effects(some) for part, some in each]
        blocked = np.concatenate([attack for attack, _ in counts])
        if self.baseline is not None:
            return blocked, np.concatenate([baseline for _, baseline in counts]) / max(self.baseline.total, 1)
        lengths = [item.length - SPREAD[part.version] for part, some in each for item in some]
        return blocked, 2.0 ** -np.array(lengths, np.float64)


def _by_part(prefixes: Sequence[Prefix]) -> Mapping[int, Sequence[Prefix]]:
    found: dict[int, list[Prefix]] = {}
    for prefix in sorted(prefixes, key=lambda item: item.group):
        found.setdefault(prefix.group, []).append(prefix)
    return found


@dataclass(frozen=True)
class Part:
    """A group of the cover before its costs are weighed. ``charged``: packets of the baseline, -1: protected.
    ``everywhere``: packets of the attack, and of the baseline, that a rule for all sources but the protected ones
    would deny; None: there may be no such rule.
    """

    signature: Signature | None
    version: int
    keys: U64
    packets: I64
    charged: I64
    everywhere: tuple[int, int] | None = None

    @cached_property
    def _before(self) -> tuple[I64, I64]:
        """Packets of the attack, and of the baseline, before each key, and of all."""
        attack, baseline = (
            np.concatenate([[0], np.cumsum(np.maximum(column, 0))]) for column in (self.packets, self.charged)
        )
        return attack, baseline

    def effects(self, prefixes: Sequence[Prefix]) -> tuple[I64, I64]:
        """Packets of the attack and of the baseline in each of these disjoint prefixes."""
        if prefixes[0].length == EVERYTHING:
            assert self.everywhere is not None
            blocked, denied = self.everywhere
            return np.array([blocked]), np.array([denied])
        first, last = np.array([prefix_range(item.key, item.length) for item in prefixes], np.uint64).T
        start, after = np.searchsorted(self.keys, first), np.searchsorted(self.keys, last, "right")
        attack, baseline = (column[after] - column[start] for column in self._before)
        return attack, baseline


def _parts(problem: Problem) -> Iterator[Part]:
    taken = np.zeros(len(problem.attack.key), np.bool_)
    baseline = _no_tally() if problem.baseline is None else problem.baseline
    for bit, signature in enumerate(problem.signatures):
        attacked, charged = (part.mask >> np.uint32(bit) & np.uint32(1) > 0 for part in (problem.attack, baseline))
        rows = problem.attack.where(attacked & ~taken)
        taken |= attacked
        for version in signature.families:
            yield from _part(problem, signature, version, rows, baseline.where(charged))
    if not problem.only_anywhere:
        for version in FAMILIES:
            yield from _part(problem, None, version, problem.attack.where(~taken), baseline)


def _part(
    problem: Problem, signature: Signature | None, version: int, attack: Tally, baseline: Tally
) -> Iterator[Part]:
    mine, usual = (part.where(part.is_six == (version == 6)) for part in (attack, baseline))
    if not len(mine.key):
        return
    everywhere = None
    if signature is not None and (problem.only_anywhere or len(distinct(mine.key)) >= _SOURCES_FOR_EVERYWHERE):
        blocked, denied = (part.count(~problem.protected.contain(part.is_six, part.key)) for part in (mine, usual))
        everywhere = (blocked, denied)
    if problem.only_anywhere:
        yield Part(signature, version, np.zeros(1, np.uint64), np.array([mine.total]), np.array([-1]), everywhere)
        return
    keys = distinct(mine.key, usual.key, problem.protected.firsts(version))
    charged = _per_key(keys, usual)
    charged[problem.protected.contain(np.full(len(keys), version == 6), keys)] = -1
    yield Part(signature, version, keys, _per_key(keys, mine), charged, everywhere)


def _per_key(keys: U64, tally: Tally) -> I64:
    found = np.zeros(len(keys), np.int64)
    np.add.at(found, np.searchsorted(keys, tally.key), tally.packets)
    return found


def _no_tally() -> Tally:
    return Tally(np.zeros(0, np.bool_), np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.int64))


class Solved:
    """The cheapest lists of a problem for one weight, of every size up to a budget. To be used in ``with``."""

    def __init__(self, problem: Problem, budget: int, weight: float) -> None:
        """Raises HostError where there is no engine."""
        self._problem = problem
        self.weight = weight
        self._cover = Cover([self._group(part) for part in problem.parts], budget)

    def __enter__(self) -> Solved:
        return self

    def __exit__(self, *_: object) -> None:
        self._cover.close()

    def _group(self, part: Part) -> Group:
        problem, weight = self._problem, self.weight
        unit = _UNIT // max(problem.attack.total, 1)  # of one packet
        usual = problem.baseline.total if problem.baseline else 0
        charge = max(1, round(weight * _UNIT / usual)) if usual else 0
        collateral = np.minimum(part.charged.astype(np.float64) * charge, NEVER).astype(np.int64)
        space = min(round(weight * _UNIT), NEVER)
        most = round(problem.limit * space)
        if problem.baseline is not None:
            space = min(_TIE, unit - 1) if part.signature is None else 0
            most = int((problem.limit + _ROUNDING) * usual) * charge + (space << SPREAD[part.version])
        return Group(
            part.keys,
            part.packets * unit,
            np.where(part.charged < 0, NEVER, collateral),
            BITS[part.version],
            space << SPREAD[part.version],
            0 if part.signature is not None else WIDEST[part.version],
            min(most, NEVER),
            self._everything(part, unit, charge, most),
        )

    @staticmethod
    def _everything(part: Part, unit: int, charge: int, most: int) -> int:
        """The cost of a rule for all sources; less than that of networks which do the same."""
        if part.everywhere is None:
            return NEVER
        blocked, denied = part.everywhere
        left = (int(part.packets.sum()) - blocked) * unit
        return min(left + denied * charge - 1, NEVER) if denied * charge <= most else NEVER

    def suggested(self, size: int) -> Suggested:
        """The cheapest list of at most this size."""
        return self._problem.suggested(self._cover.prefixes(size))

    def within(self, size: int) -> Within:
        """The cheapest list of at most this size, and what of it is within the limit."""
        prefixes = self._cover.prefixes(size)
        if not prefixes:
            return Within((), 0, 0)
        blocked, denied = self._problem.effects(prefixes)
        worth = np.argsort(denied / np.maximum(blocked, 1), kind="stable")
        keeps = np.cumsum(denied[worth]) <= self._problem.limit + _ROUNDING
        kept = np.sort(worth[keeps])
        return Within(tuple(prefixes[at] for at in kept.tolist()), int(blocked[kept].sum()), int((~keeps).sum()))


@dataclass(frozen=True)
class Within:
    """A list within the limit. ``blocked``: packets of the attack, by rules that are counted one by one. ``left_out``:
    how many parts of the cheapest list are not in it.
    """

    prefixes: tuple[Prefix, ...]
    blocked: int
    left_out: int


def _with(rule: Rule, part: Part, prefixes: Sequence[Prefix]) -> Rule:
    if prefixes[0].length == EVERYTHING:
        return replace(rule, anywhere=(*rule.anywhere, part.version))
    nets = [network_of(part.version, prefix.key, prefix.length) for prefix in prefixes]
    return replace(rule, nets=(*rule.nets, *nets))


@dataclass(frozen=True)
class Listed:
    """A list, and the weight for which it, or the list that it is a part of, is the cheapest."""

    weight: float
    suggested: Suggested


@dataclass(frozen=True)
class _Offer:
    weight: float
    within: Within


def best_lists(problem: Problem, sizes: Sequence[int]) -> list[Listed]:
    """For at most each size, of the lists for some weight that are within the limit, the one that blocks most. Fewer
    where a larger list is no better. Raises HostError where there is no engine.
    """
    found = {size: _Offer(1.0, Within((), 0, 0)) for size in sizes}
    open_sizes, weight = set(sizes), 1.0
    while open_sizes:
        open_sizes -= _offer(problem, open_sizes, weight, found)
        weight *= _FACTOR
        if weight > _WEIGHT_MAX:
            break
    high = found[max(sizes)].weight
    for middle in (high * _FACTOR**power for power in _BETWEEN) if high > 1 else ():
        _offer(problem, sizes, middle, found)
    return [Listed(item.weight, problem.suggested(item.within.prefixes)) for item in _growing(found)]


def _offer(problem: Problem, sizes: Collection[int], weight: float, found: dict[int, _Offer]) -> set[int]:
    """Takes the lists of these sizes that are better. Returns the sizes of which the cheapest list is within the
    limit as a whole: with a higher weight it blocks no more.
    """
    whole = set()
    with Solved(problem, max(sizes), weight) as solved:
        for size in sizes:
            within = solved.within(size)
            if within.blocked > found[size].within.blocked:
                found[size] = _Offer(weight, within)
            if not within.left_out:
                whole.add(size)
    return whole


def _growing(found: Mapping[int, _Offer]) -> Iterator[_Offer]:
    """Without larger lists that are no better: of those that block as much, the larger one denies less besides."""
    size = blocked = 0
    for _, item in sorted(found.items()):
        if len(item.within.prefixes) > size and item.within.blocked >= blocked:
            yield item
            size, blocked = len(item.within.prefixes), item.within.blocked
