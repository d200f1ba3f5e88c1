"""Durations and points in time."""

from __future__ import annotations

import pytest

from enforcer.emergency.times import duration_s, left, point_s, written
from enforcer.model.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("4h", 14400), ("1h30m", 5400), ("2d", 172800), ("1w", 604800)]
)
def test_a_duration(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "4", "h", "4 h", "-4h", "4y", "0s", "4.5h", "9999w", "1h,30m", "４h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="expected a duration"):
        duration_s(text)


@pytest.mark.parametrize(
    "text", ["2026-11-28T23:10:00Z", "2026-11-29T00:10:00+01:00", "2026-11-28T23:10Z", "2026-11-28 23:10:00.5Z"]
)
def test_a_point(text: str) -> None:
    assert written(point_s(text)) == "2026-11-28T23:10:00Z"


@pytest.mark.parametrize("text", ["2026-11-28T23:10:00", "23:10", "tomorrow", "2026-13-01T00:00Z", "2026-11-28T25:00Z"])
def test_what_is_no_point(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a time|no such time"):
        point_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(14399, "3h 59m"), (60, "1m"), (61, "1m 1s"), (90061, "1d 1h"), (0.9, "ended"), (-5, "ended"), (1, "1s")],
)
def test_what_is_left(seconds: float, text: str) -> None:
    assert left(seconds) == text
