"""Packets in the order of their arrival: the engine takes them through defragmentation and connection tracking, and
each ends as policy after conntrack says for the states that it may have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.engine.follower import FIRST_SAYING, SAYS_CUT, Followed, Refused, Way
from dossim.engine.layout import Rows
from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.fields import TCP
from dossim.pipeline.conntrack.sentences import COINS, describe
from dossim.pipeline.conntrack.states import Coin, Reason, Remark
from dossim.pipeline.conntrack.verdict import Outcome, Verdict
from dossim.predict.after import Tables, compiled
from dossim.predict.compiled import rules_of
from dossim.predict.prediction import FATE_CODE, FATES, NO_ENTRY, NO_STAGE, STAGES, Draft, End
from enforcer.model.vocabulary import CtState, Direction
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import Entry, RuleTable

U8 = npt.NDArray[np.uint8]
Times = npt.NDArray[np.int64]

_STATES, _REASONS, _REMARKS = tuple(CtState), tuple(Reason), tuple(Remark)
_COINS = (None, *Coin)  # in the order of enum coin
_CUT = "its conntrack state is not known"
SEVERAL_BY = COINS[Coin.HOST_ISN].removeprefix("depends on ")  # what the end of packets with several depends on


def way_of(plan: InterfacePlan, host: Host, tables: Tables, inside: RuleTable, *, tracks: bool) -> Way:
    """``inside``: raw of the host's inside interface; ``tracks``: packets go through conntrack."""
    if not tracks:
        return Way()
    entries = entries_of(plan, tables)
    index = {entry.name: number for number, entry in reversed(list(enumerate(entries)))}
    return Way(
        after=compiled(tables, index) if tables.governs else None,
        outside=rules_of(plan.table, Direction.EGRESS),
        inside=rules_of(inside, Direction.EGRESS),
        tcp_ports=[item.port for item in host.listen if item.protocol == TCP],
        tracks=True,
    )


def entries_of(plan: InterfacePlan, tables: Tables) -> tuple[Entry, ...]:
    """What can drop received packets, as a prediction numbers it."""
    return (*plan.table.ingress, *tables.entries())


def refused_of(draft: Draft) -> Refused | None:
    """The packets of a draft that cannot be sent; None: there are none."""
    rows = np.flatnonzero(draft.fate == FATE_CODE[Fate.NOT_SENDABLE])
    return Refused(rows, draft.reason[rows]) if len(rows) else None


def note(draft: Draft, found: Followed) -> None:
    """Give all packets of a batch their reasons, and say why they have their conntrack states."""
    draft.say_where_cut(found.told)
    sentences = [_described(row) for row in found.sayings]
    codes = np.array([0, 0, *map(draft.code_of, sentences)], np.uint16)
    draft.ct_reason[:] = codes[found.said]
    draft.say_where_cut_state(np.flatnonzero(found.said == SAYS_CUT), found.told, _CUT)


def _described(row: np.void) -> str:
    """What is said of a packet: a sentence."""
    outcomes = tuple(
        Outcome(_STATES[one["state"]], _REASONS[one["because"]], _REMARKS[one["remark"] - 1] if one["remark"] else None)
        for one in row["outcomes"][: row["count"]]
    )
    return describe(Verdict(outcomes, _COINS[row["coin"]]))


# -- packets with several ends -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Several(Mapping[int, Any]):
    """Rows of SEVERAL, by the number of their packet."""

    rows: Rows

    @classmethod
    def of(cls, rows: Rows) -> Any:
        return cls(rows[np.argsort(rows["number"], kind="stable")])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows["number"].tolist())

    def _row(self, packet: int) -> np.void:
        at = int(np.searchsorted(self.rows["number"], packet))
        if at == len(self.rows) or self.rows["number"][at] != packet:
            raise KeyError(packet)
        found: np.void = self.rows[at]
        return found

    def __getitem__(self, packet: int) -> Any:
        raise NotImplementedError


class EndsByState(_Several):
    """Of each packet that may have several states, and does not end alike in all, its end in each."""

    def __getitem__(self, packet: int) -> dict[CtState, End]:
        row = self._row(packet)
        return {
            state: (int(row["fate"][code]), int(row["stage"][code]), int(row["entry"][code]))
            for code, state in enumerate(_STATES)
            if row["states"] >> code & 1
        }


@dataclass(frozen=True)
class Sets(_Several):
    """The packets of which several ends are possible. ``entries``, ``reasons``: what rows number."""

    entries: Sequence[Entry] = ()
    reasons: Sequence[str] = ()

    def __getitem__(self, packet: int) -> Disposition:
        row = self._row(packet)
        first, *others = (self._end(row, code) for code in range(len(_STATES)) if row["states"] >> code & 1)
        found = {(end.fate, end.stage): end for end in reversed(others) if not first.agrees(end)}
        return replace(first, others=tuple(reversed(found.values())), depends=SEVERAL_BY)

    def _end(self, row: np.void, code: int) -> Disposition:
        fate, stage, entry = FATES[row["fate"][code]], int(row["stage"][code]), int(row["entry"][code])
        reason = self.reasons[row["reason"][code]]
        if fate is not Fate.DROPPED:
            return Disposition(fate, reason=reason)
        name = None if entry == NO_ENTRY else self.entries[entry].name
        return Disposition(fate, None if stage == NO_STAGE else STAGES[stage], name, name or reason)


def sets_of(rows: Rows, entries: Sequence[Entry], reasons: Sequence[str]) -> Sets:
    """Of rows of SEVERAL those with a set of ends."""
    mine = rows[rows["is_set"] != 0]
    return Sets(mine[np.argsort(mine["number"], kind="stable")], entries, reasons)


assert FIRST_SAYING == SAYS_CUT + 1
