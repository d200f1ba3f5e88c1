"""The FelixConfiguration fields that all netfilter backends read in the same way. Pure."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MAX_SET_SIZE = 1_048_576  # Felix's maxIpsetSize


@dataclass(frozen=True)
class Unit:
    """A unit of time by its name in iptables; ``period`` in 1/10,000 s (XT_LIMIT_SCALE)."""

    name: str
    period: int


UNITS = (Unit("day", 864_000_000), Unit("hour", 36_000_000), Unit("min", 600_000), Unit("sec", 10_000))


def rate_of(text: str) -> tuple[int, Unit]:
    """``10/minute`` as a count and its unit."""
    count, _, unit = text.partition("/")
    return int(count), next(item for item in UNITS if unit.startswith(item.name))


def accept_bit(mask: int) -> int:
    """The lowest bit of a mark mask, which Felix uses for *accept*."""
    return mask & -mask


def drop_bit(mask: int) -> int:
    """The bit of a mark mask that a packet gets before tracked policy drops it: the second lowest; 0 without one."""
    return accept_bit(mask & ~accept_bit(mask))
