"""What a pass has rendered, kept so that nothing is rendered twice: to check and to apply it, or for another try."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from enforcer.policy.ruletable import RuleTable
from enforcer.policy.tracked import TrackedTable

T = TypeVar("T")


class Rendered(Generic[T]):
    """The last rendering. The tables it was made of are kept with it, so that to be the same object is to be equal."""

    def __init__(self) -> None:
        self._last: tuple[tuple[RuleTable | TrackedTable, ...], Hashable, T] | None = None

    def of(self, tables: Sequence[RuleTable | TrackedTable], render: Callable[[], T], *, also: Hashable = None) -> T:
        """What ``render`` makes of these tables. ``also``: what else it depends on."""
        if self._last is not None:
            known, known_also, rendering = self._last
            if len(known) == len(tables) and all(map(_is_same, known, tables)) and known_also == also:
                return rendering
        rendering = render()
        self._last = (tuple(tables), also, rendering)
        return rendering


def _is_same(one: object, other: object) -> bool:
    return one is other
