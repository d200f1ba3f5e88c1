"""The contract of a datastore: a snapshot of all resources, notice that they may have changed, and its state."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Fault, Loaded
from enforcer.system.stop import Stop


@dataclass(frozen=True)
class StoreFault:
    """What is wrong with an object or a file of the store, and what is enforced nevertheless. ``since``: Unix time."""

    object: str
    message: str
    outcome: str
    since: float


@dataclass(frozen=True)
class StoreState:
    """How current the policy is. Times are Unix times, 0.0: never.

    ``connected``: whether the store answers and is believed; else ``problem`` says why not. ``since``: the last change
    of that. ``contact``: the last answer of the store. ``revision``: that of the last change taken, "" for files.
    ``objects``: how many the last snapshot had. ``kept``: those of them that keep an older version. ``paths``,
    ``emergency``: of a store of files, what it follows, and the directory of emergency acts.
    """

    kind: str
    where: str
    connected: bool
    since: float
    contact: float
    problem: str = ""
    revision: str = ""
    objects: int = 0
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    faults: tuple[StoreFault, ...] = ()
    paths: tuple[str, ...] = ()
    emergency: str = ""

    def after(self, loaded: Loaded) -> StoreState:
        """The state with what a new snapshot says. A fault that the last one had too keeps its time."""
        since = {(item.object, item.message): item.since for item in self.faults}
        faults = tuple(_fault(item, since, time.time()) for item in loaded.faults)
        return replace(self, objects=loaded.count, kept=loaded.kept, left_out=loaded.left_out, faults=faults)


def _fault(item: Fault, since: dict[tuple[str, str], float], now_s: float) -> StoreFault:
    finding = item.finding
    message = f"{finding.field}: {finding.message}" if finding.field else finding.message
    place = str(finding.position)
    return StoreFault(place, message, item.outcome, since.get((place, message), now_s))


class DataStore(Protocol):
    def snapshot(self, last_good: Resources) -> Loaded:
        """All resources, validated one by one. A faulty object is taken from ``last_good``, or skipped if it is not
        there.

        ``last_good`` is the result of the previous snapshot, empty for the first. Raises EnforcerError only when the
        store itself cannot be read.
        """

    def refresh(self) -> None:
        """Read everything again soon, whether or not it changed (SIGHUP). Does not wait."""

    def keep(self) -> None:
        """The last snapshot is enforced: store it for a later run, unless it had faults."""

    def last_good(self) -> Resources:
        """What :meth:`keep` stored in an earlier run; empty if nothing."""

    def changes(self, stop: Stop) -> Iterator[None]:
        """Yields whenever a new snapshot may differ from the last one; ends when ``stop`` is set.

        A change after the start of a snapshot is never missed, even if nobody was listening yet. Runs in its own
        thread. An unreachable store is not an error: it is waited for.
        """

    def state(self) -> StoreState:
        """How current the last snapshot is. Any thread may ask, at any time, and never waits."""

    def describe(self) -> str:
        """The location, for people."""
