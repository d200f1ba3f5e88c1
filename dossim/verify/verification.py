"""Verification: what comparing a prediction with the observations of a drill found. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dossim.model.disposition import Disposition
from dossim.predict.prediction import PossibleStates
from enforcer.model.vocabulary import CtState


@dataclass(frozen=True)
class Mismatch:
    """A packet whose end was not the predicted one. ``packet`` counts from 0, ``record`` is its number in the capture's
    file, where others may have been skipped before it; ``summary`` is tcpdump-like. ``state`` is what conntrack said of
    it (None: it did not get past conntrack), ``mark`` is ``skb->mark`` at its end. ``possible``: what conntrack was
    predicted to say (None: it was not to get there, or nobody knows); ``is_state``: the packet ended as predicted, and
    only that differs.
    """

    packet: int
    record: int
    summary: str
    predicted: Disposition
    observed: Disposition | None
    evidence: str
    state: CtState | None
    mark: int
    possible: PossibleStates | None = None
    is_state: bool = False


@dataclass(frozen=True)
class StageCount:
    """Packets that ended at a stage (or with a fate): predicted, observed, and both for the same packet."""

    predicted: int
    observed: int
    matched: int


@dataclass(frozen=True)
class StateCount:
    """Packets that ended as predicted, by whether conntrack said of them what was predicted. ``several``: of the
    matched ones, those of which it could have said something else as well, for a stated reason.
    """

    matched: int = 0
    differing: int = 0
    several: int = 0


@dataclass(frozen=True)
class EntryRow:
    """Packets an entry dropped: predicted, and as the enforcer's own counters say. ``source`` is ``file:line``.

    Packets whose end is undetermined are in neither: the frames sent for them are known, and subtracted from the
    counter.
    """

    entry: str
    source: str
    predicted: int
    observed: int | None


@dataclass(frozen=True)
class Verification:
    """``matched + mismatched + unobserved + undetermined + not_sendable == packets``. ``mismatches`` lists the first
    ones, unobserved included. ``states`` counts what conntrack said of the packets that got past it; a packet of which
    it said something else than predicted is mismatched, wherever it ended.

    For an undetermined packet the frame sent in its place ended as predicted for that frame,
    which says nothing about the packet itself; if that frame ended otherwise the packet is mismatched.
    """

    packets: int
    matched: int
    mismatched: int
    unobserved: int
    undetermined: int
    not_sendable: int
    unpredicted: int
    stages: Mapping[str, StageCount]
    entries: tuple[EntryRow, ...]
    mismatches: tuple[Mismatch, ...]
    states: Mapping[CtState, int]
    compared_states: StateCount

    @property
    def agrees(self) -> bool:
        """Whether every packet ended as predicted, in a state that was predicted, every end was observed, and every
        entry dropped as many as predicted.

        A drill in which every packet is undetermined has shown nothing, and does not agree. A frame that is not
        sendable is determined: the kernel refused it, as predicted.
        """
        counted = all(row.observed in (None, row.predicted) for row in self.entries)
        nothing = self.undetermined > 0 and self.matched == 0
        return not (self.mismatched or self.unobserved or nothing) and counted
