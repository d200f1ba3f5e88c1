"""What a few changed CIDRs change: the CIDRs themselves, and the segments afterwards. Both without a sweep over all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from enforcer.backends.xdp.tables.classes import Segments4
from enforcer.backends.xdp.tables.format import ROOT_SHIFT4
from enforcer.backends.xdp.tables.image4 import Slots4
from enforcer.backends.xdp.tables.keys import (
    U64,
    after,
    first_of_equals,
    flat_ranges,
    last_of_equals,
)
from enforcer.backends.xdp.tables.live import Changed
from enforcer.model.nets import Nets

_FEW = 64  # CIDRs: each is searched for; beyond, a sweep over all of them is as fast
_LENGTH_BITS = np.uint64(8)


def few_changes(before: Mapping[str, Nets], now: Mapping[str, Nets]) -> dict[str, Changed] | None:
    """The atoms (by id) whose IPv4 CIDRs differ; None if anything else does, or more than a few differ.

    Atoms are compared by identity first: the compiler keeps those whose members have not changed.
    """
    if before.keys() != now.keys():
        return None
    found: dict[str, Changed] = {}
    count = 0
    for name, nets in now.items():
        old = before[name]
        if nets is old:
            continue
        if not (np.array_equal(old.net6, nets.net6) and np.array_equal(old.len6, nets.len6)):
            return None
        keys = _alone(_keys(old), _keys(nets))
        count += len(keys)
        if count > _FEW:
            return None
        if len(keys):
            ranges = Nets((keys >> _LENGTH_BITS).astype(np.uint32), (keys & np.uint64(0xFF)).astype(np.uint8))
            found[name] = Changed(nets, ranges)
    return found


def _alone(one: U64, two: U64) -> U64:
    """The keys that only one of the two has."""
    both = np.concatenate([one, two])
    both.sort(kind="stable")  # merges two sorted runs
    found: U64 = both[first_of_equals(both) & last_of_equals(both)]
    return found


def _keys(nets: Nets) -> U64:
    return nets.net4.astype(np.uint64) << _LENGTH_BITS | nets.len4


def with_slots(segments: Segments4, slots: Slots4) -> Segments4:
    """The segments after some /16s got these (``slots``: of different /16s, sorted)."""
    first = slots.slot.astype(np.uint32) << ROOT_SHIFT4
    begin = np.searchsorted(segments.start, first)
    end = np.searchsorted(segments.start, first | np.uint32(0xFFFF), side="right")
    # What follows a /16 keeps its class, and may have had it from a segment that began before.
    behind = after(first | np.uint32(0xFFFF))
    at = np.searchsorted(segments.start, behind, side="right") - 1
    missing = (segments.start[at] != behind) & ~np.isin(behind, first)
    kept = np.ones(len(segments), np.bool_)
    kept[flat_ranges(begin, end - begin)] = False
    old_start, old_cls = segments.start[kept], segments.cls[kept]
    new_start = np.concatenate([slots.start, behind[missing]])
    new_cls = np.concatenate([slots.cls, segments.cls[at[missing]]])
    order = np.argsort(new_start, kind="stable")
    places = np.searchsorted(old_start, new_start[order])
    start, cls = np.insert(old_start, places, new_start[order]), np.insert(old_cls, places, new_cls[order])
    changes = first_of_equals(cls)
    return Segments4(start[changes], cls[changes])
