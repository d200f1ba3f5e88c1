"""Totals of what entries matched, by interface, stage, policy and action, from the counters in the kernel.

The kernel's counters are of entries, and end with them. Totals only grow while the agent runs: an entry that is
replaced takes nothing away from its policy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enforcer.backends.base import EntryCount
from enforcer.model.vocabulary import Action, Stage
from enforcer.monitor.bounded import OTHER, Shown
from enforcer.planning.plan import Plan
from enforcer.policy.ruletable import Entry
from enforcer.policy.tracked import TrackedChain

INTERFACES_MAX, POLICIES_MAX, ENTRIES_MAX = 32, 50, 200
_FRESH_S, _IDLE_SHARE = 1.0, 50  # after a read, no other for a second, and for fifty times as long as it took

INVALID, NO_PROFILE = "conntrack-invalid", "no-profile"  # what stands for a policy where none decides

Meaning = tuple[str, Action]  # policy, action
Known = Mapping[tuple[str, str], Meaning]  # by interface and entry


@dataclass(frozen=True)
class Key:
    """The labels of one total. ``entry`` is set in totals of entries only."""

    interface: str
    stage: Stage
    policy: str
    action: Action
    entry: str = ""


@dataclass(frozen=True)
class Reading:
    """``totals``: (packets, bytes). ``age_s``: since they were read; None: never. ``failures``: of reading."""

    totals: Mapping[Key, tuple[int, int]]
    entries: Mapping[Key, tuple[int, int]]
    age_s: float | None
    failures: int


def meanings(plan: Plan) -> Known:
    """Policy and action of every entry that has a counter."""
    found: dict[tuple[str, str], Meaning] = {}
    for item in plan.interfaces:
        for planned in item.entries:
            found[item.interface, planned.entry.name] = _meaning(planned.entry)
    for tracked in plan.tracked:
        if tracked.enforced:
            for chain in tracked.table.chains:
                found |= {(tracked.interface, name): meaning for name, meaning in _of_chain(chain)}
    return found


def _meaning(entry: Entry) -> Meaning:
    return entry.policy or entry.name, entry.action


def _of_chain(chain: TrackedChain) -> Iterator[tuple[str, Meaning]]:
    yield chain.invalid, (INVALID, Action.DENY)
    yield chain.no_profile, (NO_PROFILE, Action.DENY)
    for tier in chain.tiers:
        yield tier.end(chain.hook.direction), (f"tier/{tier.name}", Action.DENY)
        yield from ((entry.name, _meaning(entry)) for entry in tier.entries)
    for profile in chain.profiles:
        yield from ((entry.name, (f"profile/{profile.name}", entry.action)) for entry in profile.entries)


class Totals:
    """Sums that never shrink. ``entries``: also keep one for each of the first entries of an interface."""

    def __init__(self, *, entries: bool = False) -> None:
        self._entries = entries
        self._last: dict[tuple[str, str, Stage], tuple[int, int]] = {}
        self._interfaces, self._policies = Shown(INTERFACES_MAX), Shown(POLICIES_MAX)
        self.totals: dict[Key, tuple[int, int]] = {}
        self.by_entry: dict[Key, tuple[int, int]] = {}

    def add(self, counts: Sequence[EntryCount], known: Known) -> None:
        """Add what the counters have grown by. Counters of entries that are not ``known`` wait until they are."""
        counts = [count for count in counts if (count.interface, count.entry) in known]
        self._interfaces.update({count.interface for count in counts})
        self._policies.update({known[count.interface, count.entry][0] for count in counts})
        last, alive = self._last, set()
        self._last = {}
        for count in counts:
            place = (count.interface, count.entry, count.stage)
            grown = _growth(last.get(place, (0, 0)), (count.packets, count.bytes))
            self._last[place] = (count.packets, count.bytes)
            policy, action = known[count.interface, count.entry]
            key = Key(self._interfaces.label(count.interface), count.stage, self._policies.label(policy), action)
            self.totals[key] = _plus(self.totals.get(key, (0, 0)), grown)
            alive.add(key)
        self.totals = {key: value for key, value in self.totals.items() if key in alive or _is_other(key)}
        if self._entries:
            self.by_entry = dict(self._of_entries(counts, known))

    def _of_entries(self, counts: Iterable[EntryCount], known: Known) -> Iterator[tuple[Key, tuple[int, int]]]:
        """The kernel's own counters of the first entries of the shown interfaces."""
        seen: dict[str, dict[str, None]] = {}
        for count in counts:
            names = seen.setdefault(count.interface, {})
            if self._interfaces.label(count.interface) == OTHER:
                continue
            if count.entry in names or len(names) < ENTRIES_MAX:
                names[count.entry] = None
                policy, action = known[count.interface, count.entry]
                key = Key(count.interface, count.stage, self._policies.label(policy), action, count.entry)
                yield key, (count.packets, count.bytes)


def _is_other(key: Key) -> bool:
    return OTHER in (key.interface, key.policy)


def _growth(last: tuple[int, int], now: tuple[int, int]) -> tuple[int, int]:
    """What a counter grew by; one that shrank began anew."""
    return (now[0] - last[0], now[1] - last[1]) if now[0] >= last[0] and now[1] >= last[1] else now


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


class CounterReader:
    """Reads the kernel's counters at most once a second, for at most 2 % of the time, and not while a pass changes
    them: then it answers with the last values and their age. For several threads.
    """

    def __init__(self, read: Callable[[], Sequence[EntryCount]], *, entries: bool = False) -> None:
        self._read = read
        self._totals = Totals(entries=entries)
        self._lock = threading.Lock()
        self._read_s: float | None = None
        self._next_s = 0.0  # not before
        self._failures = 0
        self._known: tuple[Plan | None, Known] = (None, {})

    def read(self, plan: Plan | None, *, passing: bool) -> Reading:
        """``plan``: of the last pass. ``passing``: a pass is running now. Raises nothing."""
        with self._lock:
            began_s = time.monotonic()
            if plan is not None and not passing and began_s >= self._next_s:
                if self._known[0] is not plan:
                    self._known = (plan, meanings(plan))
                try:
                    self._totals.add(self._read(), self._known[1])
                    self._read_s = time.monotonic()
                except Exception:  # counted, and visible as an age that grows
                    self._failures += 1
                took_s = time.monotonic() - began_s
                self._next_s = began_s + max(_FRESH_S, _IDLE_SHARE * took_s)
            age_s = None if self._read_s is None else time.monotonic() - self._read_s
            return Reading(dict(self._totals.totals), dict(self._totals.by_entry), age_s, self._failures)
