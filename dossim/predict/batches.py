"""A capture in parts, one after the other: what is known of each packet, as soon as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dossim.engine.follower import Followed, Follower, Limits
from dossim.engine.layout import Rows
from dossim.engine.predictor import FRAGMENT, NOT_ODD, OPEN, Predictor
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture, joined
from dossim.predict.after import Tables
from dossim.predict.following import entries_of, follower_of, note, sets_of
from dossim.predict.prediction import FATE_CODE, NO_ENTRY, STAGE_CODE, Draft, Prediction
from dossim.predict.world import predictor_of, reasons_of
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import RuleTable

Bool = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

# Of each policy: all of it is to stay below 300 MB.
_LIMITS = Limits(flow_bytes=96 << 20, fragment_bytes=20 << 20)
_ALONE = "a fragment whose datagram is not complete in the sample"
_HEADERS = 256  # bytes: what tells flows apart is before
_WAITS = 254  # in the place of a fate: a fragment, of whose datagram others are awaited


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


class Batches:
    """Predicts a capture part by part. ``enforced``: policy after conntrack that is; ``other``: another one that is
    predicted as well, in its place. ``alone``: the packets are not all of a capture, so that nothing is known of
    fragments. ``engine``: for packets by themselves. To be closed, or used in a ``with`` statement.
    """

    def __init__(
        self,
        plan: InterfacePlan,
        host: Host,
        enforced: Policy | None = None,
        other: Policy | None = None,
        *,
        alone: bool = False,
    ) -> None:
        """Raises MemoryError."""
        self._alone = alone
        self.engine, self._reasons = predictor_of(plan, host), reasons_of(host)
        policies = [enforced or Policy(Tables()), *([other] if other else [])]
        self._ways = [_Way(self.engine, plan, host, policy) for policy in policies]

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        for way in self._ways:
            way.close()

    def take(
        self, capture: Capture, doubt: Doubt | None = None, why: Why | None = None, *, is_last: bool = False
    ) -> Iterator[Decided]:
        """The next part; after the one that ``is_last`` there are no more. Raises MemoryError."""
        tracks = any(way.tracks for way in self._ways)
        draft, odd, flows = looked_at(self.engine, self._reasons, capture, doubt, records_flows=tracks)
        if self._alone:
            _leave(draft, odd == FRAGMENT, Stage.DEFRAG, _ALONE)
            odd[:] = NOT_ODD
        draft.fate[odd == FRAGMENT] = _WAITS
        drafts = [draft, *(draft.copied() for _ in self._ways[1:])]
        found = [
            way.follow(capture, mine, odd, flows, is_last=is_last) for way, mine in zip(self._ways, drafts, strict=True)
        ]
        now = [part.now if why is None else part.now.with_reason(why.packets, why.reason) for part in found]
        if why is not None and why.length is not None:
            capture = replace(capture, length=why.length)
        yield from _decided(capture, now)
        if (late := found[0].late) is not None:
            yield _of(late[0], [part.late[1] for part in found if part.late])


def looked_at(
    engine: Predictor, reasons: Sequence[str], capture: Capture, doubt: Doubt | None, *, records_flows: bool
) -> tuple[Draft, U8, Rows]:
    """What is known of packets without those before: as the engine predicts them."""
    draft = Draft(capture, reasons)
    odd, flows = engine.predict(capture, draft, records_flows=records_flows)
    if doubt is None or not len(doubt.rows):
        return draft, odd, flows
    other = Draft(doubt.otherwise, reasons)
    other_odd, _ = engine.predict(doubt.otherwise, other, records_flows=False)
    rows = _leave_doubtful(doubt, draft, odd, other, other_odd)
    return draft, odd, flows[~np.isin(flows["number"], rows)]


def _leave_doubtful(doubt: Doubt, draft: Draft, odd: U8, other: Draft, other_odd: U8) -> I64:
    """Packets that end otherwise in the other shape are undetermined from the earlier of the two stages, and it is not
    known whether they get to conntrack.
    """
    rows: I64 = doubt.rows
    is_alike = (draft.fate[rows] == other.fate) & (draft.stage[rows] == other.stage)
    is_alike &= (odd[rows] == other_odd) & (other_odd != FRAGMENT)
    differ = ~is_alike
    rows = np.asarray(rows[differ], np.int64)
    earlier = np.minimum(draft.stage[rows], other.stage[differ])  # of a fragment it is not set: it got to defrag
    draft.fate[rows], draft.entry[rows] = FATE_CODE[Fate.UNDETERMINED], NO_ENTRY
    draft.stage[rows] = np.minimum(earlier, STAGE_CODE[Stage.IP_INPUT])
    draft.reason[rows] = draft.code_of(doubt.reason)
    odd[rows] = OPEN
    return rows


def _leave(draft: Draft, packets: Bool, stage: Stage, reason: str) -> None:
    """These packets are undetermined."""
    draft.fate[packets], draft.entry[packets] = FATE_CODE[Fate.UNDETERMINED], NO_ENTRY
    draft.stage[packets], draft.reason[packets] = STAGE_CODE[stage], draft.code_of(reason)


def _decided(capture: Capture, found: list[Prediction]) -> Iterator[Decided]:
    """Those of a part that do not wait: the same with each policy."""
    waits = found[0].fate == _WAITS
    if not waits.any():
        yield _of(capture, found)
        return
    rows = np.flatnonzero(~waits)
    yield _of(capture.only(rows), [one.only(rows) for one in found])


def _of(packets: Capture, found: list[Prediction]) -> Decided:
    return Decided(packets, found[0], found[1] if len(found) > 1 else None)


@dataclass(frozen=True)
class _Found:
    """Of the packets of a part, where those that wait have no fate; and of those that waited before."""

    now: Prediction
    late: tuple[Capture, Prediction] | None


class _Way:
    """One policy after conntrack, or none: packets in the order of their arrival, and those that wait."""

    def __init__(self, engine: Predictor, plan: InterfacePlan, host: Host, policy: Policy) -> None:
        inside = policy.inside or RuleTable(host.inside)
        self.tracks = policy.tables.governs
        self._entries = entries_of(plan, policy.tables)
        self._reasons = reasons_of(host)
        self._follower: Follower = follower_of(
            engine, plan, host, policy.tables, inside, tracks=self.tracks, limits=_LIMITS
        )
        self._number = 0  # of the next packet, among those that the follower was given
        self._waiting: _Waiting | None = None

    def close(self) -> None:
        self._follower.close()

    def follow(self, capture: Capture, draft: Draft, odd: U8, flows: Rows, *, is_last: bool) -> _Found:
        if not self.tracks and not is_last and not odd.any():
            draft.say_where_cut()
            return _Found(draft.finish(self._entries), None)
        found = self._follower.follow(capture, draft, odd, flows if self.tracks else flows[:0], is_last=is_last)
        first, self._number = self._number, self._number + len(capture)
        note(draft, _numbered(found, first))
        late = self._late(found, first)
        rows = np.flatnonzero(draft.fate == _WAITS)
        if len(rows):
            waiting = _Waiting.of(capture, rows, first)
            self._waiting = waiting if self._waiting is None else self._waiting.with_more(waiting)
        several = found.several[found.several["number"] >= first]
        sets = sets_of(_minus(several, first), self._entries, draft.reasons)
        return _Found(draft.finish(self._entries, sets), late)

    def _late(self, found: Followed, first: int) -> tuple[Capture, Prediction] | None:
        """Packets that do not wait any more."""
        late = found.late[np.argsort(found.late["number"], kind="stable")]
        if not len(late):
            return None
        assert self._waiting is not None, "they waited"
        at, left = np.searchsorted(self._waiting.numbers, late["number"]), np.ones(len(self._waiting.numbers), np.bool_)
        left[at] = False
        mine, self._waiting = self._waiting.only(at), self._waiting.only(np.flatnonzero(left))
        packets, numbers = mine.packets, mine.numbers
        draft = Draft(replace(packets, length=mine.length), self._reasons)
        for name in ("fate", "stage", "entry", "reason", "untracked"):
            getattr(draft, name)[:] = late[name]
        told, several = found.told[found.told["number"] < first], found.several[found.several["number"] < first]
        note(draft, replace(found, said=late["said"], told=_among(told, numbers)))
        sets = sets_of(_among(several, numbers), self._entries, draft.reasons)
        return packets, draft.finish(self._entries, sets)


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
