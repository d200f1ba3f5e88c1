"""suggest: from an attack and a baseline to a list, the curve it is taken from, and what speaks for and against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from dossim.suggest.forged import Spread, spread
from dossim.suggest.measure import Costly, Point, Suggested, busiest, costly, point
from dossim.suggest.signature import Signature
from dossim.suggest.solve import Listed, Problem, Solved, best_lists
from dossim.suggest.tally import Ranges, Tally
from dossim.suggest.traffic import U64, Bool

INSTEAD = (16, 24, 32)  # prefix lengths of the lists that the suggestion is compared with
_STEPS = (1, 2, 5)  # of the curve, times powers of ten
_COSTLY = 10
_HALF = np.uint64(0x9E3779B97F4A7C15)  # spreads neighbouring keys over both halves


@dataclass(frozen=True)
class Wanted:
    """``limit``: the largest share of the baseline that the list may deny. ``signatures``: those that rules may use."""

    budget: int
    limit: float
    protected: Ranges
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True)
class HeldOut:
    """A list made in the same way from half of the customers: the shares of that half and of the other one that it
    denies.
    """

    known: float
    unknown: float


@dataclass(frozen=True)
class Suggestion:
    """``weight``: how much more a share of the baseline counts than the same share of the attack. ``here``: what the
    list does; ``curve``: what the best ones of growing sizes do. ``instead``: lists of the same size of the busiest
    networks, by prefix length. ``forged``: no list of sources is suggested, since none helps.
    """

    suggested: Suggested
    attack: Tally
    baseline: Tally | None
    budget: int
    limit: float
    weight: float
    here: Point
    curve: tuple[Point, ...]
    spread: Spread
    instead: Mapping[int, Point]
    costly: tuple[Costly, ...] = ()
    held_out: HeldOut | None = None
    forged: bool = field(default=False)

    @property
    def blocked_share(self) -> float:
        return self.here.blocked / self.attack.total

    @property
    def helps(self) -> bool:
        """Whether there is something to apply."""
        return bool(self.suggested.rules)


def suggest(attack: Tally, baseline: Tally | None, wanted: Wanted) -> Suggestion:
    """Both tallies are of ``wanted.signatures``. Raises HostError where there is no engine."""
    found = spread(attack)
    sources = Problem(attack, baseline, wanted.protected, wanted.limit)
    curve = _best(sources, wanted)
    best = None if found.is_forged else curve
    if wanted.signatures and baseline is not None:
        ruled = replace(sources, signatures=wanted.signatures, only_anywhere=found.is_forged)
        best = max(filter(None, [best, _best(ruled, wanted)]), key=lambda each: each.rank)
    chosen = best.lists[-1] if best and best.lists else Listed(1.0, Suggested((), (), wanted.protected))
    here = point(chosen.suggested, attack, baseline)
    instead = {length: busiest(attack, wanted.protected, length, here.size) for length in INSTEAD}
    usual = attack.where(np.zeros(len(attack.key), np.bool_)) if baseline is None else baseline
    return Suggestion(
        suggested=chosen.suggested,
        attack=attack,
        baseline=baseline,
        budget=wanted.budget,
        limit=wanted.limit,
        weight=chosen.weight,
        here=here,
        curve=(curve if best is None or found.is_forged else best).points,
        spread=found,
        instead={length: point(other, attack, baseline) for length, other in instead.items()},
        costly=tuple(costly(chosen.suggested, attack, usual, _COSTLY)),
        held_out=_held_out(best.problem, wanted.budget, chosen.weight) if best and here.size else None,
        forged=found.is_forged,
    )


@dataclass(frozen=True)
class _Best:
    """A problem and its best lists, the largest last."""

    problem: Problem
    lists: Sequence[Listed]

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """What they do, after what no list does."""
        each = (point(item.suggested, self.problem.attack, self.problem.baseline) for item in self.lists)
        return (Point(0, 0, 0, 0.0), *each)

    @property
    def rank(self) -> tuple[int, int, int]:
        """The more blocked the better; then the less collateral, the smaller."""
        found = self.points[-1]
        return (found.blocked, -found.collateral, -found.size)


def _best(problem: Problem, wanted: Wanted) -> _Best:
    return _Best(problem, best_lists(problem, _sizes(wanted.budget)))


def _sizes(budget: int) -> list[int]:
    steps = [step * 10**power for power in range(len(str(budget))) for step in _STEPS]
    return [*(size for size in steps if size < budget), budget]


def _held_out(problem: Problem, budget: int, weight: float) -> HeldOut | None:
    """None without a baseline, or with one that has too few sources for two halves."""
    if problem.baseline is None:
        return None
    first = _half(problem.baseline.key)
    known, unknown = problem.baseline.where(first), problem.baseline.where(~first)
    if not known.total or not unknown.total:
        return None
    half = replace(problem, baseline=known)
    with Solved(half, budget, weight) as solved:
        found = half.suggested(solved.within(budget).prefixes)
    return HeldOut(*(point(found, known, half).share for half in (known, unknown)))


def _half(key: U64) -> Bool:
    """About every second source."""
    return np.asarray(key * _HALF >> np.uint64(63) == 0, np.bool_)
