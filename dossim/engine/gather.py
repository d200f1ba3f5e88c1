"""``engine/gather.c``: packets of several pieces of a capture, one after the other in a window of their own."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import WindowStruct
from dossim.engine.library import function
from dossim.engine.predictor import Given
from dossim.engine.sweep import Timed

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_POINTER = ctypes.c_void_p


class Numbered(Timed, Protocol):
    """The arrays of a Capture."""

    @property
    def record(self) -> I64: ...


class Window:
    """Memory for so many bytes of packets, of which ``data`` has ``padding`` more, and for so many packets."""

    def __init__(self, size: int, padding: int, most: int) -> None:
        # The system gives what is used of them.
        self.data = np.zeros(size + padding, np.uint8)
        self._columns = tuple(np.empty(most, kind) for kind in (np.int64, np.int32, np.int32, np.int64, np.int64))
        addresses = [column.ctypes.data for column in self._columns]
        self._struct = WindowStruct(self.data.ctypes.data, size, 0, *addresses, most)
        self.address = ctypes.addressof(self._struct)
        self._gather = function("engine_gather", [_POINTER] * 5 + [ctypes.c_int64], ctypes.c_int64)

    def __len__(self) -> int:
        """How many packets it has."""
        return int(self._struct.count)

    def clear(self) -> None:
        self._struct.used = self._struct.count = 0

    def add(self, piece: Numbered, rows: I64) -> int:
        """Packets of a piece, by row; how many there was room for."""
        given = Given(piece)
        numbers, times = (np.ascontiguousarray(column) for column in (piece.record, piece.timestamp_ns))
        return int(
            self._gather(
                self.address,
                given.address,
                numbers.ctypes.data,
                times.ctypes.data,
                rows.ctypes.data,
                len(rows),
            )
        )

    def columns(self) -> tuple[Any, ...]:
        """Of its packets: offset, length, length on the wire, number, and time in ns."""
        return tuple(column[: len(self)] for column in self._columns)
