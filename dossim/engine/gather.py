"""``engine/gather.c``: packets of several pieces of a capture, one after the other in a window of their own."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import WindowStruct

U8 = npt.NDArray[np.uint8]


class Window:
    """Memory for so many bytes of packets, of which ``data`` has ``padding`` more, and for so many packets."""

    def __init__(self, size: int, padding: int, most: int) -> None:
        # The system gives what is used of them.
        self.data = np.zeros(size + padding, np.uint8)
        self._columns = tuple(np.empty(most, kind) for kind in (np.int64, np.int32, np.int32, np.int64, np.int64))
        addresses = [column.ctypes.data for column in self._columns]
        self._struct = WindowStruct(self.data.ctypes.data, size, 0, *addresses, most)
        self.address = ctypes.addressof(self._struct)

    def __len__(self) -> int:
        """How many packets it has."""
        return int(self._struct.count)

    def clear(self) -> None:
        self._struct.used = self._struct.count = 0

    def columns(self) -> tuple[Any, ...]:
        """Of its packets: offset, length, length on the wire, number, and time in ns."""
        return tuple(column[: len(self)] for column in self._columns)
