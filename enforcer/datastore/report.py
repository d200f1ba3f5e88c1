"""What a datastore counts, for metrics. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from enforcer.model.vocabulary import Word


class Resync(Word):
    """Why everything was listed."""

    START = "start"
    COMPACTED = "compacted"  # etcd does not have the changes since any more
    EXPIRED = "expired"  # the same of the Kubernetes API
    DISCONNECTED = "disconnected"  # the watch broke off in a way that may have lost something, or was not believed
    RESTORED = "restored"  # the datastore went back in time
    PERIODIC = "periodic"  # in case a watch has lost something
    ASKED = "asked"  # SIGHUP


EVENTS = ("put", "delete")
RESYNCS = tuple(map(str, Resync))
ERRORS = ("unreadable", "lost")  # a read that failed or was not complete; no endpoint could be followed


@dataclass(frozen=True)
class StoreCounts:
    """``events`` counts (plural of a kind, one of ``EVENTS``), ``resyncs`` one of ``RESYNCS``, ``errors`` one of
    ``ERRORS``.
    """

    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    resyncs: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Counting(Protocol):
    """A store that counts what comes over its connection."""

    def counts(self) -> StoreCounts:
        """Since the start, from any thread. Never waits."""
