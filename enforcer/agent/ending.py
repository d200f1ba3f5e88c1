"""The end of a process by a fixed time, whatever its threads are held up by then."""

from __future__ import annotations

import os
import signal
from types import FrameType

from enforcer.system.log import last_words


def end_within(duration_s: float, *, code: int, message: str) -> None:
    """Unless :func:`never_mind` is called before, say the message and exit with the code. For the main thread.

    Not even a read from a file server that is gone delays that: the threads of a process that exits are killed.
    """

    def end(number: int, frame: FrameType | None) -> None:
        last_words(message)
        os._exit(code)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, duration_s)


def never_mind() -> None:
    """The process ends by itself."""
    signal.setitimer(signal.ITIMER_REAL, 0)
