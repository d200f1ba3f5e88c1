"""Removes what a process created on the host even when a signal ends it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal ends the process. Not an Exception, so that only clean-up code intercepts it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def unwinding() -> Iterator[None]:
    """SIGTERM and SIGHUP are raised as an exception in the block; the process then ends as these signals always end it.

    Does nothing if other handlers are installed, or outside the main thread.
    """
    owner = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child process, which has nothing to remove
            _die(number)
        for other in replaced:
            signal.signal(other, signal.SIG_IGN)  # clean-up is not interrupted
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
    """Delay terminating signals until the end of the block, so that clean-up knows what the block created.

    Blocks that use pyroute2 need it as well: an exception in the middle of its event loop leaves the loop waiting for
    an answer that has been read already, and clean-up with it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_SIGNALS, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
