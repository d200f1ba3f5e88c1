"""Packets that depend on others, taken out of shards, and put together again in the order of their arrival. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dossim.cluster.addresses import pairs_of
from dossim.packet.capture import Capture, joined
from dossim.predict.batches import Doubt, Why

Bool = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Dependents:
    """Packets of a shard whose ends depend on others, or others' on them. ``rows``: their numbers among those of the
    shard. ``doubt`` and ``why`` as Batches takes them.
    """

    rows: I64
    capture: Capture
    doubt: Doubt | None
    why: Why | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.capture.data) + 48 * len(self.rows)

    def only(self, rows: I64) -> Dependents:
        """These of them, in ascending order."""
        return of_rows(self.rows, self.capture, self.doubt, self.why, rows)


def of_rows(numbers: I64, capture: Capture, doubt: Doubt | None, why: Why | None, rows: I64) -> Dependents:
    """These rows of packets with such numbers."""
    if doubt is not None:
        kept = np.isin(doubt.rows, rows)
        here = np.searchsorted(rows, doubt.rows[kept])
        doubt = Doubt(here, doubt.otherwise.only(np.flatnonzero(kept)), doubt.reason) if kept.any() else None
    taken = _whole(capture, why).only(rows)
    if why is not None:
        why = Why(why.packets[rows], why.reason, taken.length)
        taken = replace(taken, length=capture.length[rows])
    return Dependents(numbers[rows], taken, doubt, why)


def _whole(capture: Capture, why: Why | None) -> Capture:
    """With all bytes that were captured, also of packets that are given as if they were cut: flows are told by them."""
    return capture if why is None or why.length is None else replace(capture, length=why.length)


@dataclass(frozen=True)
class Placed:
    """``pairs`` and ``unknown``: which of the packets may meet (:mod:`dossim.cluster.addresses`)."""

    dependents: Dependents
    pairs: U64
    unknown: Bool

    @property
    def may_meet_any(self) -> bool:
        """Whether it is not known of one of them which others it may meet."""
        return bool(self.unknown.any())

    def part(self, number: int, count: int) -> Dependents:
        """Those that belong to one of so many parts: packets that may meet are in one."""
        return self.dependents.only(np.flatnonzero(self.pairs % np.uint64(count) == number))


def placed(dependents: Dependents, *, states: bool) -> Placed:
    """``states``: conntrack is followed."""
    return Placed(dependents, *pairs_of(dependents.capture, states=states))


def joined_dependents(parts: Sequence[Dependents]) -> Dependents:
    """One or more, in the order of arrival."""
    if len(parts) == 1:
        return parts[0]
    return Dependents(
        np.concatenate([part.rows for part in parts]),
        joined([part.capture for part in parts]),
        _doubt(parts),
        _why(parts),
    )


def _doubt(parts: Sequence[Dependents]) -> Doubt | None:
    before = np.cumsum([0, *map(len, parts)]).tolist()
    found = [(part.doubt, first) for part, first in zip(parts, before, strict=False) if part.doubt is not None]
    if not found:
        return None
    rows = np.concatenate([doubt.rows + first for doubt, first in found])
    return Doubt(rows, joined([doubt.otherwise for doubt, _ in found]), found[0][0].reason)


def _why(parts: Sequence[Dependents]) -> Why | None:
    reasons = [part.why.reason for part in parts if part.why is not None]
    if not reasons:
        return None
    packets = [np.zeros(len(part), np.bool_) if part.why is None else part.why.packets for part in parts]
    return Why(
        np.concatenate(packets), reasons[0], np.concatenate([_whole(part.capture, part.why).length for part in parts])
    )
