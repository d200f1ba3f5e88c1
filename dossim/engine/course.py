"""``engine/course.c``: threads that sweep one file piece by piece, and come back only for what is not usual."""

from __future__ import annotations

import ctypes
import weakref
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dossim.engine.gather import Window
from dossim.engine.layout import LEFT, BlocksStruct, FileStruct, ReadingStruct, Rows, RunnerStruct
from dossim.engine.library import function
from dossim.engine.predictor import Given
from dossim.engine.records import Room, address_of
from dossim.engine.sweep import Sweep, Timed

_POINTER = ctypes.c_void_p
_NONE = -1
_OUT_OF_MEMORY = -2


class Numbered(Timed, Protocol):
    """The arrays of a Capture."""

    @property
    def record(self) -> npt.NDArray[np.int64]: ...


class Step(IntEnum):
    """What a thread comes back for."""

    OVER = 0  # nothing is left to be done
    HAS_TURN = 1  # the next piece is to be taken here
    WINDOW_FULL = 2  # the window is to be changed, in the place of the piece
    NO_ROOM = 3  # out of memory


class Pieces:
    """Memory for the pieces of one thread, of so many bytes and at most so many packets, and who sweeps them."""

    def __init__(self, size: int, padding: int, most: int, sweep: Sweep) -> None:
        self._data, self._room, self._sweep = np.zeros(size + padding, np.uint8), Room(most), sweep
        self._left = np.empty(most, LEFT)
        self._struct = RunnerStruct(
            address_of(self._data), self._room.struct, sweep.address, self._left.ctypes.data, 0, 0, 0
        )
        self.address = ctypes.addressof(self._struct)

    @property
    def place(self) -> int:
        """Of the piece that was begun last."""
        return int(self._struct.place)


class Course:
    """What the threads share. ``size``: bytes of a piece."""

    def __init__(self, size: int, window: Window) -> None:
        """Raises MemoryError."""
        self._reading = ReadingStruct(descriptor=_NONE, size=size)
        self._window = window
        self._kept: object = None
        new = function("engine_course", [_POINTER] * 2, _POINTER)
        self._course = new(ctypes.byref(self._reading), window.address)
        if not self._course:
            raise MemoryError("the engine has no memory")
        free = weakref.finalize(self, function("engine_course_free", [_POINTER], None), self._course)
        free.atexit = False  # type: ignore[misc]  # a property; at exit a thread may still wait in it, for a quiet pipe
        self._run = function("engine_run_course", [_POINTER] * 2, ctypes.c_uint32)
        self._leave_turn = function("engine_leave_turn", [_POINTER, ctypes.c_uint32], None)
        self._take_place = function("engine_take_place", [_POINTER, ctypes.c_int64], ctypes.c_uint32)
        self._leave_place = function("engine_leave_place", [_POINTER, ctypes.c_int64], None)
        self._hand_on = function("engine_hand_on", [_POINTER] * 6 + [ctypes.c_int64], ctypes.c_int64)
        self._change_window = function("engine_change_window", [_POINTER] * 2, None)
        self._followed = function("engine_window_followed", [_POINTER], None)
        self._close = function("engine_close_course", [_POINTER], None)

    def run(self, pieces: Pieces) -> Step:
        """Takes pieces until there is something to do here."""
        return Step(self._run(self._course, pieces.address))

    def close(self) -> None:
        """Nobody wants anything more: all threads are to end. From here on none of them uses a follower."""
        self._close(self._course)

    # -- for whoever has the turn --

    def leave_turn(self, *, is_over: bool) -> None:
        """``is_over``: no more pieces are to be taken."""
        self._leave_turn(self._course, is_over)

    def rest(self) -> tuple[memoryview, int, int, int] | None:
        """What was read here and not taken, if anything was read since :meth:`go_on`: the bytes, where they are in the
        file, the number of their first packet, and how many bytes were read.
        """
        reading = self._reading
        if reading.descriptor == _NONE or not reading.taken:
            return None
        bytes_of = ctypes.c_uint8 * reading.rest_size
        buf = memoryview(bytes_of.from_address(reading.rest)).cast("B") if reading.rest_size else memoryview(b"")
        return buf, int(reading.base), int(reading.number), int(reading.taken)

    def stop(self) -> None:
        """Until :meth:`go_on` all pieces are taken elsewhere."""
        self._reading.descriptor, self._reading.taken = _NONE, 0

    def go_on(
        self,
        descriptor: int,
        rest: memoryview,
        base: int,
        number: int,
        file: FileStruct,
        interfaces: npt.NDArray[np.void] | None,
    ) -> None:
        """How the file is read from here on: see :meth:`rest`, which nobody changes until then. ``interfaces``: rows of
        INTERFACE, of pcapng.
        """
        data = np.frombuffer(rest, np.uint8)
        self._kept = data, interfaces
        reading = self._reading
        reading.file = file
        reading.is_pcapng = interfaces is not None
        if interfaces is not None:
            reading.blocks = BlocksStruct(interfaces=interfaces.ctypes.data, interface_count=len(interfaces))
        reading.rest, reading.rest_size = address_of(data), len(data)
        reading.base, reading.number, reading.taken = base, number, 0
        reading.descriptor = descriptor

    # -- in the place of a piece --

    def take_place(self, pieces: Pieces) -> bool:
        """Waits until it is the turn of the thread's piece; False: the course was closed."""
        return bool(self._take_place(self._course, pieces.place))

    def leave_place(self, pieces: Pieces) -> None:
        """It is the turn of the next piece."""
        self._leave_place(self._course, pieces.place)

    def hand_on(self, sweep: Sweep, piece: Numbered, left: Rows) -> int:
        """What the sweep left of a piece: its follower takes it or, from a packet on of which more has to be known, the
        window. How many there was room for. Raises MemoryError.
        """
        given = Given(piece)
        numbers, times = (np.ascontiguousarray(column) for column in (piece.record, piece.timestamp_ns))
        taken = self._hand_on(
            self._course,
            sweep.address,
            given.address,
            numbers.ctypes.data,
            times.ctypes.data,
            left.ctypes.data,
            len(left),
        )
        if taken == _OUT_OF_MEMORY:
            raise MemoryError("following packets needs more memory than there is")
        return int(taken)

    def change(self, window: Window) -> None:
        """What is left goes to another window, which is empty, from here on. If the one before has packets, no follower
        takes others until it is told that they have been :meth:`followed`.
        """
        self._change_window(self._course, window.address)
        self._window = window

    # -- at any time --

    def followed(self) -> None:
        """The packets of one more window."""
        self._followed(self._course)

    @property
    def taken(self) -> int:
        """Bytes that were read since :meth:`go_on`."""
        return int(self._reading.taken)

    @property
    def packets(self) -> int:
        """Packets that were found here; all are of Ethernet."""
        return int(self._reading.packets)
