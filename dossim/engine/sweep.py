"""``engine/sweep.c``: pieces of a capture, of which packets that are dropped before connection tracking, by themselves
and for sure, are counted; all others are left, for a follower if there is one.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import Counter
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dossim.engine.follower import Follower
from dossim.engine.layout import LEFT, OUTCOME, Rows, SweepStruct
from dossim.engine.library import function
from dossim.engine.predictor import Frames, Given, Predictor
from dossim.engine.totals import Kind

I64 = npt.NDArray[np.int64]

Span = tuple[int, int]  # the earliest and the latest time, in ns

_POINTER = ctypes.c_void_p
_NO_TIME = (1 << 63) - 1


def span_of(times_ns: I64) -> Span | None:
    """None without packets."""
    return (int(times_ns.min()), int(times_ns.max())) if len(times_ns) else None


def merged(one: Span | None, other: Span | None) -> Span | None:
    """From the earliest to the latest of both."""
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


class Timed(Frames, Protocol):
    """The arrays of a Capture."""

    @property
    def timestamp_ns(self) -> I64: ...


class Sweep:
    """Counts packets piece by piece; for one thread. The ``follower`` takes those that are left, where they are handed
    on (:mod:`dossim.engine.course`). Of all that were counted, here or by the follower: ``packets``; ``from_host``,
    with an address of the host as source; ``cut``, of which the capture has not all bytes.
    """

    def __init__(self, predictor: Predictor, follower: Follower | None = None) -> None:
        """Raises MemoryError."""
        self._used = predictor, follower  # live as long
        run = function("engine_run", [_POINTER], _POINTER)(ctypes.byref(predictor.struct))
        if not run:
            raise MemoryError("the engine has no memory")
        weakref.finalize(self, function("engine_run_free", [_POINTER], None), run)
        self._struct = SweepStruct(run, follower and follower.address, earliest_ns=_NO_TIME, latest_ns=-_NO_TIME)
        self.address = ctypes.addressof(self._struct)
        arguments = [_POINTER, _POINTER, _POINTER, ctypes.c_int64, _POINTER, _POINTER]
        self._sweep = function("engine_sweep", arguments, ctypes.c_int64)

    @property
    def packets(self) -> int:
        return int(self._struct.packets)

    @property
    def from_host(self) -> int:
        return int(self._struct.from_host)

    @property
    def cut(self) -> int:
        return int(self._struct.cut)

    @property
    def span(self) -> Span | None:
        """The times of all packets that it has seen; None: it has counted none."""
        return (self._struct.earliest_ns, self._struct.latest_ns) if self._struct.packets else None

    def take(self, capture: Timed) -> Rows:
        """Count a piece; which packets are left, in order, as rows of LEFT: those that get to connection tracking or
        are none of IP, fragments, and those of which the capture, or hardware that was not done yet, hides what
        decides. Raises ValueError for a packet that is not within the data, MemoryError.
        """
        count = len(capture.offset)
        left, left_count = np.empty(count, LEFT), ctypes.c_int64()
        given, times = Given(capture), np.asarray(capture.timestamp_ns, np.int64)
        given.require(
            self._sweep(
                self.address,
                given.address,
                times.ctypes.data,
                count,
                left.ctypes.data,
                ctypes.byref(left_count),
            )
        )
        return left[: left_count.value]

    def ends(self) -> dict[Kind, int]:
        """The packets of each kind of end, without those that the follower took."""
        where = _POINTER()
        get = function("engine_outcomes", [_POINTER, _POINTER], ctypes.c_uint32)
        count = get(self._struct.run, ctypes.byref(where))
        assert where.value is not None
        found = Counter[Kind]()
        for row in np.frombuffer(ctypes.string_at(where.value, count * OUTCOME.itemsize), OUTCOME)[1:]:
            if row["packets"]:
                found[int(row["fate"]), int(row["stage"]), int(row["entry"]), int(row["reason"])] += int(row["packets"])
        return dict(found)
