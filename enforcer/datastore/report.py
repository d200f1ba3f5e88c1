"""What a datastore counts, for metrics. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

EVENTS = ("put", "delete")
RESYNCS = ("start", "again", "restored")  # the first complete list; a later one; one of a datastore that went back
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
