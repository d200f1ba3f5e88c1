"""Waits until the kernel no longer uses what was replaced."""

from __future__ import annotations

import ctypes
import platform
import threading

_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "s390x": 356, "ppc64le": 365}
_MEMBARRIER_CMD_GLOBAL = 1
_libc = ctypes.CDLL(None, use_errno=True)


_fence = threading.Lock()


def store_fence() -> None:
    """A store barrier for mapped memory: every CPU sees the stores before the call before those after it.

    Releasing a lock orders the stores before it, acquiring it again those after it.
    """
    with _fence:
        pass
    with _fence:
        pass


def wait_for_readers() -> None:
    """Wait until every program run that began before the call has ended. A run is an RCU read-side section.

    ``membarrier(2)`` with CMD_GLOBAL is ``synchronize_rcu()`` (kernel/sched/membarrier.c). If it is refused
    (nohz_full), this returns at once: a run of microseconds may still be in progress, and its counts may be missed.
    """
    number = _SYS_MEMBARRIER.get(platform.machine())
    if number is not None:
        _libc.syscall(number, _MEMBARRIER_CMD_GLOBAL, 0, 0)
