"""Prediction: where each packet of a capture ends, as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import Rows
from dossim.engine.predictor import cut_reasons
from dossim.engine.predictor import reasons as engine_reasons
from dossim.engine.totals import Kind, counted_ends
from dossim.model.disposition import OPEN_FATES, Disposition, Fate
from dossim.packet.capture import Capture
from dossim.packet.cut import ETHERNET_LEAST, ETHERNET_MOST, why_not_sendable
from dossim.pipeline.cut import cut_at, part_cut
from enforcer.model.vocabulary import CtState, Stage
from enforcer.policy.ruletable import Entry

I64 = npt.NDArray[np.int64]

FATES = tuple(Fate)
STAGES = tuple(Stage)
NO_STAGE = 255
NO_ENTRY = -1
_MOST_LENGTHS = 200  # pairs of captured and original length that are distinguished in one block
_MOST_REASONS = 60_000  # indexed by 16 bits
_ANOTHER = f"one of more than {_MOST_REASONS:,} reasons, which are not distinguished"
FATE_CODE = {fate: code for code, fate in enumerate(FATES)}
STAGE_CODE = {stage: code for code, stage in enumerate(STAGES)}
CT_BITS = {state: 1 << code for code, state in enumerate(CtState)}


End = tuple[int, int, int]  # codes of fate and stage, and the index of the entry


def disposition_of(kind: Kind, entries: Sequence[Entry], reasons: Sequence[str]) -> Disposition:
    """What the codes of a kind of end mean."""
    fate, stage, entry, reason = kind
    return Disposition(
        FATES[fate],
        None if stage == NO_STAGE else STAGES[stage],
        None if entry == NO_ENTRY else entries[entry].name,
        reasons[reason],
    )


def ends_of_kinds(
    kinds: Mapping[Kind, int], entries: Sequence[Entry], reasons: Sequence[str]
) -> dict[Disposition, int]:
    """The packets of each end. Kinds that differ in entries of one name are one end."""
    found: dict[Disposition, int] = {}
    for kind, packets in kinds.items():
        end = disposition_of(kind, entries, reasons)
        found[end] = found.get(end, 0) + packets
    return found


@dataclass(frozen=True)
class Prediction:
    """One row per packet. ``fate`` and ``stage`` (uint8) index Fate and Stage, 255 if no stage dropped it; the stage of
    an undetermined packet is the first whose result is unknown.

    ``entry`` (int32) indexes ``entries``, the table's ingress side, -1 if no entry dropped it; ``reason`` (uint16)
    indexes ``reasons``. ``untracked`` (bool): an Allow takes the packet out of connection tracking. ``sets``: the
    packets with several possible ends, of which the columns have the first. ``by_state``: the end of a packet for each
    of the conntrack states that it may have, where there are several.

    ``ct`` (uint8) has a bit for each conntrack state that the packet may have, in the order of CtState; 0 where it does
    not get there, or nobody knows. ``ct_reason`` indexes ``reasons``. ``has_states``: whether states are predicted.
    """

    fate: npt.NDArray[np.uint8]
    stage: npt.NDArray[np.uint8]
    entry: npt.NDArray[np.int32]
    reason: npt.NDArray[np.uint16]
    entries: tuple[Entry, ...]
    reasons: Sequence[str]
    untracked: npt.NDArray[np.bool_]
    sets: Mapping[int, Disposition] = field(default_factory=dict)
    by_state: Mapping[int, Mapping[CtState, End]] = field(default_factory=dict)
    ct: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    ct_reason: npt.NDArray[np.uint16] = field(default_factory=lambda: np.zeros(0, np.uint16))
    has_states: bool = False

    def __len__(self) -> int:
        return len(self.fate)

    def disposition(self, packet: int) -> Disposition:
        """The disposition of one packet; packets count from 0."""
        if packet in self.sets:
            return self.sets[packet]
        return self._disposition(*(int(column[packet]) for column in self._columns))

    @property
    def _columns(self) -> tuple[Any, ...]:
        return self.fate, self.stage, self.entry, self.reason

    def _disposition(self, fate: int, stage: int, entry: int, reason: int) -> Disposition:
        return disposition_of((fate, stage, entry, reason), self.entries, self.reasons)

    def only(self, rows: I64) -> Prediction:
        """Of these packets, in ascending order; nothing is said of their conntrack states."""
        sets = {}
        if self.sets:
            place = {packet: number for number, packet in enumerate(rows.tolist())}
            sets = {place[packet]: end for packet, end in self.sets.items() if packet in place}
        columns = {name: getattr(self, name)[rows] for name in ("fate", "stage", "entry", "reason", "untracked")}
        return replace(self, **columns, sets=sets, **_NO_STATES)

    def ct_states(self, packet: int) -> PossibleStates | None:
        """What conntrack may say of one packet; None where ``ct`` is 0."""
        states = tuple(state for state, bit in CT_BITS.items() if int(self.ct[packet]) & bit)
        return PossibleStates(states, self.reasons[self.ct_reason[packet]]) if states else None

    def with_reason(self, packets: npt.NDArray[np.bool_], reason: str) -> Prediction:
        """The same, with another reason for those of these packets that are undetermined."""
        mine = packets & (self.fate == FATE_CODE[Fate.UNDETERMINED])
        if not mine.any():
            return self
        reasons = self.reason.copy()
        reasons[mine] = len(self.reasons)
        return replace(self, reason=reasons, reasons=(*self.reasons, reason))

    def open_where_other(self, other: Prediction, first: Stage, reason: str) -> Prediction:
        """The same, but packets that end differently in the other prediction are undetermined: from the earlier of the
        two stages, or from ``first`` if neither has a stage. Others may have the states of both.
        """
        both = replace(self, ct=self.ct | other.ct)
        rows = np.flatnonzero((self.fate != other.fate) | (self.stage != other.stage))
        if not len(rows):
            return both
        fate, stage, entry, why = self.fate.copy(), self.stage.copy(), self.entry.copy(), self.reason.copy()
        earlier = np.minimum(self.stage[rows], other.stage[rows])
        fate[rows], entry[rows] = FATE_CODE[Fate.UNDETERMINED], NO_ENTRY
        stage[rows] = np.where(earlier == NO_STAGE, STAGE_CODE[first], earlier)
        why[rows] = len(self.reasons)
        return replace(both, fate=fate, stage=stage, entry=entry, reason=why, reasons=(*self.reasons, reason))

    def settled(self, observed: Callable[[int], CtState | None]) -> Prediction:
        """The same, but packets that may have several conntrack states have the end of the observed one."""
        if not self.by_state:
            return self
        fate, stage, entry = self.fate.copy(), self.stage.copy(), self.entry.copy()
        for packet, ends in self.by_state.items():
            state = observed(packet)
            if state is not None and state in ends:
                fate[packet], stage[packet], entry[packet] = ends[state]
        return replace(self, fate=fate, stage=stage, entry=entry)

    def left_open(self, packets: npt.NDArray[np.bool_], stage: Stage, reason: str) -> Prediction:
        """The same, but those of these packets that are determined are undetermined from this stage on, and nothing is
        said of their conntrack states.
        """
        rows = np.flatnonzero(packets & self.is_determined)
        fate, where, entry, why = self.fate.copy(), self.stage.copy(), self.entry.copy(), self.reason.copy()
        fate[rows], where[rows], entry[rows] = FATE_CODE[Fate.UNDETERMINED], STAGE_CODE[stage], NO_ENTRY
        why[rows] = len(self.reasons)
        found = replace(self, fate=fate, stage=where, entry=entry, reason=why, reasons=(*self.reasons, reason))
        return found.without_states(packets)

    def without_states(self, packets: npt.NDArray[np.bool_]) -> Prediction:
        """The same, but nothing is said of the conntrack states of these packets."""
        return replace(self, ct=np.where(packets, 0, self.ct).astype(np.uint8))

    def ends(self) -> dict[Disposition, int]:
        """The packets by where they end; of several possible ends the first counts."""
        return ends_of_kinds(counted_ends(*self._columns), self.entries, self.reasons)

    def totals(self) -> dict[str, int]:
        """Packets by the stage that drops them, in pipeline order, then by fate; without those that have no packets."""
        dropped = self.fate == FATE_CODE[Fate.DROPPED]
        per_stage = np.bincount(self.stage[dropped], minlength=len(STAGES))
        totals = {str(stage): int(per_stage[code]) for stage, code in STAGE_CODE.items()}
        for fate in (Fate.DELIVERED, Fate.FORWARDED):
            totals[str(fate)] = self.count(fate)
        return {word: count for word, count in totals.items() if count}

    def count(self, fate: Fate) -> int:
        """Packets with this fate."""
        return int((self.fate == FATE_CODE[fate]).sum())

    @property
    def is_determined(self) -> npt.NDArray[np.bool_]:
        """bool[N]: the packet's fate can be compared with a kernel's."""
        return np.asarray(~np.isin(self.fate, [FATE_CODE[fate] for fate in OPEN_FATES]), np.bool_)

    def several(self) -> dict[int, Disposition]:
        """The determined packets with several possible ends, in order."""
        known = self.is_determined
        return {packet: end for packet, end in sorted(self.sets.items()) if known[packet]}

    def entry_counts(self) -> dict[str, int]:
        """Packets that each entry drops, for entries that drop any."""
        counts = np.bincount(self.entry[self.entry >= 0], minlength=len(self.entries))
        return {entry.name: int(count) for entry, count in zip(self.entries, counts, strict=True) if count}


_NO_STATES: Mapping[str, Any] = {
    "by_state": {}, "ct": np.zeros(0, np.uint8), "ct_reason": np.zeros(0, np.uint16), "has_states": False,
}  # fmt: skip


@dataclass(frozen=True)
class PossibleStates:
    """What conntrack may say of a packet: one state, or several that cannot be told apart beforehand; and why. Prints
    as one phrase.
    """

    states: tuple[CtState, ...]
    reason: str

    def __str__(self) -> str:
        named = " or ".join(map(str, self.states))
        return f"{named} ({self.reason})" if self.reason else named


def where_cut(what: str, captured: int, wire: int) -> str:
    """What is unknown of a packet, with the captured and the original length; -1: too many packets differ in these."""
    if captured < 0:
        return f"cut by the capture: {what}"
    return cut_at(captured, wire, what) if captured < wire else part_cut(what)


def not_sendable(capture: Capture) -> Iterator[tuple[int, str]]:
    """The packets that no device sends, and why not."""
    wire_length = capture.wire_length
    for row in np.flatnonzero((wire_length < ETHERNET_LEAST) | (wire_length > ETHERNET_MOST)).tolist():
        why = why_not_sendable(capture.frame(row), int(wire_length[row]))
        if why:
            yield row, why


class Reasons:
    """Texts by code: these at first."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self._codes = {text: code for code, text in enumerate(texts)}

    def code_of(self, reason: str) -> int:
        """The code of a reason, which may be new."""
        if len(self.texts) >= _MOST_REASONS:
            reason = reason if reason in self._codes else _ANOTHER
        if reason not in self._codes:
            self._codes[reason] = len(self.texts)
            self.texts.append(reason)
        return self._codes[reason]


class Draft:
    """A prediction under construction: columns that the engine fills in. ``reasons``: those that have a code already,
    by that, and "" is the first.
    """

    def __init__(self, capture: Capture, reasons: Sequence[str] = ("",)) -> None:
        packets = len(capture)
        self._capture = capture
        self.fate = np.full(packets, FATE_CODE[Fate.DELIVERED], np.uint8)
        self.stage = np.full(packets, NO_STAGE, np.uint8)
        self.entry = np.full(packets, NO_ENTRY, np.int32)
        self.reason = np.zeros(packets, np.uint16)
        self.untracked = np.zeros(packets, np.bool_)
        self.ct = np.zeros(packets, np.uint8)
        self.ct_reason = np.zeros(packets, np.uint16)
        self._known = Reasons(reasons)
        self.code_of = self._known.code_of
        self._find_not_sendable()

    def _find_not_sendable(self) -> None:
        for row, why in not_sendable(self._capture):
            self.end(row, Fate.NOT_SENDABLE, why)

    def say_where_cut(self, told: Rows | None = None) -> None:
        """Give undetermined packets their reason with the lengths of the packet that was cut; until now they have what
        is unknown of it. ``told``: rows of TOLD, for those that are of one datagram with it.
        """
        first, last = cut_reasons(), len(engine_reasons())
        is_cut = (self.fate == FATE_CODE[Fate.UNDETERMINED]) & (self.reason >= first) & (self.reason < last)
        rows = np.flatnonzero(is_cut)
        self.reason[rows] = self._cut_codes(rows, self.reason[rows], told)

    def say_where_cut_state(self, rows: I64, told: Rows, what: str) -> None:
        """Likewise, why these packets have their conntrack states."""
        code = np.full(len(rows), self.code_of(what), np.uint16)
        self.ct_reason[rows] = self._cut_codes(rows, code, told)

    def _cut_codes(self, rows: I64, what: npt.NDArray[np.uint16], told: Rows | None) -> npt.NDArray[np.uint16]:
        """The codes of reasons that say where these packets were cut; ``what`` has those that do not."""
        captured, wire = self._capture.length[rows].astype(np.int64), self._capture.wire_length[rows].astype(np.int64)
        if told is not None and len(told) and len(rows):
            at = np.minimum(np.searchsorted(rows, told["number"]), len(rows) - 1)
            mine = rows[at] == told["number"]
            captured[at[mine]], wire[at[mine]] = told["captured"][mine], told["wire"][mine]
        lengths = captured << 32 | wire
        found: npt.NDArray[np.uint16] = what.copy()
        for code in np.flatnonzero(np.bincount(what)).tolist():  # np.unique would import masked arrays
            mine = what == code
            pairs, of = np.unique(lengths[mine], return_inverse=True)
            if len(pairs) > _MOST_LENGTHS:
                pairs, of = np.array([-1]), np.zeros_like(of)
            text = self._known.texts[code]
            texts = [where_cut(text, pair >> 32, pair & 0xFFFF_FFFF) for pair in pairs.tolist()]
            found[mine] = np.array([self.code_of(text) for text in texts], np.uint16)[of]
        return found

    def part(self, stop: int) -> Draft:
        """The same of the first packets alone."""
        found = Draft(self._capture.part(0, stop), self.reasons)
        for name in ("fate", "stage", "entry", "reason", "untracked", "ct", "ct_reason"):
            getattr(found, name)[:] = getattr(self, name)[:stop]
        return found

    @property
    def reasons(self) -> Sequence[str]:
        """By code; grows."""
        return self._known.texts

    def end(self, row: int, fate: Fate, reason: str = "") -> None:
        """One packet is delivered or forwarded."""
        self.fate[row] = FATE_CODE[fate]
        self.reason[row] = self.code_of(reason)

    def finish(
        self,
        entries: tuple[Entry, ...],
        sets: Mapping[int, Disposition] | None = None,
        by_state: Mapping[int, Mapping[CtState, End]] | None = None,
        *,
        has_states: bool = False,
    ) -> Prediction:
        columns = (self.fate, self.stage, self.entry, self.reason)
        texts = tuple(self._known.texts)
        return Prediction(
            *columns,
            entries,
            texts,
            self.untracked,
            sets or {},
            by_state or {},
            self.ct,
            self.ct_reason,
            has_states,
        )
