"""A capture in parts, one after the other: what is known of each packet, as soon as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dossim.engine.follower import WAITS, Counted, Followed, Follower, Limits, Refused, Shortened, Taken
from dossim.engine.layout import Rows
from dossim.engine.new_flows import BegunFlows
from dossim.engine.predictor import DoubtGiven
from dossim.engine.sweep import Sweep
from dossim.engine.totals import Kind
from dossim.model.disposition import Disposition
from dossim.model.host import Host
from dossim.packet.capture import Capture, joined
from dossim.predict.after import Tables
from dossim.predict.following import entries_of, note, sets_of, way_of
from dossim.predict.prediction import (
    Draft,
    Prediction,
    Reasons,
    disposition_of,
    ends_of_kinds,
    not_sendable,
    where_cut,
)
from dossim.predict.world import predictor_of, reasons_of
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import Entry, RuleTable

Bool = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
K = TypeVar("K")

# Of each policy: all of it is to stay below 300 MB.
_LIMITS = Limits(flow_bytes=96 << 20, fragment_bytes=20 << 20)
_ALONE = "a fragment whose datagram is not complete in the sample"
_HEADERS = 256  # bytes: what tells flows apart is before


@dataclass(frozen=True)
class Policy:
    """Policy after conntrack, and raw of the host's inside interface."""

    tables: Tables
    inside: RuleTable | None = None


@dataclass(frozen=True)
class Doubt:
    """Packets of a part, by number, of which it is not known whether they were on the wire as they are given, or
    ``otherwise``: the same packets alone. Where that matters they are undetermined, for ``reason``.
    """

    rows: I64
    otherwise: Capture
    reason: str


@dataclass(frozen=True)
class Why:
    """``reason`` why these packets of a part (bool[N]) are undetermined, if they are. They are given as if they were
    cut where it matters; ``length`` (int32[N]) is what was captured of each packet of the part, if their bytes are
    there.
    """

    packets: Bool
    reason: str
    length: npt.NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Decided:
    """Packets whose end is known; of fragments that had to wait only the headers are left. ``later``: where they end
    with the other policy, if there is one.
    """

    packets: Capture
    prediction: Prediction
    later: Prediction | None


@dataclass(frozen=True)
class Counts:
    """Packets by where they end with one policy: ``ends``, of several possible ones the first; ``kinds``, with whether
    they are untracked. ``several``: determined ones with several possible ends, ``several_after``: of which one is a
    drop by policy after conntrack. ``open_here``: undetermined ones that are determined with the first policy.
    """

    ends: Mapping[Disposition, int]
    kinds: Mapping[tuple[Kind, bool], int]
    several: int
    several_after: int
    open_here: int


class Batches:
    """Predicts a capture part by part, and counts where packets end. ``enforced``: policy after conntrack that is;
    ``other``: another one that is predicted as well, in its place. ``shows``: packets are told as soon as their end is
    known. ``new_flows``: counts those of packets that leave an entry. ``alone``: the packets are not all of a capture,
    so that nothing is known of fragments. ``engine``: for packets by themselves. To be closed, or used in a ``with``
    statement.
    """

    def __init__(
        self,
        plan: InterfacePlan,
        host: Host,
        enforced: Policy | None = None,
        other: Policy | None = None,
        *,
        shows: bool = True,
        new_flows: BegunFlows | None = None,
        alone: bool = False,
    ) -> None:
        """Raises MemoryError."""
        self._reasons = Reasons(reasons_of(host))
        policies = [enforced or Policy(Tables()), *([other] if other else [])]
        self._entries = [entries_of(plan, policy.tables) for policy in policies]
        ways = [
            way_of(plan, host, policy.tables, policy.inside or RuleTable(host.inside), tracks=policy.tables.governs)
            for policy in policies
        ]
        self.engine = predictor_of(plan, host, ways)
        self._shows, self._number = shows, 0  # that of the next packet
        self._waiting: _Waiting | None = None
        self._follower = Follower(
            self.engine,
            ways,
            new_flows=new_flows,
            alone=self._reasons.code_of(_ALONE) if alone else 0,
            limits=_LIMITS,
        )

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._follower.close()

    def sweep(self) -> Sweep:
        """For one thread, while nothing is shown: what it leaves is taken as by :meth:`take_complete`, where it is
        handed on. Raises MemoryError.
        """
        return Sweep(self.engine, self._follower)

    def take(
        self, capture: Capture, doubt: Doubt | None = None, why: Why | None = None, *, is_last: bool = False
    ) -> Sequence[Decided]:
        """The next part; after the one that ``is_last`` there are no more. Returns the packets whose end is known now,
        if they are to be shown. Raises MemoryError.
        """
        code_of = self._reasons.code_of
        doubtful = None if doubt is None else DoubtGiven(doubt.rows, doubt.otherwise, code_of(doubt.reason))
        shortened = None
        if why is not None:
            length = capture.length if why.length is None else why.length
            shortened = Shortened(why.packets, code_of(why.reason), length)
        refused, drafts = self._drafts(capture)
        found, _ = self._follower.follow(
            capture, drafts, refused=refused, doubt=doubtful, shortened=shortened, is_last=is_last
        )
        return self._decided(capture, drafts, found, why)

    def take_complete(self, capture: Capture) -> tuple[Sequence[Decided], Taken]:
        """The packets of the next part before the first that hardware may not have completed when it was captured. All
        from that one on are still to be taken. Returns as :meth:`take`, and how many they are. Raises MemoryError.
        """
        refused, drafts = self._drafts(capture)
        found, taken = self._follower.follow(capture, drafts, refused=refused, is_last=False, stops=True)
        if not self._shows or not taken.packets:
            return (), taken
        if taken.packets < len(capture):
            capture = capture.part(0, taken.packets)
            drafts = [draft.part(taken.packets) for draft in drafts]
            found = [replace(one, said=one.said[: taken.packets]) for one in found]
        return self._decided(capture, drafts, found, None), taken

    def _drafts(self, capture: Capture) -> tuple[Refused | None, Sequence[Draft]]:
        """Which packets cannot be sent; what the engine is to fill in, if packets are shown."""
        refused = [(row, self._reasons.code_of(text)) for row, text in not_sendable(capture)]
        drafts = [Draft(capture, self._reasons.texts) for _ in self._entries] if self._shows else []
        return _refused(refused) if refused else None, drafts

    def _decided(
        self, capture: Capture, drafts: Sequence[Draft], found: Sequence[Followed], why: Why | None
    ) -> Sequence[Decided]:
        if not self._shows:
            return ()
        first, self._number = self._number, self._number + len(capture)
        return [*self._now(capture, drafts, found, why, first), *self._late(found, first)]

    def counts(self) -> list[Counts]:
        """All packets that have ended, by each policy."""
        return [self._counts(self._follower.counted(way), mine) for way, mine in enumerate(self._entries)]

    def _counts(self, counted: Counted, entries: Sequence[Entry]) -> Counts:
        texts = self._reasons.texts
        kinds, cuts = _added(counted.ends), _added(counted.cuts)
        ends = ends_of_kinds(kinds, entries, texts)
        for cut, packets in cuts.items():
            end = disposition_of(cut.kind, entries, texts)
            end = replace(end, reason=where_cut(end.reason, cut.captured, cut.wire))
            ends[end] = ends.get(end, 0) + packets
        all_kinds = dict(counted.ends)
        for (cut, untracked), packets in counted.cuts.items():
            kind = cut.kind, untracked
            all_kinds[kind] = all_kinds.get(kind, 0) + packets
        return Counts(ends, all_kinds, counted.several, counted.several_after, counted.open_here)

    # -- packets that are shown --

    def _now(
        self, capture: Capture, drafts: Sequence[Draft], found: Sequence[Followed], why: Why | None, first: int
    ) -> Iterator[Decided]:
        """Those of a part that do not wait."""
        now = []
        for draft, one, entries in zip(drafts, found, self._entries, strict=True):
            note(draft, _numbered(one, first))
            several = one.several[one.several["number"] >= first]
            now.append(draft.finish(entries, sets_of(_minus(several, first), entries, draft.reasons)))
        waits = drafts[0].fate == WAITS
        rows = np.flatnonzero(waits)
        if len(rows):
            waiting = _Waiting.of(capture, rows, first)
            self._waiting = waiting if self._waiting is None else self._waiting.with_more(waiting)
        if why is not None and why.length is not None:
            capture = replace(capture, length=why.length)
        if not len(rows):
            yield _of(capture, now)
            return
        rest = np.flatnonzero(~waits)
        yield _of(capture.only(rest), [one.only(rest) for one in now])

    def _late(self, found: Sequence[Followed], first: int) -> Iterator[Decided]:
        """Packets that do not wait any more: the same with each policy."""
        if not len(found[0].late):
            return
        assert self._waiting is not None, "they waited"
        numbers = np.sort(found[0].late["number"])
        at, left = np.searchsorted(self._waiting.numbers, numbers), np.ones(len(self._waiting.numbers), np.bool_)
        left[at] = False
        mine, self._waiting = self._waiting.only(at), self._waiting.only(np.flatnonzero(left))
        pairs = zip(found, self._entries, strict=True)
        yield _of(mine.packets, [self._late_one(mine, one, entries, first) for one, entries in pairs])

    def _late_one(self, mine: _Waiting, found: Followed, entries: tuple[Entry, ...], first: int) -> Prediction:
        late = found.late[np.argsort(found.late["number"], kind="stable")]
        draft = Draft(replace(mine.packets, length=mine.length), self._reasons.texts)
        for name in ("fate", "stage", "entry", "reason", "untracked"):
            getattr(draft, name)[:] = late[name]
        told, several = found.told[found.told["number"] < first], found.several[found.several["number"] < first]
        note(draft, replace(found, said=late["said"], told=_among(told, mine.numbers)))
        return draft.finish(entries, sets_of(_among(several, mine.numbers), entries, draft.reasons))


def _refused(rows: Sequence[tuple[int, int]]) -> Refused:
    found = np.array(rows, np.int64)
    return Refused(found[:, 0], found[:, 1].astype(np.uint16))


def _of(packets: Capture, found: list[Prediction]) -> Decided:
    return Decided(packets, found[0], found[1] if len(found) > 1 else None)


def _added(kinds: Mapping[tuple[K, bool], int]) -> dict[K, int]:
    """Tracked packets and untracked ones."""
    found: dict[K, int] = {}
    for (kind, _), packets in kinds.items():
        found[kind] = found.get(kind, 0) + packets
    return found


def _numbered(found: Followed, first: int) -> Followed:
    """Of the packets from this one on, which get numbers from 0."""
    return replace(found, told=_minus(found.told[found.told["number"] >= first], first))


def _minus(rows: Rows, first: int) -> Rows:
    rows = rows.copy()
    rows["number"] -= first
    return rows


def _among(rows: Rows, numbers: I64) -> Rows:
    """With positions in ``numbers`` in place of those."""
    rows = rows[np.argsort(rows["number"], kind="stable")].copy()
    rows["number"] = np.searchsorted(numbers, rows["number"])
    return rows


# -- packets that wait -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Waiting:
    """``packets``: with no more of their bytes than headers take; ``length``: how many were captured; ``numbers`` in
    ascending order.
    """

    packets: Capture
    length: npt.NDArray[np.int32]
    numbers: I64

    @classmethod
    def of(cls, capture: Capture, rows: I64, first: int) -> _Waiting:
        heads = replace(capture, length=np.minimum(capture.length, _HEADERS), skipped={}, link_types={}, warnings=())
        return cls(heads.only(rows), capture.length[rows], rows + first)

    def with_more(self, other: _Waiting) -> _Waiting:
        return _Waiting(
            joined([self.packets, other.packets]),
            np.concatenate([self.length, other.length]),
            np.concatenate([self.numbers, other.numbers]),
        )

    def only(self, rows: I64) -> _Waiting:
        return _Waiting(self.packets.only(rows), self.length[rows], self.numbers[rows])
