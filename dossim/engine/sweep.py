"""``engine/sweep.c``: windows of a capture in one pass, without columns: packets that are dropped before connection
tracking, by themselves and for sure, are counted; all others are left.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import Counter

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import OUTCOME, SweptStruct
from dossim.engine.library import function
from dossim.engine.predictor import Frames, Given, Predictor
from dossim.engine.totals import Kind

I64 = npt.NDArray[np.int64]

_POINTER = ctypes.c_void_p


class Sweep:
    """Counts packets window by window; for one thread. Of those that it did not leave: ``packets``; ``from_host``, with
    an address of the host as source; ``cut``, of which the capture has not all bytes.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Raises MemoryError."""
        self._predictor = predictor  # lives as long
        run = function("engine_run", [_POINTER], _POINTER)(ctypes.byref(predictor.struct))
        if not run:
            raise MemoryError("the engine has no memory")
        self._run = run
        weakref.finalize(self, function("engine_run_free", [_POINTER], None), run)
        self._sweep = function("engine_sweep", [_POINTER, _POINTER, ctypes.c_int64, _POINTER], ctypes.c_int64)
        self.packets = self.from_host = self.cut = 0

    def take(self, capture: Frames) -> I64:
        """Count a window; which packets are left, in order: those that get to connection tracking or are none of IP,
        fragments, and those of which the capture, or hardware that was not done yet, hides what decides. Raises
        ValueError for a packet that is not within the data, MemoryError.
        """
        count = len(capture.offset)
        left = np.empty(count, np.int64)
        swept = SweptStruct(left=left.ctypes.data)
        given = Given(capture)
        given.require(self._sweep(self._run, given.address, count, ctypes.byref(swept)))
        self.packets += count - swept.left_count
        self.from_host += swept.from_host
        self.cut += swept.cut
        return left[: swept.left_count]

    def ends(self) -> dict[Kind, int]:
        """The packets of each kind of end."""
        where = _POINTER()
        get = function("engine_outcomes", [_POINTER, _POINTER], ctypes.c_uint32)
        count = get(self._run, ctypes.byref(where))
        assert where.value is not None
        found = Counter[Kind]()
        for row in np.frombuffer(ctypes.string_at(where.value, count * OUTCOME.itemsize), OUTCOME):
            if row["packets"]:
                found[int(row["fate"]), int(row["stage"]), int(row["entry"]), int(row["reason"])] += int(row["packets"])
        return dict(found)
