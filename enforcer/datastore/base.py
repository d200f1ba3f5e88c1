"""What every datastore promises: all resources at one moment, and a sign whenever they may have changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded


class DataStore(Protocol):
    def snapshot(self, last_good: Resources) -> Loaded:
        """Everything in the store, validated object by object: a faulty one is as ``last_good`` has it, or left out.

        ``last_good`` is what the last snapshot gave, empty for the first. Raises EnforcerError only when the store
        itself cannot be read.
        """

    def keep(self) -> None:
        """The last snapshot is enforced: remember it for a later run, unless something was wrong with it."""

    def last_good(self) -> Resources:
        """What :meth:`keep` remembered in an earlier run; empty when nothing was."""

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """One item whenever a new snapshot may differ from the last one taken; ends when ``stop`` is set.

        A change made after a snapshot began is never missed, even if nobody was listening yet. Runs in a thread of its
        own; a store that cannot be reached is waited for, not an error.
        """

    def describe(self) -> str:
        """Where this is, for people."""
