"""verify: predicted and observed, packet by packet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from dossim.disposition import Fate
from dossim.observe.judgement import NONE, Observations
from dossim.predict import Prediction
from dossim.verify.verification import EntryRow, Mismatch, StageCount, Verification
from enforcer.policy.ruletable import Entry
from enforcer.words import Action, Stage

SHOWN = 100  # mismatches listed; all are counted

_COLUMNS = (*(str(fate) for fate in Fate if fate is not Fate.DROPPED), *(str(stage) for stage in Stage))


def verify(
    prediction: Prediction,
    observations: Observations,
    *,
    entries: tuple[Entry, ...],
    counters: Mapping[str, int],
    summary: Callable[[int], str],
) -> Verification:
    """Compare all packets. ``counters`` are the enforcer's own drops per entry; ``summary`` describes a packet."""
    observed = ~observations.unobserved
    same = (prediction.fate == observations.fate) & (prediction.stage == observations.stage)
    matched = same & observed
    wrong = np.flatnonzero(~matched)[:SHOWN]
    return Verification(
        packets=len(observations),
        matched=int(matched.sum()),
        mismatched=int((observed & ~same).sum()),
        unobserved=int(observations.unobserved.sum()),
        unpredicted=0,  # every packet has a prediction: the model is total
        stages=_stage_counts(prediction, observations, matched),
        entries=_entry_rows(prediction, entries, _in_packets(counters, prediction, observations, entries)),
        mismatches=tuple(
            Mismatch(
                packet=int(packet),
                summary=summary(int(packet)),
                predicted=prediction.disposition(int(packet)),
                observed=observations.disposition(int(packet)),
                evidence=observations.evidence(int(packet)),
            )
            for packet in wrong
        ),
    )


def _column_of(fate: npt.NDArray[np.uint8], stage: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Index into _COLUMNS of each packet: its fate, or the stage it was dropped at; -1 without observation."""
    fates = tuple(Fate)
    plain = {fates.index(fate): i for i, fate in enumerate(f for f in Fate if f is not Fate.DROPPED)}
    column = np.full(len(fate), -1, np.int64)
    for code, index in plain.items():
        column[fate == code] = index
    dropped = (fate == fates.index(Fate.DROPPED)) & (stage != NONE)
    column[dropped] = len(plain) + stage[dropped].astype(np.int64)
    return column


def _stage_counts(
    prediction: Prediction, observations: Observations, matched: npt.NDArray[np.bool_]
) -> Mapping[str, StageCount]:
    predicted = _column_of(prediction.fate, prediction.stage)
    observed = _column_of(observations.fate, observations.stage)
    counts = {}
    for index, word in _in_packet_order():
        row = StageCount(
            int((predicted == index).sum()),
            int((observed == index).sum()),
            int(((predicted == index) & matched).sum()),
        )
        if row.predicted or row.observed:
            counts[word] = row
    return counts


def _in_packet_order() -> list[tuple[int, str]]:
    """Stages first, as a packet meets them, then the fates."""
    indexed = list(enumerate(_COLUMNS))
    fates = len(Fate) - 1
    return indexed[fates:] + indexed[:fates]


def _in_packets(
    counters: Mapping[str, int], prediction: Prediction, observations: Observations, entries: tuple[Entry, ...]
) -> Mapping[str, int]:
    """Counters in packets: raw counts a reassembled datagram once, its other fragments are added as they were
    observed.
    """
    raw = tuple(Stage).index(Stage.RAW)
    more = observations.absorbed & (observations.stage == raw) & (prediction.entry >= 0)
    added = np.bincount(prediction.entry[more], minlength=len(entries))
    return {
        entry.name: counters.get(entry.name, 0) + int(added[index])
        for index, entry in enumerate(entries)
        if entry.action is Action.DENY  # the others count what they let pass
    }


def _entry_rows(
    prediction: Prediction, entries: tuple[Entry, ...], counters: Mapping[str, int]
) -> tuple[EntryRow, ...]:
    predicted = prediction.entry_counts()
    return tuple(
        EntryRow(entry.name, str(entry.position), predicted.get(entry.name, 0), counters.get(entry.name))
        for entry in entries
        if predicted.get(entry.name) or counters.get(entry.name)
    )
