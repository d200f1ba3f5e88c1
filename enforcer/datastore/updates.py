"""What a source of objects (etcd, the Kubernetes API) says, one after the other, while it is followed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from enforcer.datastore.report import Resync
from enforcer.policy.objects import StoredObject


@dataclass(frozen=True)
class Listed:
    """All objects there are; what is not among them does not exist any more.

    ``another``: revisions say nothing about the versions held before, because a backup was restored.
    """

    objects: tuple[StoredObject, ...]
    revision: str
    another: bool = False


@dataclass(frozen=True)
class Resynced:
    """Everything was listed, of one kind where kinds are listed apart. The objects come in other updates."""

    reason: Resync


@dataclass(frozen=True)
class Changed:
    """Some objects changed. ``gone``: the paths of those that were deleted. ``problem``: why others cannot be followed
    at the moment.
    """

    put: tuple[StoredObject, ...]
    gone: tuple[str, ...]
    revision: str
    problem: str = ""


@dataclass(frozen=True)
class Contact:
    """The source answers, and nothing is known to have changed."""


@dataclass(frozen=True)
class Lost:
    """The source does not answer, or is not believed; the objects held stay. ``problem``: one sentence."""

    problem: str


Update = Listed | Resynced | Changed | Contact | Lost


class ObjectSource(Protocol):
    """Where objects come from."""

    kind: str

    def follow(self, stop: threading.Event) -> Iterator[Update]:
        """What happens, beginning with Listed or Lost, until ``stop`` is set. Never ends by itself.

        After Lost comes Listed, Changed or Contact when the source is back. Resynced may come at any time.
        """

    def refresh(self) -> None:
        """List everything again soon. Any thread may ask."""

    def describe(self) -> str:
        """The location, for people, without secrets."""

    def identity(self) -> tuple[str, ...]:
        """What distinguishes the state on disk from that of other sources."""
