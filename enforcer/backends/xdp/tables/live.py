"""Changes address tables in place while programs read them.

Programs follow words without locks. So a change writes new lists where no word leads yet, then stores the words that
lead to them, each atomically: an address has its old class or its new one, never a third. Replaced blocks are reused
only after :meth:`Live.release`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.tables.allocator import Allocator
from enforcer.backends.xdp.tables.classes import MOST_CLASSES, Classified, Members, Segments4, Segments6
from enforcer.backends.xdp.tables.edits import Edit, Registry, atom_edit, step_edit
from enforcer.backends.xdp.tables.image4 import read4
from enforcer.backends.xdp.tables.image6 import read6
from enforcer.backends.xdp.tables.keys import U32, Keys, before, keys6, last_of_equals, ranges4, ranges6
from enforcer.backends.xdp.tables.live4 import allocator4, plan4
from enforcer.backends.xdp.tables.live6 import allocators6, plan6
from enforcer.backends.xdp.tables.patch import Patch
from enforcer.backends.xdp.tables.room import Full
from enforcer.model.nets import Nets

__all__ = ["Arrays", "Changed", "Full", "Live", "Present"]

NewClass = Callable[[int, Members], None]
Fence = Callable[[], None]


@dataclass(frozen=True)
class Arrays:
    """The arrays that programs read: uint32, except ``nodes6`` (NODE6). The sieve has 131,072 words, a root 65,536,
    lists and buckets whole pages.
    """

    sieve4: U32
    root4: U32
    lists4: U32
    root6: U32
    nodes6: npt.NDArray[Any]
    buckets6: U32
    lists6: U32

    @property
    def words(self) -> dict[str, U32]:
        """All arrays as words, by name, on the same memory."""
        return {
            "sieve4": self.sieve4,
            "root4": self.root4,
            "lists4": self.lists4,
            "root6": self.root6,
            "nodes6": self.nodes6.view(np.uint32),
            "buckets6": self.buckets6,
            "lists6": self.lists6,
        }


Present = tuple[Segments4, Segments6]


@dataclass(frozen=True)
class Changed:
    """``nets``: the new CIDRs of an atom. ``ranges``: the CIDRs that it gained or lost."""

    nets: Nets
    ranges: Nets


class Live:
    """The only writer of tables in use. Raises NotOurs (a ValueError) for content that this package never writes.

    ``members``: the classes, including 0 (the empty one) and possibly classes that no longer occur. ``most_classes``:
    the number of classes that have rows. ``allocators``: of an earlier one, if the tables still are as
    it left them.
    """

    def __init__(
        self,
        arrays: Arrays,
        members: Mapping[int, Members],
        *,
        most_classes: int = MOST_CLASSES,
        allocators: Mapping[str, Allocator] | None = None,
    ) -> None:
        self.arrays = arrays
        self._words = arrays.words
        self._registry = Registry({0: frozenset(), **members}, most_classes)
        self._allocators = allocators or {
            "lists4": allocator4(arrays.root4, arrays.lists4),
            **allocators6(arrays.root6, arrays.nodes6, arrays.buckets6, arrays.lists6),
        }

    @property
    def allocators(self) -> Mapping[str, Allocator]:
        """They know which blocks are in use."""
        return self._allocators

    @property
    def members(self) -> Mapping[int, Members]:
        """The classes that addresses may have."""
        return self._registry.members

    def segments(self) -> Present:
        """The segments in the tables."""
        arrays = self.arrays
        return read4(arrays.root4, arrays.lists4), read6(arrays.root6, arrays.nodes6, arrays.buckets6, arrays.lists6)

    def change(self, changes: Mapping[str, Changed], *, new_class: NewClass, fence: Fence) -> bool:
        """Change the CIDRs of atoms (by id). False if no address changed its class.

        ``new_class(number, members)`` is called for each new class; then new lists are written, ``fence()`` is called,
        and the words that lead there are stored. Raises Full, or what ``new_class`` raised; then nothing was written.
        """
        return self.make(self.plan(changes), new_class, fence)

    def replace(self, wanted: Classified, *, new_class: NewClass, fence: Fence, present: Present | None = None) -> bool:
        """Change the tables to ``wanted``, whose classes keep the numbers they have here; otherwise like
        :meth:`change`.

        It compares the whole tables, so it is for many changes at once. ``present``: :meth:`segments`, if the caller
        has just read them.
        """
        return self.make(self.plan_replace(wanted, present), new_class, fence)

    def release(self) -> None:
        """Make replaced blocks available. All program runs that began before the last change must have ended."""
        for allocator in self._allocators.values():
            allocator.release()

    def plan(self, changes: Mapping[str, Changed]) -> Patch:
        """What :meth:`change` would write. It must be written and settled, or dropped, before another is planned."""
        every = [item.ranges for item in changes.values()]
        ranges = every[0] if len(every) == 1 else Nets.union(every)
        edits: dict[int, list[Edit]] = {
            version: [
                edit
                for atom, item in changes.items()
                if (edit := atom_edit(self._registry, atom, item.nets, item.ranges, version=version))
            ]
            for version in (4, 6)
        }
        return self._plan(edits[4], ranges4(ranges), edits[6], ranges6(ranges))

    def plan_replace(self, wanted: Classified, present: Present | None = None) -> Patch:
        """What :meth:`replace` would write. It must be written and settled, or dropped, before another is planned."""
        self._meet(wanted.members)
        segments4, segments6 = present or self.segments()
        old6, new6 = (keys6(item.high, item.low) for item in (segments6, wanted.segments6))
        ranges_4 = _differences(segments4.start, segments4.cls, wanted.segments4.start, wanted.segments4.cls)
        ranges_6 = _differences(old6, segments6.cls, new6, wanted.segments6.cls)
        edit4 = step_edit(*ranges_4, wanted.segments4.start, wanted.segments4.cls.astype(np.uint32))
        edit6 = step_edit(*ranges_6, new6, wanted.segments6.cls.astype(np.uint32))
        return self._plan([edit4], ranges_4, [edit6], ranges_6)

    def _meet(self, members: Mapping[int, Members]) -> None:
        registry = self._registry
        for number, item in members.items():
            if registry.members.get(number, item) != item or registry.numbers.get(item, number) != number:
                registry.forget()
                raise Full(f"classes: {number} stands for other sets while programs read it")
            if number not in registry.members:
                if number >= registry.most:
                    registry.forget()
                    raise Full(f"classes: there is room for {registry.most}")
                registry.new[number] = item
                registry.numbers[item] = number

    def _plan(
        self, edits4: Sequence[Edit], ranges_4: tuple[Keys, Keys], edits6: Sequence[Edit], ranges_6: tuple[Keys, Keys]
    ) -> Patch:
        patch, arrays = Patch(), self.arrays
        try:
            if len(ranges_4[0]):
                allocator = self._allocators["lists4"]
                plan4(arrays.sieve4, arrays.root4, arrays.lists4, allocator, edits4, *ranges_4, patch)
            if len(ranges_6[0]):
                plan6(
                    arrays.root6,
                    arrays.nodes6,
                    arrays.buckets6,
                    arrays.lists6,
                    self._allocators,
                    edits6,
                    *ranges_6,
                    patch,
                )
        except BaseException:
            self.drop(patch)
            raise
        self._registry.keep(patch.classes)
        return patch

    def drop(self, patch: Patch) -> None:
        """Discard a planned change."""
        patch.drop(self._allocators)
        self._registry.forget()

    def settle(self, patch: Patch) -> None:
        """Record that a planned change was written, by :meth:`Patch.write` or store by store."""
        patch.settle(self._allocators)
        self._registry.commit()

    def new_classes(self) -> dict[int, Members]:
        """The classes that only a planned change uses."""
        return dict(self._registry.new)

    def make(self, patch: Patch, new_class: NewClass, fence: Fence) -> bool:
        """Write a planned change, as :meth:`change` does. False if it is empty."""
        if not patch:
            self.drop(patch)
            return False
        try:
            for number, members in self._registry.new.items():
                new_class(number, members)
        except BaseException:
            self.drop(patch)
            raise
        patch.write(self._words, fence)
        self.settle(patch)
        return True


def _differences(
    old_start: Keys, old_class: npt.NDArray[np.uint16], start: Keys, cls: npt.NDArray[np.uint16]
) -> tuple[Keys, Keys]:
    """The disjoint sorted ranges (firsts, lasts) in which two sequences of segments have different classes."""
    starts = np.concatenate([old_start, start])
    order = np.argsort(starts, kind="stable")  # merges two sorted runs
    is_old = order < len(old_start)
    starts = starts[order]
    last_at = last_of_equals(starts)
    points = starts[last_at]
    differs = old_class[np.cumsum(is_old)[last_at] - 1] != cls[np.cumsum(~is_old)[last_at] - 1]
    edge = np.diff(differs.astype(np.int8), prepend=np.int8(0))
    last = before(points[edge == -1])
    if len(differs) and differs[-1]:
        end = np.full(1, 0xFFFFFFFF, np.uint32) if points.dtype == np.uint32 else np.array([b"\xff" * 16], "S16")
        last = np.concatenate([last, end])
    return points[edge == 1], last
