"""``engine/flowset.c``: distinct flows, counted by kind while they come, in bounded memory."""

from __future__ import annotations

import ctypes
import os
import weakref

import numpy as np
import numpy.typing as npt

from dossim.engine.library import function

U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

MOST = 1 << 21
_POINTER = ctypes.c_void_p


class FlowSet:
    """``counts`` (int64[kinds]): flows by the kind of their first packet; ``is_more``: there were others, beyond as
    many as are kept (64 MB for all of MOST).
    """

    def __init__(self, kinds: int, most: int = MOST) -> None:
        """Raises MemoryError."""
        self.counts: I64 = np.zeros(kinds, np.int64)
        self.is_more = False
        seeds = (int.from_bytes(os.urandom(8), "little") for _ in range(2))
        self._handle = function("engine_flowset", [ctypes.c_uint64] * 3, _POINTER)(*seeds, most)
        if not self._handle:
            raise MemoryError("new flows cannot be counted: there is no memory")
        weakref.finalize(self, function("engine_flowset_free", [_POINTER], None), self._handle)

    def add(self, keys: U64, kinds: U8) -> None:
        """``keys`` (uint64[N, 6]) tell flows apart."""
        keys, kinds = np.ascontiguousarray(keys, np.uint64), np.ascontiguousarray(kinds, np.uint8)
        assert keys.shape == (len(kinds), 6)
        run = function("engine_flowset_add", [_POINTER, _POINTER, _POINTER, ctypes.c_int64, _POINTER], ctypes.c_uint32)
        found = run(self._handle, keys.ctypes.data, kinds.ctypes.data, len(kinds), self.counts.ctypes.data)
        self.is_more = bool(found)
