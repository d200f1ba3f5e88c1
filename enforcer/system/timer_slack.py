"""How late timeouts of a thread may be (PR_SET_TIMERSLACK in prctl(2)): the kernel lets them expire together."""

from __future__ import annotations

import ctypes

_PR_SET_TIMERSLACK = 29  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


def allow_late_timeouts(by_s: float) -> None:
    """In the calling thread, and in those that it starts from now on. What is waited for still ends a wait at once."""
    _LIBC.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(round(by_s * 1e9)), 0, 0, 0)
