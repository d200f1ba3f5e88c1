"""The arithmetic of a full connection tracking table. Pure numbers; rates are per second, times in seconds.

Source: Linux ``net/netfilter/nf_conntrack_core.c``, ``early_drop()``, ``__nf_conntrack_alloc()`` and ``gc_worker()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, exp, expm1, inf, sqrt

SEARCHED = 8  # NF_CT_EVICTION_RANGE: buckets that early_drop() searches, from the new flow's own
GC_LAG_S = 60.0  # GC_SCAN_INTERVAL_MAX: an expired entry counts until a search or the next run of gc_worker() meets it
# What the formula of drop_probability() neglects, in p (1 - p): evictions empty whole buckets, so that entries are not
# spread by chance alone. In simulations of early_drop() p was up to a tenth lower, and never a fiftieth higher.
_LOWER, _HIGHER = 0.1, 0.03
_SIGMAS = 4.0  # one replay in 16,000 lies outside by chance
_GC_SHARE = 0.05  # nf_conntrack_max95
_CHAIN = 16  # more entries than one search evicts


@dataclass(frozen=True)
class Interval:
    """``low`` to ``high``, both included; ``inf`` for a time that never comes."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def none_found(unassured: float, buckets: int) -> float:
    """The probability that ``early_drop()`` finds nothing to evict. Each of ``unassured`` entries is in two of the
    ``buckets``, one for each direction.
    """
    return exp(-SEARCHED * 2 * unassured / buckets)


def evicted_at_once(unassured: float, buckets: int) -> float:
    """How many entries one search evicts on average: all that are in the first bucket that has any."""
    load = 2 * unassured / buckets
    return load / -expm1(-load) if load else 1.0


def drop_probability(unassured: float, buckets: int) -> float:
    """The share of new flows whose packet is dropped while the table is full.

    A search that finds nothing drops the packet; one that evicts d entries makes room for d flows.
    """
    nothing = none_found(unassured, buckets)
    return nothing / (nothing + (1 - nothing) * evicted_at_once(unassured, buckets))


def drop_share(unassured: Interval, buckets: int) -> Interval:
    """The interval of :func:`drop_probability`, over a number of entries that is an interval and with what the formula
    neglects.
    """
    least, most = (drop_probability(count, buckets) for count in (unassured.high, unassured.low))
    return Interval(least - _LOWER * least * (1 - least), most + _HIGHER * most * (1 - most))


def dropped_of(flows: int, share: Interval) -> Interval:
    """How many of ``flows`` that meet a full table are dropped, chance included."""
    least, most = flows * share.low, flows * share.high
    return Interval(
        max(0.0, least - _SIGMAS * sqrt(least * (1 - share.low)) - 1),
        min(float(flows), most + _SIGMAS * sqrt(most * (1 - share.high)) + 1),
    )


@dataclass(frozen=True)
class Burst:
    """What a number of new flows does to a table before any entry expires. ``over``: flows that meet a full table."""

    over: int
    dropped: Interval
    evicted: Interval
    entries: Interval


EMPTY = Interval(0, 0)


def burst(flows: int, *, limit: int, buckets: int, present: Interval = EMPTY, gc_runs: int = 0) -> Burst:
    """``flows`` new flows, each of which leaves an entry that is not assured. ``present`` entries were there before;
    whether they are assured is unknown. ``gc_runs``: how often ``gc_worker()`` may pass over the table meanwhile. After
    a search that found nothing it evicts while the count is above 95 % of the limit, each entry that it meets at most,
    and counts that nowhere.
    """
    free = max(limit - int(present.low), 0)
    over = max(flows - free, 0)
    least_over = min(over, max(flows - max(limit - int(present.high), 0), 0))
    surely, least_over = least_over, max(least_over - limit * gc_runs, 0)
    if not over:
        return Burst(0, Interval(0, 0), Interval(0, 0), Interval(present.low + flows, present.high + flows))
    left_free = ceil(2 * _GC_SHARE * limit) if gc_runs else 0  # below 95 % by one slice of it at most
    share = drop_share(Interval(max(limit - present.high, 0), limit), buckets)
    dropped = Interval(dropped_of(least_over, share).low, dropped_of(over, share).high)
    # What gc_worker() frees is neither dropped nor counted as evicted.
    evicted = Interval(max(least_over - dropped.high, 0), over - dropped_of(surely, share).low + _CHAIN)
    return Burst(over, dropped, evicted, Interval(max(limit - _CHAIN - left_free, 0), limit))


def entries_after(seconds: float, rates: Mapping[float, float], lag_s: float = 0.0) -> float:
    """Entries after so many seconds: each of ``rates`` (timeout: new flows per second) adds until its first entries
    expire, ``lag_s`` later than their timeout.
    """
    return sum(rate * min(seconds, timeout + lag_s) for timeout, rate in rates.items())


def entries_at_most(rates: Mapping[float, float], lag_s: float = GC_LAG_S) -> Interval:
    """Entries once as many expire as are added: r T to r (T + lag)."""
    return Interval(entries_after(inf, rates), entries_after(inf, rates, lag_s))


def full_after(free: float, rates: Mapping[float, float], lag_s: float = 0.0) -> float:
    """Seconds until ``free`` entries have been added, ``inf`` if never: as many expire before."""
    if free <= 0:
        return 0.0
    before = 0.0
    for until in sorted({timeout + lag_s for timeout, rate in rates.items() if rate > 0}):
        held = entries_after(before, rates, lag_s)
        growing = sum(rate for timeout, rate in rates.items() if timeout + lag_s > before)
        if growing > 0 and before + (free - held) / growing <= until:
            return before + (free - held) / growing
        before = until
    return inf


def fills(free: float, rates: Mapping[float, float]) -> Interval:
    """When the table is full, at the earliest (no expired entry is removed in time) and at the latest (each is)."""
    return Interval(full_after(free, rates, GC_LAG_S), full_after(free, rates))


def mean_life(unassured: float, accepted_per_s: float) -> float:
    """Mean life of an entry that is not assured, while the table is full: each accepted flow evicts one."""
    return unassured / accepted_per_s if accepted_per_s else inf
