"""The contract of what emergency acts are written with: single objects, under optimistic locking.

One implementation of acts, three stores: files, etcd, the Kubernetes API. A write never replaces a version that its
author has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from enforcer.model.errors import EnforcerError, HostError


class ConflictError(EnforcerError):
    """The object is there already, is another version than expected, or is gone: read it again."""

    exit_code = 1


class RefusedError(EnforcerError):
    """The datastore does not take the object; another attempt would not either."""

    exit_code = 1


class StoreError(HostError):
    """The datastore does not answer, or does not permit it."""


@dataclass(frozen=True)
class Held:
    """A GlobalNetworkSet as it is stored, with what a later write must name."""

    object: dict[str, Any]
    revision: str


class Writer(Protocol):
    """GlobalNetworkSets by name. A context manager. Every call raises StoreError."""

    kind: str

    def __enter__(self) -> Writer: ...

    def __exit__(self, *error: object) -> None: ...

    def read(self, name: str) -> Held | None:
        """The present version; None if there is none."""

    def create(self, name: str, item: dict[str, Any], *, keep_s: float | None) -> None:
        """Raises ConflictError if there is one, and RefusedError.

        ``keep_s``: after this time the datastore itself may delete the object, if it can; None: never.
        """

    def replace(self, name: str, item: dict[str, Any], revision: str, *, keep_s: float | None) -> None:
        """Raises ConflictError if the present version is not this one, and RefusedError."""

    def delete(self, name: str, revision: str) -> None:
        """Raises ConflictError if the present version is not this one."""
