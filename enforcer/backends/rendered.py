"""The last rendering of a pass, kept so that checking, applying and retrying do not render the same tables again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from enforcer.policy.ruletable import RuleTable
from enforcer.policy.tracked import TrackedTable

T = TypeVar("T")


class Rendered(Generic[T]):
    """The last rendering, with the tables it was made from. Keeping them alive makes comparison by identity valid."""

    def __init__(self) -> None:
        self._last: tuple[tuple[RuleTable | TrackedTable, ...], Hashable, T] | None = None

    def of(self, tables: Sequence[RuleTable | TrackedTable], render: Callable[[], T], *, also: Hashable = None) -> T:
        """The rendering of these tables: the kept one, or the result of ``render``. ``also``: its other inputs."""
        if self._last is not None:
            known, known_also, rendering = self._last
            if len(known) == len(tables) and all(map(_is_same, known, tables)) and known_also == also:
                return rendering
        rendering = render()
        self._last = (tuple(tables), also, rendering)
        return rendering


def _is_same(one: object, other: object) -> bool:
    return one is other
