"""Verification: what comparing a prediction with the observations of a drill found. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dossim.disposition import Disposition


@dataclass(frozen=True)
class Mismatch:
    """A packet whose end was not the predicted one. ``packet`` counts from 0; ``summary`` is tcpdump-like."""

    packet: int
    summary: str
    predicted: Disposition
    observed: Disposition | None
    evidence: str


@dataclass(frozen=True)
class StageCount:
    """Packets that ended at a stage (or with a fate): as predicted, as observed, and both for the same packet."""

    predicted: int
    observed: int
    matched: int


@dataclass(frozen=True)
class EntryRow:
    """Packets an entry dropped: predicted, and as the enforcer's own counters say. ``source`` is ``file:line``."""

    entry: str
    source: str
    predicted: int
    observed: int | None


@dataclass(frozen=True)
class Verification:
    """``matched + mismatched + unobserved == packets``. ``mismatches`` lists the first ones, unobserved included."""

    packets: int
    matched: int
    mismatched: int
    unobserved: int
    unpredicted: int
    stages: Mapping[str, StageCount]
    entries: tuple[EntryRow, ...]
    mismatches: tuple[Mismatch, ...]

    @property
    def agrees(self) -> bool:
        """Every packet ended as predicted, and every entry dropped as many as predicted."""
        counted = all(row.observed in (None, row.predicted) for row in self.entries)
        return self.matched == self.packets and counted
