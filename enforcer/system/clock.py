"""The clocks of this host, and whether the kernel says that the wall clock is synchronized."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from pathlib import Path

_TIME_ERROR = 5  # include/uapi/linux/timex.h: the clock is not synchronized
_TIMEX_BYTES = 512  # struct timex has 208; its first field, modes, is 0: change nothing
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_s() -> float:
    """CLOCK_BOOTTIME: seconds since the boot, suspended ones included. It never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_synchronized() -> bool:
    """Whether an NTP daemon keeps the wall clock right (adjtimex(2)); False if the kernel does not say so."""
    return 0 <= kernel_state() < _TIME_ERROR


def kernel_state() -> int:
    """What adjtimex(2) returns when it is to change nothing; -1 if it is not permitted."""
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))


def boot_id() -> str:
    """What distinguishes this boot from all others; "" if it cannot be read."""
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""
