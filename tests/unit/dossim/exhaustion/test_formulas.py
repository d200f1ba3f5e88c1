"""The arithmetic of a full table, against what Linux 6.18 was measured to do."""

from __future__ import annotations

from math import inf

import pytest

from dossim.exhaustion.formulas import (
    GC_LAG_S,
    Interval,
    burst,
    drop_probability,
    drop_share,
    entries_after,
    entries_at_most,
    fills,
    full_after,
    mean_life,
    none_found,
)

BUCKETS = 262_144
# One flood of UDP flows each, in a namespace of its own: limit, flows, packets dropped at conntrack, the formula.
MEASURED = [
    (262_144, 420_000, 0, 4.9e-8),
    (65_536, 130_000, 897, 0.0145),
    (32_768, 80_000, 5_506, 0.122),
    (8_192, 30_000, 13_113, 0.599),
    (8_192, 30_000, 13_086, 0.599),
    (2_048, 12_000, 8_759, 0.882),
    (2_048, 12_000, 8_823, 0.882),
]


@pytest.mark.parametrize(("limit", "flows", "dropped", "probability"), MEASURED)
def test_as_measured(limit: int, flows: int, dropped: int, probability: float) -> None:
    assert drop_probability(limit, BUCKETS) == pytest.approx(probability, rel=0.01)
    found = burst(flows, limit=limit, buckets=BUCKETS)
    assert found.over == flows - limit
    assert found.dropped.holds(dropped)
    assert found.evicted.holds(found.over - dropped)


@pytest.mark.parametrize(("limit", "flows", "dropped", "probability"), MEASURED[1:])
def test_the_interval_says_something(limit: int, flows: int, dropped: int, probability: float) -> None:
    found = burst(flows, limit=limit, buckets=BUCKETS).dropped
    assert found.high - found.low < max(0.25 * dropped, 500)
    assert not found.holds(dropped * 1.3)
    assert not found.holds(dropped * 0.7)


def test_more_buckets_find_less_to_evict() -> None:
    assert drop_probability(65_536, 65_536) < 1e-6
    assert drop_probability(65_536, 4 * 65_536) == pytest.approx(0.0145, rel=0.01)
    assert drop_probability(65_536, 64 * 65_536) > 0.7


def test_a_table_in_which_nothing_can_be_evicted_drops_every_new_flow() -> None:
    assert none_found(0, BUCKETS) == 1.0
    assert drop_probability(0, BUCKETS) == 1.0
    assert burst(100, limit=50, buckets=64, present=Interval(50, 50)).dropped == Interval(
        burst(100, limit=50, buckets=64, present=Interval(50, 50)).dropped.low, 100
    )


def test_entries_that_may_be_assured_widen_the_interval() -> None:
    certain, uncertain = drop_share(Interval(8_192, 8_192), BUCKETS), drop_share(Interval(4_096, 8_192), BUCKETS)
    assert uncertain.low == certain.low
    assert uncertain.high > drop_share(Interval(4_096, 4_096), BUCKETS).low > certain.high


@pytest.mark.parametrize(
    ("flows", "over", "entries"),
    [(100, 0, Interval(100, 100)), (2_048, 0, Interval(2_048, 2_048)), (2_049, 1, Interval(2_032, 2_048))],
    ids=["room is left", "exactly full", "one too many"],
)
def test_the_boundary(flows: int, over: int, entries: Interval) -> None:
    found = burst(flows, limit=2_048, buckets=BUCKETS)
    assert (found.over, found.entries) == (over, entries)
    assert found.dropped.high <= over


def test_gc_may_have_made_room_in_a_long_replay() -> None:
    at_once = burst(12_000, limit=2_048, buckets=BUCKETS)
    slow = burst(12_000, limit=2_048, buckets=BUCKETS, gc_runs=1)
    assert slow.dropped.high == at_once.dropped.high
    assert slow.dropped.low < at_once.dropped.low - 2_048 * 0.85
    assert slow.dropped.low > 0.75 * at_once.dropped.low


# --- occupancy and time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "least", "most"),
    [
        ({30.0: 12_000.0}, 262_144 / 12_000, 262_144 / 12_000),
        ({30.0: 8_739.0}, 262_144 / 8_739, 262_144 / 8_739),
        ({30.0: 8_000.0}, 262_144 / 8_000, inf),
        ({30.0: 2_900.0}, inf, inf),
        ({60.0: 4_400.0}, 262_144 / 4_400, 262_144 / 4_400),
        ({600.0: 430.0}, 262_144 / 430, inf),
        ({}, inf, inf),
        ({3.0: 10_000.0, 600.0: 1_000.0}, 262_144 / 11_000, 262_144 / 1_000 - 30),
    ],
    ids=[
        *("faster than expiry", "just above", "only if expired entries are removed late", "never"),
        *("SYN to an open port", "a generic protocol just below", "no flows", "two timeouts"),
    ],
)
def test_when_the_table_is_full(rates: dict[float, float], least: float, most: float) -> None:
    assert fills(262_144, rates) == Interval(pytest.approx(least), pytest.approx(most))


def test_two_timeouts_add_up() -> None:
    rates = {3.0: 1_000.0, 30.0: 100.0}
    assert full_after(2_000, rates) == pytest.approx(2_000 / 1_100)
    assert full_after(5_000, rates) == pytest.approx(20.0), "3,000 stay, and 100/s are added"
    assert full_after(6_001, rates) == inf
    assert entries_after(20, rates) == pytest.approx(5_000)
    assert full_after(0, rates) == 0


def test_expired_entries_count_until_they_are_removed() -> None:
    """4,000/s with a timeout of 3 s were measured to take 12,254 to 34,661 entries."""
    found = entries_at_most({3.0: 4_000.0})
    assert found == Interval(12_000, 12_000 + 4_000 * GC_LAG_S)
    assert found.holds(12_254)
    assert found.holds(34_661)


def test_the_life_of_an_entry() -> None:
    assert mean_life(262_144, 12_000) == pytest.approx(21.8, abs=0.1)
    assert mean_life(262_144, 0) == inf
