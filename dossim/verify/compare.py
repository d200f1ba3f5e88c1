"""verify: predicted and observed, packet by packet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from dossim.model.disposition import OPEN_FATES, Fate
from dossim.observe.evidence import FILTER_STAGES
from dossim.observe.journey import CT_STATES, NO_STATE
from dossim.observe.judgement import NONE, Observations
from dossim.predict import Prediction
from dossim.predict.prediction import CT_BITS, FATE_CODE
from dossim.verify.verification import EntryRow, Mismatch, StageCount, StateCount, Verification
from enforcer.model.vocabulary import Action, CtState, Stage
from enforcer.policy.ruletable import Entry

_AFTER_DEFRAG = (Stage.RAW, Stage.MANGLE, Stage.FILTER_INPUT, Stage.FILTER_FORWARD)
SHOWN = 100  # mismatches listed; all are counted

_ENDS = tuple(fate for fate in Fate if fate not in (Fate.DROPPED, *OPEN_FATES))
_COLUMNS = (*(str(fate) for fate in _ENDS), *(str(stage) for stage in Stage))


def verify(
    prediction: Prediction,
    observations: Observations,
    *,
    entries: tuple[Entry, ...],
    counters: Mapping[str, int],
    summary: Callable[[int], str],
    sent: Prediction | None = None,
    record: Callable[[int], int] = lambda packet: packet,
    deny_mask: int = 0,
) -> Verification:
    """Compare all packets: their ends, and what conntrack said of them. ``counters`` are the enforcer's own drops per
    entry; ``summary`` describes a packet, ``record`` is its number in the file. ``sent`` is the prediction of the
    frames that were sent, where those differ from the capture's: an undetermined packet's frame must end as that says.
    ``deny_mask``: the bit of the mark that an entry after conntrack sets before it drops; 0 if none is enforced.
    """
    prediction = prediction.settled(observations.ct_state)
    sent = prediction if sent is None else sent.settled(observations.ct_state)
    observed = ~observations.unobserved
    not_sendable = prediction.fate == FATE_CODE[Fate.NOT_SENDABLE]
    # A packet predicted as not sendable that was observed is an error of the model.
    unseen = ~observed & ~not_sendable
    determined = prediction.is_determined
    fate, stage = (
        np.where(determined, getattr(prediction, column), getattr(sent, column)) for column in ("fate", "stage")
    )
    same = observed & (fate == observations.fate) & (stage == observations.stage)
    same &= ~_by_others(prediction, observations, deny_mask)
    possible = np.where(determined, prediction.ct, sent.ct)
    differing = same & _differs(possible, observations)
    if prediction.has_states:  # that it was to get to conntrack or not is known
        differing |= same & determined & ((possible != 0) != (observations.state != NO_STATE))
    same &= ~differing
    matched = same & determined
    wrong = (observed & ~same) | unseen
    return Verification(
        packets=len(observations),
        matched=int(matched.sum()),
        mismatched=int((observed & ~same).sum()),
        unobserved=int(unseen.sum()),
        undetermined=int((same & ~determined).sum()),
        not_sendable=int((~observed & not_sendable).sum()),
        unpredicted=0,  # every packet has a prediction: the model is total
        stages=_stage_counts(prediction, observations, matched),
        entries=_entry_rows(prediction, entries, _in_packets(counters, prediction, sent, observations, entries)),
        mismatches=tuple(
            Mismatch(
                packet=int(packet),
                record=record(int(packet)),
                summary=summary(int(packet)),
                predicted=(prediction if determined[packet] else sent).disposition(int(packet)),
                observed=observations.disposition(int(packet)),
                evidence=str(observations.evidence(int(packet))),
                state=observations.ct_state(int(packet)),
                mark=int(observations.mark[packet]),
                possible=(prediction if determined[packet] else sent).ct_states(int(packet)),
                is_state=bool(differing[packet]),
            )
            for packet in np.flatnonzero(wrong)[:SHOWN]
        ),
        states=_state_counts(observations),
        compared_states=StateCount(
            matched=int((same & _is_compared(possible, observations)).sum()),
            differing=int(differing.sum()),
            several=int((same & _is_compared(possible, observations) & (possible & (possible - 1) != 0)).sum()),
        ),
    )


def _by_others(prediction: Prediction, observations: Observations, deny_mask: int) -> npt.NDArray[np.bool_]:
    """bool[N]: an entry of ours was to drop the packet in mangle or filter, and another program's rule did."""
    if not deny_mask:
        return np.zeros(len(observations), np.bool_)
    stages = [tuple(Stage).index(stage) for stage in FILTER_STAGES]
    ours = (prediction.entry >= 0) & np.isin(observations.stage, stages)
    return np.asarray(ours & (observations.mark & deny_mask == 0), np.bool_)


def _is_compared(possible: npt.NDArray[np.uint8], observations: Observations) -> npt.NDArray[np.bool_]:
    """bool[N]: states are predicted for the packet (``Prediction.ct``), and conntrack said one."""
    return np.asarray((possible != 0) & (observations.state != NO_STATE), np.bool_)


def _differs(possible: npt.NDArray[np.uint8], observations: Observations) -> npt.NDArray[np.bool_]:
    """bool[N]: conntrack said what is not one of the packet's predicted states."""
    bits = np.array([CT_BITS.get(state, 0) for state in CT_STATES] + [0] * (NO_STATE - len(CT_STATES) + 1), np.uint8)
    return np.asarray(_is_compared(possible, observations) & (possible & bits[observations.state] == 0), np.bool_)


def _column_of(fate: npt.NDArray[np.uint8], stage: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For each packet the index into _COLUMNS of its fate or, if dropped, of its stage; -1 without observation."""
    plain = {FATE_CODE[fate]: i for i, fate in enumerate(_ENDS)}
    column = np.full(len(fate), -1, np.int64)
    for code, index in plain.items():
        column[fate == code] = index
    dropped = (fate == FATE_CODE[Fate.DROPPED]) & (stage != NONE)
    column[dropped] = len(plain) + stage[dropped].astype(np.int64)
    return column


def _stage_counts(
    prediction: Prediction, observations: Observations, matched: npt.NDArray[np.bool_]
) -> Mapping[str, StageCount]:
    """Counts only packets whose end is determined."""
    predicted = _column_of(prediction.fate, prediction.stage)
    observed = np.where(prediction.is_determined, _column_of(observations.fate, observations.stage), -1)
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


def _state_counts(observations: Observations) -> Mapping[CtState, int]:
    """Of every packet that got past conntrack, as the kernel said it."""
    counts = np.bincount(observations.state[observations.state != NO_STATE], minlength=len(CT_STATES))
    return {state: int(count) for state, count in zip(CT_STATES, counts.tolist(), strict=True) if count}


def _in_packet_order() -> list[tuple[int, str]]:
    """Stages first, as a packet meets them, then the fates."""
    indexed = list(enumerate(_COLUMNS))
    fates = len(_ENDS)
    return indexed[fates:] + indexed[:fates]


def _in_packets(
    counters: Mapping[str, int],
    prediction: Prediction,
    sent: Prediction,
    observations: Observations,
    entries: tuple[Entry, ...],
) -> Mapping[str, int]:
    """Counters in packets. From raw on a reassembled datagram is counted once, so its other fragments are added as
    observed. The frames sent for undetermined packets are subtracted.
    """
    counted_once = [tuple(Stage).index(stage) for stage in _AFTER_DEFRAG]
    more = observations.absorbed & np.isin(observations.stage, counted_once) & (sent.entry >= 0)
    added = np.bincount(sent.entry[more], minlength=len(entries))
    others = ~prediction.is_determined & (sent.entry >= 0)
    added -= np.bincount(sent.entry[others], minlength=len(entries))
    return {
        entry.name: counters.get(entry.name, 0) + int(added[index])
        for index, entry in enumerate(entries)
        if entry.action is Action.DENY  # other entries count packets that they let pass
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
