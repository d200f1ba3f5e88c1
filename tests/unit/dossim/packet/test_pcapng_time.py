"""pcapng timestamps of every resolution, compared with Python's integers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dossim.packet.capture import read_capture
from tests.unit.dossim.packet.test_capture import enhanced, interface, option, section

LAST_S = 9_223_372_035
MOMENTS = [
    (ticks, offset_s)
    for ticks in (0, 1, 999_999, 123_456_789_012, (1 << 53) + 1, (1 << 63) + 12_345, (1 << 64) - 1)
    for offset_s in (0, -3, 50, 1 << 40, (1 << 63) - 1, -(1 << 63))
]


@pytest.mark.parametrize("power_of", [2, 10])
def test_every_resolution(tmp_path: Path, power_of: int) -> None:
    """Rounded down to nanoseconds; what 64 bits do not hold is clipped and counted."""
    moments = [(exponent, *moment) for exponent in range(128) for moment in MOMENTS]
    buf, late, exact = section(), 0, []
    for number, (exponent, ticks, offset_s) in enumerate(moments):
        resolution = bytes([exponent | (0x80 if power_of == 2 else 0)])
        buf += interface(options=option("<", 9, resolution) + option("<", 14, struct.pack("<q", offset_s)))
        buf += enhanced("<", bytes(14), number=number, ticks=ticks)
        seconds, rest = divmod(ticks, power_of**exponent)
        shown = max(-LAST_S, min(LAST_S, seconds + offset_s))
        late += shown != seconds + offset_s
        exact.append(shown * 10**9 + rest * 10**9 // power_of**exponent)
    path = tmp_path / "x.pcapng"
    path.write_bytes(buf)
    capture = read_capture(path)
    assert capture.timestamp_ns.tolist() == exact
    assert capture.warnings == (f"{path}: times before 1677 or after 2262, which are not kept: {late:,}",)
