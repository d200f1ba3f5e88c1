"""``engine/totals.c``: how many packets end alike."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import ColumnsStruct
from dossim.engine.library import function
from dossim.engine.rules import I32, U8

_TOTAL = np.dtype([("key", np.uint64), ("packets", np.int64)])
_ROOM = 1 << 10

Kind = tuple[int, int, int, int]  # codes of fate and stage, index of the entry, code of the reason


def counted_ends(fate: U8, stage: U8, entry: I32, reason: npt.NDArray[np.uint16]) -> dict[Kind, int]:
    """The packets of each kind of end."""
    arrays: list[npt.NDArray[Any]] = [np.ascontiguousarray(column) for column in (fate, stage, entry, reason)]
    struct = ColumnsStruct(*(array.ctypes.data for array in arrays))
    pointer = ctypes.c_void_p
    arguments = [pointer, ctypes.c_int64, pointer, ctypes.c_uint32]
    count = function("engine_totals", arguments, ctypes.c_uint32)
    room = _ROOM
    while True:
        totals = np.zeros(room, _TOTAL)
        if count(ctypes.byref(struct), len(arrays[0]), totals.ctypes.data, room):
            break
        room *= 4
    found = totals[totals["packets"] > 0]
    return {_kind(key): packets for key, packets in zip(found["key"].tolist(), found["packets"].tolist(), strict=True)}


def _kind(key: int) -> Kind:
    entry = key & 0xFFFF_FFFF
    return key >> 56, key >> 48 & 0xFF, entry - (1 << 32) if entry >> 31 else entry, key >> 32 & 0xFFFF
