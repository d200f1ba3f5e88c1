"""Combines the counts of both address families."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from enforcer.backends.base import EntryCount


def plus(count: EntryCount, other: EntryCount) -> EntryCount:
    """The sum of two counts of the same entry."""
    return replace(count, packets=count.packets + other.packets, bytes=count.bytes + other.bytes)


def merge(into: list[EntryCount], counts: Iterable[EntryCount]) -> None:
    """Adds one family's counts to the other's, keeping the order of both: no packet meets entries of both families."""
    places = {(item.interface, item.entry, item.stage): item for item in into}
    at = 0
    for item in counts:
        known = places.get((item.interface, item.entry, item.stage))
        if known is None:
            into.insert(at, item)
        else:
            at = into.index(known)
            into[at] = plus(known, item)
        at += 1
