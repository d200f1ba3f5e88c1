"""The agent's event loop: signals, changes of the datastore and of the host's interfaces, losses, timers.

The main thread only waits. A worker thread does what takes time (reading, parsing, a pass), so that a signal is handled
at once whatever blocks the worker: a lock, a huge file, a file server that does not answer.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from enforcer.agent.guard import Source
from enforcer.agent.threads import Helper, Worker
from enforcer.datastore.base import DataStore
from enforcer.kernel.link_events import LinkEvents
from enforcer.system.log import event
from enforcer.system.stop import Stop

_QUIET_S = 0.05  # editors and 'ip' make changes in bursts: one pass for all of a burst
_BURST_S = 1.0
_REPAIR_EVERY_S = 5.0  # retry what failed for lack of descriptors, threads or memory
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Events:
    """Why a wait ended. Nothing set: a timeout."""

    stop: str = ""  # the signal's name
    policy: bool = False
    links: bool = False
    losses: bool = False  # another program removed or changed what is enforced
    resync: bool = False  # SIGHUP

    @property
    def any(self) -> bool:
        return bool(self.stop) or self.policy or self.links or self.losses or self.resync


class EventLoop:
    """A context manager. Enter and use it in the main thread, where Python runs signal handlers.

    The signal handler calls ``on_stop`` on the first signal that stops the agent. ``on_change`` is called at once when
    the store may have changed, in the thread that watches it.
    """

    def __init__(
        self, store: DataStore, *, on_stop: Callable[[str], None], on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._on_stop = on_stop
        self._on_change = on_change
        self._stopping = Stop()
        self._stopped_by = ""
        self._pending = Events()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._links: LinkEvents | None = None
        # The kernel may deliver a signal to any thread. Python runs handlers in the main
        # thread, which would stay asleep: the byte that Python writes here from any thread wakes it.
        self._signalled, self._signals = socket.socketpair()
        self._signalled.setblocking(False)
        self._signals.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signalled, selectors.EVENT_READ)
        self._selector.register(self._event, selectors.EVENT_READ)
        # While the worker runs, other events wait: their handlers may use objects that the worker is using.
        self._working = selectors.DefaultSelector()
        self._working.register(self._signalled, selectors.EVENT_READ)
        self._working.register(self._event, selectors.EVENT_READ)
        self._worker: Worker | None = None
        self._watcher: Helper | None = None
        self._is_watching = False
        self._handlers: dict[int, Any] = {}
        self._earlier_wakeup = -1
        self._repair_at_s = 0.0
        self._logged: set[str] = set()

    def __enter__(self) -> EventLoop:
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

    def add_sources(self, sources: Iterable[Source]) -> None:
        """Also wait for changes by other programs. The caller closes the sources after the loop has ended."""
        for source in sources:
            self._selector.register(source, selectors.EVENT_READ)

    @property
    def stopped_by(self) -> str:
        """The name of the signal that stops the agent; "" before there was one."""
        return self._stopped_by

    def work(self, job: Callable[[], None], *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Run the job in the worker thread and wait for it; its exception is raised here. ``meanwhile`` is called each
        second. If no thread can be started the job runs here, and signals wait for its end.
        """
        worker = self._worker_now()
        if worker is None:
            job()
            return
        worker.begin(job)
        while worker.is_busy():
            self._dispatch(self._working.select(1.0))
            if worker.is_busy() and not self._stopped_by:
                meanwhile()
        worker.finish()

    def _worker_now(self) -> Worker | None:
        if self._worker is None or self._worker.has_ended():
            self._worker = None
            try:
                self._worker = Worker(self._wake)
            except (RuntimeError, MemoryError) as error:
                self._log_once("cannot start a worker thread: signals wait for the end of each pass", error)
        return self._worker

    def _wake(self) -> None:
        os.eventfd_write(self._event, 1)

    def wait(self, until_s: float | None, *, every_s: float | None, tick: Callable[[], None]) -> Events:
        """Sleep until an event or until ``until_s`` on the monotonic clock; ``tick`` is called each ``every_s``.

        A burst of changes counts as one event: the wait ends after the burst. A stop signal ends it at once.
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
                return self._take_pending()
            if not self._pending.any and until_s is not None and time.monotonic() >= until_s:
                return Events()

    def _select(self, until_s: float | None) -> bool:
        """Wait and collect events; whether there were any."""
        timeout = None if until_s is None else max(0.0, until_s - time.monotonic())
        ready = self._selector.select(timeout)
        self._dispatch(ready)
        return bool(ready)

    def _dispatch(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            if key.fileobj is self._links:
                self._drain_links()
            elif isinstance(key.fileobj, Source):
                self._pending.losses |= key.fileobj.ready()
            elif key.fileobj is self._signalled:
                self._signalled.recv(4096)  # the signal handler reports through the eventfd
            else:
                os.eventfd_read(self._event)

    def _take_pending(self) -> Events:
        taken, self._pending = self._pending, Events(stop=self._stopped_by)
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

    # -- sources that may be missing for a while -----------------------------------------------------------------------

    def _is_incomplete(self) -> bool:
        return self._links is None or not self._is_watching

    def _repair(self) -> None:
        """Start the sources that are not running; look for changes they missed."""
        self._repair_at_s = time.monotonic() + _REPAIR_EVERY_S
        if self._links is None:
            self._open_links()
        if not self._is_watching:
            try:
                self._is_watching = True
                self._watcher = Helper(self._watch_store)
            except (RuntimeError, MemoryError) as error:
                self._is_watching = False
                self._log_once("cannot watch the policy for changes; polling it instead", error)
                self._pending.policy = True

    def _open_links(self) -> None:
        try:
            self._links = LinkEvents()
            self._selector.register(self._links, selectors.EVENT_READ)
            self._pending.links |= bool(self._logged)  # there may have been changes
        except OSError as error:
            self._close_links()
            self._pending.links = True
            self._log_once("cannot watch the interfaces of this host; polling them instead", error)

    def _drain_links(self) -> None:
        assert self._links is not None
        self._pending.links = True
        try:
            self._links.drain()
        except OSError as error:
            self._log_once("cannot watch the interfaces of this host; polling them instead", error)
            self._selector.unregister(self._links)
            self._close_links()

    def _close_links(self) -> None:
        if self._links is not None:
            self._links.__exit__(None, None, None)
            self._links = None

    def _watch_store(self) -> None:
        try:
            for _ in self._store.changes(self._stopping):
                self._on_change()
                self._pending.policy = True
                os.eventfd_write(self._event, 1)
        except BaseException as error:  # the next wait starts another thread
            self._log_once("watching the policy for changes failed; starting again", error)
            self._is_watching = False
            os.eventfd_write(self._event, 1)

    def _log_once(self, message: str, error: BaseException) -> None:
        if message not in self._logged:
            self._logged.add(message)
            event(logging.ERROR, message, problem=f"{type(error).__name__}: {error}")


def _reached(since_s: float | None, duration_s: float) -> bool:
    return since_s is not None and time.monotonic() >= since_s + duration_s
