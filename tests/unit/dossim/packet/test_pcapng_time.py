"""pcapng timestamps of every resolution, compared with Python's integers."""

from __future__ import annotations

import numpy as np
import pytest

from dossim.packet.pcapng_time import nanoseconds_of

LAST_S = 9_223_372_035
MOMENTS = [
    (ticks, offset_s)
    for ticks in (0, 1, 999_999, 123_456_789_012, (1 << 53) + 1, (1 << 63) + 12_345, (1 << 64) - 1)
    for offset_s in (0, -3, 50, 1 << 40, (1 << 63) - 1, -(1 << 63))
]


@pytest.mark.parametrize("power_of", [2, 10])
def test_every_resolution(power_of: int) -> None:
    """Rounded down to nanoseconds; with a resolution finer than 2**-34 s, perhaps one nanosecond too low."""
    for exponent in range(128):
        ticks = np.array([moment[0] for moment in MOMENTS], np.uint64)
        offset_s = np.array([moment[1] for moment in MOMENTS], np.int64)
        resolution = np.full(len(MOMENTS), exponent | (0x80 if power_of == 2 else 0), np.int64)
        read, clipped = nanoseconds_of(ticks, resolution, offset_s)
        slack = 1 if power_of == 2 and exponent > 34 else 0
        late = 0
        for moment, ns in zip(MOMENTS, read.tolist(), strict=True):
            seconds, rest = divmod(moment[0], power_of**exponent)
            exact = rest * 10**9 // power_of**exponent
            shown = max(-LAST_S, min(LAST_S, seconds + moment[1]))
            late += shown != seconds + moment[1]
            assert ns // 10**9 == shown, (exponent, moment)
            assert exact - slack <= ns % 10**9 <= exact, (exponent, moment)
        assert clipped == late
