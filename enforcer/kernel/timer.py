"""A descriptor that is readable at regular intervals (timerfd_create(2)). Python has this from 3.13 on."""

from __future__ import annotations

import ctypes
import os
import struct
import time

from enforcer.model.errors import KernelError

_LIBC = ctypes.CDLL(None, use_errno=True)
_ITIMERSPEC = struct.Struct("=4q")  # struct itimerspec on 64-bit: interval and first expiration, seconds and ns


class Timer:
    """Readable every ``every_s`` seconds. Unread expirations count as one."""

    def __init__(self, every_s: float) -> None:
        self._fd = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise KernelError("create a timer", number=ctypes.get_errno())
        whole, part = divmod(round(every_s * 1e9), 10**9)
        if _LIBC.timerfd_settime(self._fd, 0, _ITIMERSPEC.pack(whole, part, whole, part), None) < 0:
            raise KernelError("start a timer", number=ctypes.get_errno())

    def fileno(self) -> int:
        return int(self._fd)

    def take(self) -> bool:
        """Whether it expired since the last call."""
        try:
            return bool(os.read(self._fd, 8))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._fd)
