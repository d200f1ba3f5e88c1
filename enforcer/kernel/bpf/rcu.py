"""Waiting until the kernel has stopped using what was replaced."""

from __future__ import annotations

import ctypes
import platform
import threading

_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "s390x": 356, "ppc64le": 365}
_MEMBARRIER_CMD_GLOBAL = 1
_libc = ctypes.CDLL(None, use_errno=True)


_fence = threading.Lock()


def store_fence() -> None:
    """What was stored in mapped memory before the call is seen before what is stored after it, on every processor.

    Leaving a lock orders the stores before it, taking it again those after.
    """
    with _fence:
        pass
    with _fence:
        pass


def wait_for_readers() -> None:
    """Return when every program run that began before the call has ended: an XDP run is an RCU read-side section.

    ``membarrier(2)`` with CMD_GLOBAL is ``synchronize_rcu()`` (kernel/sched/membarrier.c). Where it is refused
    (nohz_full) runs of microseconds may still be under way, and what they count may be missed.
    """
    number = _SYS_MEMBARRIER.get(platform.machine())
    if number is not None:
        _libc.syscall(number, _MEMBARRIER_CMD_GLOBAL, 0, 0)
