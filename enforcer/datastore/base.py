"""What every datastore promises: all resources at one moment, and a sign whenever they may have changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

from enforcer.policy.resources import Resources


class DataStore(Protocol):
    def snapshot(self) -> Resources:
        """Everything in the store, validated. Raises PolicyError with all findings when any of it is wrong."""

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """One item whenever a new snapshot may differ from the last one taken; ends when ``stop`` is set.

        A change made after a snapshot began is never missed, even if nobody was listening yet. Runs in a thread of its
        own; a store that cannot be reached is waited for, not an error.
        """

    def describe(self) -> str:
        """Where this is, for people."""
