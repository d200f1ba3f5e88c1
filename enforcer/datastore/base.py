"""The contract of a datastore: a snapshot of all resources, and a notification when they may have changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded


class DataStore(Protocol):
    def snapshot(self, last_good: Resources) -> Loaded:
        """All resources, validated one by one. A faulty object is taken from ``last_good``, or skipped if it is not
        there.

        ``last_good`` is the result of the previous snapshot, empty for the first. Raises EnforcerError only when the
        store itself cannot be read.
        """

    def keep(self) -> None:
        """The last snapshot is enforced: store it for a later run, unless it had faults."""

    def last_good(self) -> Resources:
        """What :meth:`keep` stored in an earlier run; empty if nothing."""

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """Yields whenever a new snapshot may differ from the last one; ends when ``stop`` is set.

        A change after the start of a snapshot is never missed, even if nobody was listening yet. Runs in its own
        thread. An unreachable store is not an error: it is waited for.
        """

    def describe(self) -> str:
        """The location, for people."""
