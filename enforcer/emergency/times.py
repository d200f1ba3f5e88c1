"""Durations and points in time, as operators write and read them. Pure: what time it is now is an argument.

Points in time are whole seconds since 1970, in UTC.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

from enforcer.model.errors import UsageError

MINUTE, HOUR, DAY = 60, 3600, 86400
_UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(?:[0-9]{1,6}[smhdw])+")
_PART = re.compile(r"([0-9]+)([smhdw])")
_LONGEST_S = 3660 * DAY
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|z|[+-]\d\d:\d\d)", re.ASCII)


def duration_s(text: str) -> int:
    """The seconds of ``90s``, ``4h``, ``1h30m``, ``2d``. Raises UsageError."""
    if not _DURATION.fullmatch(text):
        raise UsageError(f"expected a duration such as 30m, 4h or 2d, found {text!r}")
    found = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 1 <= found <= _LONGEST_S:
        raise UsageError(f"expected a duration of 1s to {_LONGEST_S // DAY}d, found {text!r}; for longer: --permanent")
    return found


def point_s(text: str) -> int:
    """The point of ``2026-11-28T23:10:00Z``, with any offset from UTC. Raises UsageError."""
    plain = text.strip()
    if not _TIME.fullmatch(plain):
        raise UsageError(
            "expected a time with its offset from UTC, such as 2026-11-28T23:10Z or 2026-11-29T00:10+01:00, "
            f"found {text!r}"
        )
    try:
        return read(plain)
    except (ValueError, OverflowError):
        raise UsageError(f"there is no such time: {text!r}") from None


def read(text: str) -> int:
    """The point of an RFC 3339 time. Raises ValueError."""
    made = datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper().replace("Z", "+00:00")))
    if made.tzinfo is None:
        raise ValueError(f"no offset from UTC: {text!r}")
    return int(made.timestamp())


def written(at_s: float) -> str:
    """RFC 3339 in UTC: ``2026-11-28T23:10:00Z``."""
    return datetime.fromtimestamp(int(at_s), timezone.utc).isoformat().replace("+00:00", "Z")


def left(seconds: float) -> str:
    """How long something lasts, in its two largest units: ``3h 59m``; ``ended`` if nothing is left."""
    rest = int(seconds)
    if rest <= 0:
        return "ended"
    parts = []
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", 1)):
        if rest >= size:
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return " ".join(parts[:2])
