"""What a process has made on the host is removed when it is told to end, too."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal asked the process to end. Not an Exception: nothing but clean-up may come between."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def unwinding() -> Iterator[None]:
    """SIGTERM and SIGHUP leave the block as an exception does, and then end the process as they always do.

    Where somebody else handles them already, or outside of the main thread, nothing changes.
    """
    owner = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child, which has nothing to remove
            _die(number)
        for other in replaced:
            signal.signal(other, signal.SIG_IGN)  # removing is not interrupted
        raise Ended(number)

    is_main = threading.current_thread() is threading.main_thread()
    replaced = [number for number in _SIGNALS if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, leave)
    try:
        yield
    except Ended as ended:
        _die(ended.number)
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def held() -> Iterator[None]:
    """Signals that end a process wait until the block is done: what is made in it is known to whoever removes it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_SIGNALS, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
