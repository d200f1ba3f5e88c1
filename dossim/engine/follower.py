"""``engine/follow.c``: packets in the order of their arrival, through defragmentation and connection tracking."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import (
    LATE,
    SAYING,
    SEVERAL,
    TOLD,
    BatchStruct,
    ColumnsStruct,
    FollowedStruct,
    FollowerStruct,
    Kept,
    Rows,
)
from dossim.engine.library import function
from dossim.engine.predictor import Frames, Given, Predictor
from dossim.engine.rules import U8, After, Ends, Rules

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]

SAYS_CUT, FIRST_SAYING = 1, 2  # values of Followed.said; 0: nothing
_POINTER = ctypes.c_void_p


@dataclass(frozen=True)
class Limits:
    """How much memory flows, and fragments that wait for others, may take; what does not fit is undetermined."""

    flow_bytes: int = 512 << 20
    fragment_bytes: int = 256 << 20


LIMITS = Limits()


class TrackedEnds(Ends, Protocol):
    """Ends, and the conntrack states of each packet: a bit for each in the order of CtState."""

    ct: U8


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


class Follower:
    """State between batches. To be closed, or used in a ``with`` statement. ``after``: policy after conntrack;
    ``outside``, ``inside``: raw OUTPUT of both interfaces; ``tracks``: packets go through conntrack.
    """

    def __init__(
        self,
        engine: Predictor,
        *,
        after: After | None = None,
        outside: Rules | None = None,
        inside: Rules | None = None,
        tcp_ports: Sequence[int] = (),
        tracks: bool = False,
        limits: Limits = LIMITS,
    ) -> None:
        """Raises MemoryError."""
        kept = Kept()
        self._used = engine, after, outside, inside, kept
        self._tracks, self._number = tracks, 0
        setup = FollowerStruct(
            ctypes.addressof(engine.struct),
            None if after is None else ctypes.addressof(after.struct),
            None if outside is None else ctypes.addressof(outside.struct),
            None if inside is None else ctypes.addressof(inside.struct),
            kept.rows(np.uint16, tcp_ports),
            len(tcp_ports),
            tracks,
            seed=int.from_bytes(os.urandom(8), "little"),
            most_flow_bytes=limits.flow_bytes,
            most_fragment_bytes=limits.fragment_bytes,
        )
        self._handle = function("engine_follower", [_POINTER], _POINTER)(ctypes.byref(setup))
        if not self._handle:
            raise MemoryError("following packets needs more memory than there is")

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
        ends: TrackedEnds,
        odd: U8,
        flows: Rows,
        times: I64 | None = None,
        *,
        is_last: bool = True,
    ) -> Followed:
        """The next packets, as :meth:`Predictor.predict` has left them: their ends become the final ones, but those of
        fragments that wait are in ``late`` of a later batch. ``times``: when each arrives, in ns; without, all at one
        instant. Raises MemoryError.
        """
        count = len(odd)
        said = np.zeros(count, np.uint16)
        given, flows = Given(capture), np.ascontiguousarray(flows)
        arrays = (ends.fate, ends.stage, ends.entry, ends.reason, ends.untracked, odd, flows)
        columns = ColumnsStruct(*(array.ctypes.data for array in arrays), len(flows))
        at = None if times is None else np.ascontiguousarray(times, np.int64)
        batch = BatchStruct(
            given.address,
            ctypes.addressof(columns),
            None if at is None else at.ctypes.data,
            ends.ct.ctypes.data,
            said.ctypes.data,
            self._number,
            count,
            is_last,
        )
        found = FollowedStruct()
        run = function("engine_follow", [_POINTER] * 3, ctypes.c_int64)
        if not run(self._handle, ctypes.byref(batch), ctypes.byref(found)):
            raise MemoryError("the packets that wait for others do not fit into memory")
        self._number += count
        return Followed(
            said,
            _rows(found.several, found.several_count, SEVERAL),
            _rows(found.late, found.late_count, LATE),
            _rows(found.told, found.told_count, TOLD),
            _rows(found.sayings, found.saying_count, SAYING),
        )


def _rows(address: int | None, count: int, kind: np.dtype[Any]) -> Rows:
    """A copy of the engine's array."""
    if not count or address is None:
        return np.zeros(0, kind)
    raw = ctypes.string_at(address, count * kind.itemsize)
    return np.frombuffer(raw, kind)
