"""The times over which the agents of a fleet spread: their limits, with dice that fall on the lowest or the highest."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from enforcer.datastore.jitter import about, back_off_s, relist_s

LOWEST: Callable[[float, float], float] = min
HIGHEST: Callable[[float, float], float] = max
MIB = 1 << 20


@pytest.mark.parametrize(
    ("failures", "most_s"), [(0, 0.5), (1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (7, 30.0), (10_000, 30.0)]
)
def test_attempts_are_spread_over_a_time_that_doubles(
    failures: int, most_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", HIGHEST)
    assert back_off_s(failures) == most_s
    monkeypatch.setattr(random, "uniform", LOWEST)
    assert back_off_s(failures) == 0, "full jitter: not all wait for the half of it first"


@pytest.mark.parametrize(("size", "most_s"), [(0, 5.0), (5 * MIB, 5.0), (5 * MIB + 1, 60.0), (200 * MIB, 60.0)])
def test_a_long_list_is_spread_over_a_minute(size: int, most_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", HIGHEST)
    assert relist_s(size) == most_s
    monkeypatch.setattr(random, "uniform", LOWEST)
    assert relist_s(size) == 0


def test_a_period_differs_by_a_fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", HIGHEST)
    assert about(10) == pytest.approx(12)
    monkeypatch.setattr(random, "uniform", LOWEST)
    assert about(10) == pytest.approx(8)
