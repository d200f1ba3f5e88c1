"""A deadline for process exit, whatever its threads are blocked on."""

from __future__ import annotations

import os
import signal
from types import FrameType

from enforcer.system.log import log_without_blocking


def exit_within(duration_s: float, *, code: int, message: str) -> None:
    """Log the message and exit with the code after the duration, unless :func:`cancel_exit` is called first. Call it in
    the main thread. A blocked read delays nothing: process exit kills all threads.
    """

    def end(number: int, frame: FrameType | None) -> None:
        log_without_blocking(message)
        os._exit(code)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, duration_s)


def cancel_exit() -> None:
    """Cancel :func:`exit_within`: the process ends by itself."""
    signal.setitimer(signal.ITIMER_REAL, 0)
