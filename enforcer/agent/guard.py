"""Guard: detects within a second when another program removes or changes what is enforced in this network namespace.

Each backend says how it is watched. nf_tables notifies of every transaction. Legacy iptables, ipset and BPF do not, so
they are polled each second (docs/performance.md states the cost). The guard does not repair: the next pass does, as it
compares everything anyway. The exception is a removed pin. It is restored at once; while the watch holds the link open
its program stays attached.

The resync finds changes that happen during a pass, and changes that leave no trace, such as one ipset member exchanged
for another.
"""

from __future__ import annotations

import logging
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from enforcer.backends.base import BackendDriver, Loss, Watch
from enforcer.kernel.timer import Timer
from enforcer.planning.plan import Plan
from enforcer.system.log import event

_EVERY_S = 1.0


@dataclass(frozen=True)
class Source:
    """A descriptor for the event loop. When it is readable, call ``ready``, which returns whether a pass is due."""

    descriptor: Callable[[], int]
    ready: Callable[[], bool]

    def fileno(self) -> int:
        return self.descriptor()


class Guard:
    """Acts in the network namespace where it was created. A context manager; else call ``close``.

    ``on_loss`` is called with the part of the kernel (``BackendDriver.watched``) and the number of new losses there.
    """

    def __init__(
        self, drivers: Sequence[BackendDriver], *, on_loss: Callable[[str, int], None] = lambda part, count: None
    ) -> None:
        _allow_descriptors()
        self._timer = Timer(_EVERY_S)
        self._drivers = drivers
        self._watches: dict[str, Watch] = {}
        for driver in drivers:
            if driver.watched not in self._watches:
                self._watches[driver.watched] = driver.watch()
        self._notifying = {part: watch for part, watch in self._watches.items() if watch.fileno() >= 0}
        self._polled = {part: watch for part, watch in self._watches.items() if watch.fileno() < 0}
        self._on_loss = on_loss
        self._noticed: dict[str, Loss] = {}
        self._reported: set[str] = set()  # since the last pass
        self._logged_problems: set[str] = set()  # why something could not be checked
        self._lock = threading.Lock()  # a pass may be another thread's
        self._draining = threading.Lock()
        self._changed = True
        self._changing = False
        self._is_recorded = False  # the watches know the present state, as far as looking shows

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._timer.close()
        for watch in self._watches.values():
            watch.close()

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the kernel that it watches."""
        return tuple(self._watches)

    def sources(self) -> tuple[Source, ...]:
        """The descriptors to wait for."""
        heard = (Source(watch.fileno, self._drain) for watch in self._notifying.values())
        return (Source(self._timer.fileno, self._look), *heard)

    def look(self) -> None:
        """Check now, while nobody waits for the sources."""
        with self._lock:
            self._look_at_all()
        self._drain()

    def noticed(self) -> tuple[Loss, ...]:
        """The losses found since the last call."""
        found, self._noticed = self._noticed, {}
        return tuple(found.values())

    @contextmanager
    def passing(self, *, changing: bool = False) -> Iterator[None]:
        """Wrap each pass: its own changes are not losses. It calls :meth:`unchanged` when it made none.

        Checks first, so that what the pass restores is reported whatever started the pass. If the pass changes nothing,
        the state just before it is the reference, and any later difference is a loss. If it changes something, only the
        next pass shows whether the change persisted.

        ``changing``: the pass is for another policy, so that it counts as one with changes. Then the state before it is
        not recorded: with large sets that takes as long as the pass. Nor is it recorded when it still is what was.
        """
        with self._lock:
            self._look_at_all(thorough=True)
            self._drain()
            self._reported.clear()
            if not (changing or self._is_recorded):
                self._remember()
            self._changed, self._changing = True, changing
            try:
                yield
            finally:
                if self._changed:
                    self._remember()

    def unchanged(self) -> None:
        """Within a pass: nothing had to be changed."""
        self._changed = self._changing

    def _remember(self) -> None:
        self._is_recorded = True
        for part, watch in self._watches.items():
            self._safely(partial(self._notice_of, part, watch.remember))

    def watch(self, plan: Plan) -> None:
        """Within a pass: watch the subsystems that this plan uses. Reading others could load their modules."""
        used = {driver.watched for driver in self._drivers if driver.serves(plan)}
        for part, watch in self._watches.items():
            self._safely(partial(self._begin, watch) if part in used else watch.pause)

    def _begin(self, watch: Watch) -> None:
        if watch.begin():
            self._changed, self._is_recorded = True, False

    def _look(self) -> bool:
        self._timer.take()
        if not self._lock.acquire(blocking=False):
            return False  # the running pass checks everything itself
        try:
            self._look_at_all()
        finally:
            self._lock.release()
        return bool(self._noticed)

    def _look_at_all(self, *, thorough: bool = False) -> None:
        for part, watch in self._polled.items():
            self._safely(partial(self._notice_of, part, partial(watch.losses, thorough=thorough)))

    def _drain(self) -> bool:
        untold = False
        with self._draining:
            for part, watch in self._notifying.items():
                losses = list(watch.losses())
                untold |= any(not loss.what for loss in losses)
                self._notice(part, [loss for loss in losses if loss.what])
        return untold or bool(self._noticed)

    def _notice_of(self, part: str, look: Callable[[], Iterable[Loss]]) -> None:
        self._notice(part, look())

    def _notice(self, part: str, losses: Iterable[Loss]) -> None:
        new = {loss.what: loss for loss in losses if loss.what not in self._reported}
        if new:
            self._is_recorded = False
            self._reported |= new.keys()
            self._noticed |= new
            self._on_loss(part, len(new))

    def _safely(self, look: Callable[[], None]) -> None:
        """Log once what cannot be checked, and leave it to the resync."""
        try:
            look()
        except Exception as error:  # no exception may stop the agent
            self._is_recorded = False
            if str(error) not in self._logged_problems:
                self._logged_problems.add(str(error))
                event(
                    logging.WARNING, "cannot watch for changes by other programs; the resync finds them", problem=error
                )


def _allow_descriptors() -> None:
    """Raise the soft limit of descriptors to the hard limit: each interface's pins are held open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
