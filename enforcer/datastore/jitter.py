"""How the agents of a fleet spread over time what all of them would do at the same moment. Pure but for the dice."""

from __future__ import annotations

import random

FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
SPREAD_S, LARGE_SPREAD_S = 5.0, 60.0
LARGE_BYTES = 5 << 20


def back_off_s(failures: int, first_s: float = FIRST_RETRY_S, most_s: float = LAST_RETRY_S) -> float:
    """The time until the next attempt: anything up to a limit that doubles with each failure (full jitter)."""
    return random.uniform(0, min(most_s, first_s * 2 ** min(failures, 30)))


def relist_s(size_bytes: int, spread_s: float = SPREAD_S, large_spread_s: float = LARGE_SPREAD_S) -> float:
    """The time until a list that many agents need at once, because the history of all of them is gone. A long list, by
    the size of the last one, is spread over more time: 10,000 of 5 MiB are 52 GB.
    """
    return random.uniform(0, large_spread_s if size_bytes > LARGE_BYTES else spread_s)


def about(period_s: float) -> float:
    """A period that differs by up to 20 % each time, so that agents that began together do not stay together."""
    return period_s * random.uniform(0.8, 1.2)
