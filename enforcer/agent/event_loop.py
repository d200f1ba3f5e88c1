"""What an agent waits for: a signal, a change in the datastore or of the host's interfaces, or a point in time.

The main thread does nothing but wait. What takes time (reading, parsing, a pass) is done by a thread of its own, so
that a signal is heard whatever that is held up by: a lock, a huge file, a file server that is gone.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from enforcer.agent.guard import Source
from enforcer.agent.helper import Helper, Worker
from enforcer.datastore.base import DataStore
from enforcer.kernel.link_events import LinkEvents
from enforcer.system.log import event

_QUIET_S = 0.1  # editors and 'ip' make changes in bursts: one pass for all of a burst
_BURST_S = 1.0
_REPAIR_EVERY_S = 5.0  # what could not be had for want of descriptors, threads or memory is tried again
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Woken:
    """Why a wait ended. Nothing set: its time was up."""

    stop: str = ""  # the signal's name
    policy: bool = False
    links: bool = False
    losses: bool = False  # somebody took away or changed what is enforced
    resync: bool = False  # SIGHUP

    @property
    def any(self) -> bool:
        return bool(self.stop) or self.policy or self.links or self.losses or self.resync


class Wakeups:
    """A context manager; enter and use it in the main thread, since Python runs signal handlers there.

    ``on_stop`` is called by the signal handler with the first signal that is to end the agent.
    """

    def __init__(self, store: DataStore, *, on_stop: Callable[[str], None]) -> None:
        self._store = store
        self._on_stop = on_stop
        self._stopping = threading.Event()
        self._stopped_by = ""
        self._pending = Woken()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._links: LinkEvents | None = None
        # The kernel may hand a signal to any thread (watchfiles has some of its own); Python's handlers run in the main
        # thread, which would sleep on. What Python writes here, in whichever thread, wakes it.
        self._signalled, self._signals = socket.socketpair()
        self._signalled.setblocking(False)
        self._signals.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signalled, selectors.EVENT_READ)
        self._selector.register(self._event, selectors.EVENT_READ)
        # While a thread works, all else is left for later: whoever is told of changes may be in use by that thread.
        self._working = selectors.DefaultSelector()
        self._working.register(self._signalled, selectors.EVENT_READ)
        self._working.register(self._event, selectors.EVENT_READ)
        self._worker: Worker | None = None
        self._watcher: Helper | None = None
        self._is_watching = False
        self._handlers: dict[int, Any] = {}
        self._earlier_wakeup = -1
        self._repair_at_s = 0.0
        self._said: set[str] = set()

    def __enter__(self) -> Wakeups:
        self._earlier_wakeup = signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        for number in (*_STOP_SIGNALS, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_STOP_SIGNALS, signal.SIGHUP, signal.SIGALRM))  # as inherited
        self._repair()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._earlier_wakeup)
        if self._watcher is not None:
            self._watcher.join()
        if self._worker is not None:
            self._worker.end()
        self._selector.close()
        self._working.close()
        self._signalled.close()
        self._signals.close()
        self._close_links()
        os.close(self._event)

    def also_wait_for(self, sources: Iterable[Source]) -> None:
        """What tells of changes by others. Whoever made the sources closes them, when nobody waits any more."""
        for source in sources:
            self._selector.register(source, selectors.EVENT_READ)

    @property
    def stopped_by(self) -> str:
        """The name of the signal that is to end the agent, as soon as there was one."""
        return self._stopped_by

    def work(self, job: Callable[[], None], *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Have a thread do the job, and wait for it; what it raises is raised. ``meanwhile`` is called each second.

        Without a thread to be had it is done here: then a signal waits for it.
        """
        worker = self._worker_now()
        if worker is None:
            job()
            return
        worker.begin(job)
        while worker.is_busy():
            self._take_in(self._working.select(1.0))
            if worker.is_busy() and not self._stopped_by:
                meanwhile()
        worker.finish()

    def _worker_now(self) -> Worker | None:
        if self._worker is None or self._worker.has_ended():
            self._worker = None
            try:
                self._worker = Worker(self._wake)
            except (RuntimeError, MemoryError) as error:
                self._log_once("no thread of its own for a pass: signals wait for the end of each", error)
        return self._worker

    def _wake(self) -> None:
        os.eventfd_write(self._event, 1)

    def wait(self, until_s: float | None, *, every_s: float | None, tick: Callable[[], None]) -> Woken:
        """Sleep until something happens or the monotonic clock reads ``until_s``; ``tick`` is called each ``every_s``.

        A burst of changes is one: the wait goes on until it is over. A stop signal ends it at once.
        """
        first_s: float | None = None
        while True:
            now_s = time.monotonic()
            if self._is_incomplete() and now_s >= self._repair_at_s:
                self._repair()
            limits = [limit for limit in (until_s, every_s and now_s + every_s) if limit is not None]
            if self._is_incomplete():
                limits.append(self._repair_at_s)
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
        self._take_in(ready)
        return bool(ready)

    def _take_in(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            if key.fileobj is self._links:
                self._drain_links()
            elif isinstance(key.fileobj, Source):
                self._pending.losses |= key.fileobj.ready()
            elif key.fileobj is self._signalled:
                self._signalled.recv(4096)  # its handler has run or runs now, and says more through the event
            else:
                os.eventfd_read(self._event)

    def _take(self) -> Woken:
        taken, self._pending = self._pending, Woken(stop=self._stopped_by)
        return taken

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._pending.resync = True
        else:
            name = self._pending.stop = signal.Signals(number).name
            if not self._stopped_by:
                self._stopped_by = name
                self._on_stop(name)
        os.eventfd_write(self._event, 1)

    # -- what may be missing for a while -------------------------------------------------------------------------------

    def _is_incomplete(self) -> bool:
        return self._links is None or not self._is_watching

    def _repair(self) -> None:
        """Begin what has not begun or has ended; what changed meanwhile is looked for."""
        self._repair_at_s = time.monotonic() + _REPAIR_EVERY_S
        if self._links is None:
            self._open_links()
        if not self._is_watching:
            try:
                self._is_watching = True
                self._watcher = Helper(self._watch_store)
            except (RuntimeError, MemoryError) as error:
                self._is_watching = False
                self._log_once("cannot watch for changes of the policy; reading it again and again instead", error)
                self._pending.policy = True

    def _open_links(self) -> None:
        try:
            self._links = LinkEvents()
            self._selector.register(self._links, selectors.EVENT_READ)
            self._pending.links |= bool(self._said)  # there may have been changes
        except OSError as error:
            self._close_links()
            self._pending.links = True
            self._log_once("cannot watch the interfaces of this host; looking again and again instead", error)

    def _drain_links(self) -> None:
        assert self._links is not None
        self._pending.links = True
        try:
            self._links.drain()
        except OSError as error:
            self._log_once("cannot watch the interfaces of this host; looking again and again instead", error)
            self._selector.unregister(self._links)
            self._close_links()

    def _close_links(self) -> None:
        if self._links is not None:
            self._links.__exit__(None, None, None)
            self._links = None

    def _watch_store(self) -> None:
        try:
            for _ in self._store.changes(self._stopping):
                self._pending.policy = True
                os.eventfd_write(self._event, 1)
        except BaseException as error:  # also what foreign code panics with; the wait starts another thread
            self._log_once("watching for changes of the policy failed; beginning anew", error)
            self._is_watching = False
            os.eventfd_write(self._event, 1)

    def _log_once(self, message: str, error: BaseException) -> None:
        if message not in self._said:
            self._said.add(message)
            event(logging.ERROR, message, problem=f"{type(error).__name__}: {error}")


def _reached(since_s: float | None, duration_s: float) -> bool:
    return since_s is not None and time.monotonic() >= since_s + duration_s
