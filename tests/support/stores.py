"""A datastore that holds what a test gives it."""

from __future__ import annotations

from collections.abc import Iterator

from enforcer.datastore.base import StoreState
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded
from enforcer.system.stop import Stop


class GivenStore:
    """``now``: what is read, or the error that reading raises; ``said``: its state. It announces no changes."""

    def __init__(self, now: Loaded | Exception, said: StoreState) -> None:
        self.now = now
        self.said = said

    def snapshot(self, last_good: Resources) -> Loaded:
        if isinstance(self.now, Exception):
            raise self.now
        return self.now

    def refresh(self) -> None: ...

    def keep(self) -> None: ...

    def last_good(self) -> Resources:
        return Resources()

    def changes(self, stop: Stop) -> Iterator[None]:
        yield from ()

    def state(self) -> StoreState:
        return self.said

    def describe(self) -> str:
        return "a list"
