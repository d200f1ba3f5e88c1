"""What an agent waits for: a signal, a change in the datastore or of the host's interfaces, or a point in time."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from enforcer.datastore.base import DataStore
from enforcer.kernel.link_events import LinkEvents
from enforcer.log import event

_QUIET_S = 0.1  # editors and 'ip' make changes in bursts: one pass for all of a burst
_BURST_S = 1.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Woken:
    """Why a wait ended. Nothing set: its time was up."""

    stop: str = ""  # the signal's name
    policy: bool = False
    links: bool = False
    resync: bool = False  # SIGHUP

    @property
    def any(self) -> bool:
        return bool(self.stop) or self.policy or self.links or self.resync


class Wakeups:
    """A context manager; enter and use it in the main thread, since Python runs signal handlers there."""

    def __init__(self, store: DataStore) -> None:
        self._store = store
        self._stopping = threading.Event()
        self._pending = Woken()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._links = LinkEvents()
        # The kernel may hand a signal to any thread (watchfiles has some of its own); Python's handlers run in the main
        # thread, which would sleep on. What Python writes here, in whichever thread, wakes it.
        self._signalled, self._signals = socket.socketpair()
        self._signalled.setblocking(False)
        self._signals.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signalled, selectors.EVENT_READ)
        self._selector.register(self._event, selectors.EVENT_READ)
        self._selector.register(self._links, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._watch_store, name="datastore", daemon=True)
        self._handlers: dict[int, Any] = {}
        self._earlier_wakeup = -1

    def __enter__(self) -> Wakeups:
        self._earlier_wakeup = signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        for number in (*_STOP_SIGNALS, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._on_signal)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._earlier_wakeup)
        self._thread.join()
        self._selector.close()
        self._signalled.close()
        self._signals.close()
        self._links.__exit__(kind, error, trace)
        os.close(self._event)

    def wait(self, until_s: float | None, *, every_s: float | None, tick: Callable[[], None]) -> Woken:
        """Sleep until something happens or the monotonic clock reads ``until_s``; ``tick`` is called each ``every_s``.

        A burst of changes is one: the wait goes on until it is over. A stop signal ends it at once.
        """
        first_s: float | None = None
        while True:
            now_s = time.monotonic()
            limits = [limit for limit in (until_s, every_s and now_s + every_s) if limit is not None]
            if self._pending.any:
                first_s = first_s or now_s
                limits.append(min(now_s + _QUIET_S, first_s + _BURST_S))
            ready = self._select(min(limits, default=None))
            tick()
            if self._pending.stop or (self._pending.any and not ready) or _reached(first_s, _BURST_S):
                return self._take()
            if not self._pending.any and until_s is not None and time.monotonic() >= until_s:
                return Woken()

    def _select(self, until_s: float | None) -> bool:
        """Wait, collect what came; whether anything did."""
        timeout = None if until_s is None else max(0.0, until_s - time.monotonic())
        ready = self._selector.select(timeout)
        for key, _ in ready:
            if key.fileobj is self._links:
                self._links.drain()
                self._pending.links = True
            elif key.fileobj is self._signalled:
                self._signalled.recv(4096)  # its handler has run or runs now, and says more through the event
            else:
                os.eventfd_read(self._event)
        return bool(ready)

    def _take(self) -> Woken:
        taken, self._pending = self._pending, Woken()
        return taken

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._pending.resync = True
        else:
            self._pending.stop = signal.Signals(number).name
        os.eventfd_write(self._event, 1)

    def _watch_store(self) -> None:
        try:
            for _ in self._store.changes(self._stopping):
                self._pending.policy = True
                os.eventfd_write(self._event, 1)
        except Exception as error:  # the agent still resyncs; without this line nobody would know it is deaf
            event(logging.ERROR, "no longer watching for changes; SIGHUP reads the policy again", problem=error)


def _reached(since_s: float | None, duration_s: float) -> bool:
    return since_s is not None and time.monotonic() >= since_s + duration_s
