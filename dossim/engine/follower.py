"""``engine/follow.c``: packets through all stages in the order of their arrival: where they end is counted, and shown
to those who ask for it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import (
    CUT_COUNT,
    LATE,
    OUTCOME,
    SAYING,
    SEVERAL,
    TOLD,
    BatchStruct,
    CountedStruct,
    FollowedStruct,
    FollowerStruct,
    Kept,
    Rows,
    WayColumnsStruct,
    WayStruct,
)
from dossim.engine.library import function
from dossim.engine.new_flows import BegunFlows
from dossim.engine.predictor import DoubtGiven, Frames, Given, Predictor
from dossim.engine.rules import I32, U8, After, Chain, Ends, Rules
from dossim.engine.totals import Kind

Bool = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]

SAYS_CUT, FIRST_SAYING = 1, 2  # values of Followed.said; 0: nothing
WAITS = 254  # in the place of a fate: a fragment, of whose datagram others are awaited
_POINTER = ctypes.c_void_p


@dataclass(frozen=True)
class Limits:
    """How much memory the flows of each way, and fragments that wait for others, may take; what does not fit is
    undetermined.
    """

    flow_bytes: int = 512 << 20
    fragment_bytes: int = 256 << 20


LIMITS = Limits()


class TrackedEnds(Ends, Protocol):
    """Ends, and the conntrack states of each packet: a bit for each in the order of CtState."""

    ct: U8


@dataclass(frozen=True)
class Way:
    """Policy ``after`` conntrack, or none, beside raw OUTPUT of both interfaces. ``tracks``: packets go through
    conntrack.
    """

    after: After | None = None
    outside: Rules | None = None
    inside: Rules | None = None
    tcp_ports: Sequence[int] = ()
    tracks: bool = False

    @property
    def rules(self) -> tuple[Rules | Chain, ...]:
        """All that there are."""
        chains = () if self.after is None else self.after.chains.values()
        return (*chains, *(rules for rules in (self.outside, self.inside) if rules is not None))


@dataclass(frozen=True)
class Refused:
    """The ``rows`` of a batch that cannot be sent, in order, and the codes of their ``reasons``."""

    rows: I64
    reasons: U16


@dataclass(frozen=True)
class Shortened:
    """``packets`` (bool[N]) that are as if they were cut: the code of the ``reason`` why they are undetermined, if they
    are. ``length`` (int32[N]): what was captured of each packet of the batch.
    """

    packets: Bool
    reason: int
    length: I32


@dataclass(frozen=True)
class Followed:
    """``said`` (uint16[N]): what is said of each packet's states: SAYS_CUT, or FIRST_SAYING and more, which number the
    rows of ``sayings``. ``several``: packets with different ends by state; ``told``: those whose reason tells the
    lengths of another packet; ``late``: packets of earlier batches. Rows of the types of their names.
    """

    said: U16
    several: Rows
    late: Rows
    told: Rows
    sayings: Rows


@dataclass(frozen=True)
class Taken:
    """How many ``packets`` of a batch were taken. Of them, if it stops: ``from_host``, with an address of the host as
    source; ``cut``, of which the capture has not all bytes.
    """

    packets: int
    from_host: int
    cut: int


@dataclass(frozen=True)
class CutKind:
    """An end for a reason that tells how much of the packet was ``captured``; -1: too many differ in that."""

    kind: Kind
    captured: int
    wire: int


@dataclass(frozen=True)
class Counted:
    """``ends``: packets by the kind of their end and whether they are untracked, without ``cuts``. ``several``: packets
    with several possible ends; ``several_after``: those that policy after conntrack may drop. ``open_here``: packets
    that are undetermined, and not so by the first way.
    """

    ends: Mapping[tuple[Kind, bool], int]
    cuts: Mapping[tuple[CutKind, bool], int]
    several: int
    several_after: int
    open_here: int


class Follower:
    """State between batches. To be closed, or used in a ``with`` statement. ``ways``: one, or two in the place of each
    other. ``new_flows``: counts those of the first. ``alone``: the code of the reason why fragments are undetermined,
    where the packets are not all of a capture.
    """

    def __init__(
        self,
        engine: Predictor,
        ways: Sequence[Way],
        *,
        new_flows: BegunFlows | None = None,
        alone: int = 0,
        limits: Limits = LIMITS,
    ) -> None:
        """Raises MemoryError."""
        kept = Kept()
        self._used = engine, ways, new_flows, kept
        self._ways = len(ways)
        given = (WayStruct * len(ways))(*(_way_struct(way, kept) for way in ways))
        setup = FollowerStruct(
            ctypes.addressof(engine.struct),
            ctypes.addressof(given),
            len(ways),
            None if new_flows is None else new_flows.address,
            seed=int.from_bytes(os.urandom(8), "little"),
            most_flow_bytes=limits.flow_bytes,
            most_fragment_bytes=limits.fragment_bytes,
            alone=alone,
        )
        self._handle = function("engine_follower", [_POINTER], _POINTER)(ctypes.byref(setup))
        if not self._handle:
            raise MemoryError("following packets needs more memory than there is")

    @property
    def address(self) -> int:
        """Until it is closed."""
        return int(self._handle)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._handle:
            function("engine_unfollow", [_POINTER], None)(self._handle)
            self._handle = None

    def follow(
        self,
        capture: Frames,
        ends: Sequence[TrackedEnds] = (),
        *,
        refused: Refused | None = None,
        doubt: DoubtGiven | None = None,
        shortened: Shortened | None = None,
        times: I64 | None = None,
        is_last: bool = True,
        stops: bool = False,
    ) -> tuple[list[Followed], Taken]:
        """The next packets; if it ``stops``, those before the first that hardware may not have completed
        (:mod:`dossim.engine.artefacts`). ``ends``: of each way, filled in; none: nobody wants to see them. Those of
        fragments that wait (WAITS) are in ``late`` of a later batch. ``times``: when each packet arrives, in ns;
        without, all at one instant. Raises ValueError for a packet that is not within the data, MemoryError.
        """
        count, kept, given = len(capture.offset), Kept(), Given(capture)
        said = [np.zeros(count, np.uint16) for _ in ends]
        columns = (WayColumnsStruct * len(ends))(*map(_columns, ends, said))
        batch = BatchStruct(
            given.address,
            ctypes.addressof(columns) if ends else None,
            None if times is None else kept.array(times.astype(np.int64, copy=False)),
            None if doubt is None else doubt.address,
            count=count,
            is_last=is_last,
            stops=stops,
        )
        if refused is not None:
            batch.refused, batch.refused_reasons = kept.array(refused.rows), kept.array(refused.reasons)
            batch.refused_count = len(refused.rows)
        if shortened is not None:
            batch.shortened, batch.shortened_reason = kept.array(shortened.packets), shortened.reason
            batch.whole_length = kept.array(shortened.length)
        found = (FollowedStruct * self._ways)()
        run = function("engine_follow", [_POINTER] * 3, ctypes.c_int64)
        given.require(run(self._handle, ctypes.byref(batch), ctypes.byref(found)))
        ways = [
            Followed(
                mine,
                _rows(one.several, one.several_count, SEVERAL),
                _rows(one.late, one.late_count, LATE),
                _rows(one.told, one.told_count, TOLD),
                _rows(one.sayings, one.saying_count, SAYING),
            )
            for mine, one in zip(said, found, strict=False)
        ]
        return ways, Taken(batch.taken, batch.from_host, batch.cut)

    def counted(self, way: int) -> Counted:
        """All packets that one of the ways has ended."""
        found = CountedStruct()
        function("engine_followed", [_POINTER, ctypes.c_uint32, _POINTER], None)(self._handle, way, ctypes.byref(found))
        outcomes = _rows(found.outcomes, found.outcome_count, OUTCOME)
        kinds = [(_kind(row), bool(row["untracked"])) for row in outcomes]
        packets = _rows(found.packets, found.packet_count, np.dtype(np.int64)).tolist()
        return Counted(
            {kind: count for kind, count in zip(kinds, packets, strict=False) if count},
            {
                (CutKind(kinds[row["code"]][0], int(row["captured"]), int(row["wire"])), kinds[row["code"]][1]): int(
                    row["packets"]
                )
                for row in _rows(found.cuts, found.cut_count, CUT_COUNT)
            },
            found.several,
            found.several_after,
            found.open_here,
        )


def _way_struct(way: Way, kept: Kept) -> WayStruct:
    return WayStruct(
        *(None if rules is None else ctypes.addressof(rules.struct) for rules in (way.after, way.outside, way.inside)),
        kept.rows(np.uint16, way.tcp_ports),
        len(way.tcp_ports),
        way.tracks,
    )


def _columns(ends: TrackedEnds, said: U16) -> WayColumnsStruct:
    arrays = (ends.fate, ends.stage, ends.entry, ends.reason, ends.untracked, ends.ct, said)
    return WayColumnsStruct(*(array.ctypes.data for array in arrays))


def _kind(row: np.void) -> Kind:
    return int(row["fate"]), int(row["stage"]), int(row["entry"]), int(row["reason"])


def _rows(address: int | None, count: int, kind: np.dtype[Any]) -> Rows:
    """A copy of the engine's array."""
    if not count or address is None:
        return np.zeros(0, kind)
    raw = ctypes.string_at(address, count * kind.itemsize)
    return np.frombuffer(raw, kind)
