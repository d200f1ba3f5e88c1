"""Guard: detects within a second when another program removes or changes what is enforced in this network namespace.

nf_tables notifies of every transaction. Legacy iptables, ipset and BPF do not, so they are polled each second
(docs/performance.md states the cost). The guard does not repair: the next pass does, as it compares everything anyway.
The exception is a removed pin. It is restored at once; while the guard holds the link open its program stays attached.

The resync finds changes that happen during a pass, and changes that leave no trace, such as one ipset member exchanged
for another.
"""

from __future__ import annotations

import logging
import resource
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enforcer.backends.iptables.watch import IptablesWatch
from enforcer.backends.nftables.rules import TABLE
from enforcer.backends.xdp.state.watch import XdpWatch
from enforcer.kernel.nft_events import NftEvents
from enforcer.kernel.timer import Timer
from enforcer.model.errors import HostError
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan
from enforcer.system.log import event

_EVERY_S = 1.0


@dataclass(frozen=True)
class Loss:
    """What another program removed or changed, in a sentence, and which program, if known."""

    what: str
    by: str = ""


@dataclass(frozen=True)
class Source:
    """A descriptor for the event loop. When it is readable, call ``ready``, which returns whether a pass is due."""

    descriptor: Callable[[], int]
    ready: Callable[[], bool]

    def fileno(self) -> int:
        return self.descriptor()


class Guard:
    """Acts in the network namespace where it was created. A context manager; else call ``close``."""

    def __init__(self, pin_root: Path) -> None:
        _allow_descriptors()
        self._timer = Timer(_EVERY_S)
        self._xdp = XdpWatch(pin_root)
        self._iptables: IptablesWatch | None = None
        self._nft: NftEvents | None = None
        with suppress(HostError):  # a kernel without nfnetlink has no nf_tables to watch
            self._nft = NftEvents(TABLE)
        self._noticed: dict[str, Loss] = {}
        self._reported: set[str] = set()  # since the last pass
        self._logged_problems: set[str] = set()  # why something could not be checked
        self._lock = threading.Lock()  # a pass may be another thread's
        self._draining = threading.Lock()
        self._changed = True

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._timer.close()
        self._xdp.close()
        for watch in (self._iptables, self._nft):
            if watch:
                watch.close()

    def sources(self) -> tuple[Source, ...]:
        """The descriptors to wait for."""
        timer = Source(self._timer.fileno, self._look)
        return (timer, Source(self._nft.fileno, self._drain_nft)) if self._nft else (timer,)

    def look(self) -> None:
        """Check now, while nobody waits for the sources."""
        with self._lock:
            self._look_at_all()
        self._drain_nft()

    def noticed(self) -> tuple[Loss, ...]:
        """The losses found since the last call."""
        found, self._noticed = self._noticed, {}
        return tuple(found.values())

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Wrap each pass: its own changes are not losses. It calls :meth:`unchanged` when it made none.

        Checks first, so that what the pass restores is reported whatever started the pass. If the pass changes nothing,
        the state just before it is the reference, and any later difference is a loss. If it changes something, only the
        next pass shows whether the change persisted.
        """
        with self._lock:
            self._look_at_all(at_any_cost=True)
            self._drain_nft()
            self._reported.clear()
            self._remember()
            self._changed = True
            try:
                yield
            finally:
                if self._changed:
                    self._remember()

    def unchanged(self) -> None:
        """Within a pass: nothing had to be changed."""
        self._changed = False

    def _remember(self) -> None:
        self._safely(lambda: self._notice(map(Loss, self._xdp.remember())))
        if self._iptables:
            self._safely(self._iptables.remember)

    def watch(self, plan: Plan) -> None:
        """Within a pass: watch the subsystems that this plan uses. Reading others could load their modules."""
        backends = {item.raw_backend for item in plan.interfaces}
        if self._nft and (Backend.NFTABLES in backends or any(item.netdev for item in plan.interfaces)):
            self._safely(self._nft.listen)
        if Backend.IPTABLES in backends and self._iptables is None:
            self._iptables = IptablesWatch()
            self._changed = True  # nothing to compare with yet
        elif Backend.IPTABLES not in backends and self._iptables is not None:
            self._iptables.close()
            self._iptables = None

    def _look(self) -> bool:
        self._timer.take()
        if not self._lock.acquire(blocking=False):
            return False  # the running pass checks everything itself
        try:
            self._look_at_all()
        finally:
            self._lock.release()
        return bool(self._noticed)

    def _look_at_all(self, *, at_any_cost: bool = False) -> None:
        self._safely(lambda: self._notice(map(Loss, self._xdp.losses(at_any_cost=at_any_cost))))
        if self._iptables:
            iptables = self._iptables
            self._safely(lambda: self._notice(map(Loss, iptables.losses())))

    def _drain_nft(self) -> bool:
        if self._nft is None:
            return False
        with self._draining:
            changes = self._nft.changes()
            for change in changes:
                self._notice(Loss(what, change.by) for what in change.what)
        return any(not change.what for change in changes) or bool(self._noticed)

    def _notice(self, losses: Iterable[Loss]) -> None:
        for loss in losses:
            if loss.what not in self._reported:
                self._reported.add(loss.what)
                self._noticed[loss.what] = loss

    def _safely(self, look: Callable[[], None]) -> None:
        """Log once what cannot be checked, and leave it to the resync."""
        try:
            look()
        except Exception as error:  # no exception may stop the agent
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
