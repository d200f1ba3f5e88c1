"""Guard: notices within a second when somebody takes away, or changes, what is enforced in this network namespace.

nf_tables tells of every transaction; legacy iptables, ipset and BPF tell nobody, so they are looked at each second
(docs/performance.md has what that costs). What is noticed is not repaired here but by the next pass, which compares
everything anyway. The exception is a pin that somebody removed: it is put back at once, for as long as the guard holds
the link open, its program stays attached.

What is made different at the same instant as a pass is under way, or without a trace (a member of an ipset exchanged
for another), is found by the regular resync.
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
    """Something of ours that somebody took away or changed, in a sentence, and who did, where that is known."""

    what: str
    by: str = ""


@dataclass(frozen=True)
class Source:
    """What an event loop waits for: readable when ``ready`` is to be called, which says whether a pass is due."""

    descriptor: Callable[[], int]
    ready: Callable[[], bool]

    def fileno(self) -> int:
        return self.descriptor()


class Guard:
    """Acts in the network namespace it was made in. ``close`` it, or use it in a ``with``."""

    def __init__(self, pin_root: Path) -> None:
        _allow_descriptors()
        self._timer = Timer(_EVERY_S)
        self._xdp = XdpWatch(pin_root)
        self._iptables: IptablesWatch | None = None
        self._nft: NftEvents | None = None
        with suppress(HostError):  # a kernel without nfnetlink has no nf_tables to watch
            self._nft = NftEvents(TABLE)
        self._noticed: dict[str, Loss] = {}
        self._told: set[str] = set()  # since the last pass
        self._unable: set[str] = set()  # why something could not be looked at
        self._lock = threading.Lock()  # a pass may be another thread's
        self._hearing = threading.Lock()
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
        """To be waited for."""
        timer = Source(self._timer.fileno, self._look)
        return (timer, Source(self._nft.fileno, self._hear)) if self._nft else (timer,)

    def look(self) -> None:
        """Look at once, where nobody waits for the sources."""
        with self._lock:
            self._look_at_all()
        self._hear()

    def noticed(self) -> tuple[Loss, ...]:
        """What is newly gone or changed since the last call."""
        found, self._noticed = self._noticed, {}
        return tuple(found.values())

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Around each pass; what it changes is no loss. It says by :meth:`unchanged` that there was none.

        Looks first, so that what the pass puts back is named whatever it was started by. What was there just before a
        pass that changed nothing is what is to be there: whatever differs from it came later. After a pass that did
        change something nobody knows yet whether that is there still; the next pass will.
        """
        with self._lock:
            self._look_at_all(at_any_cost=True)
            self._hear()
            self._told.clear()
            self._remember()
            self._changed = True
            try:
                yield
            finally:
                if self._changed:
                    self._remember()

    def unchanged(self) -> None:
        """Within a pass: it found everything as it is to be."""
        self._changed = False

    def _remember(self) -> None:
        self._safely(lambda: self._notice(map(Loss, self._xdp.remember())))
        if self._iptables:
            self._safely(self._iptables.remember)

    def watch(self, plan: Plan) -> None:
        """Within a pass: watch the parts of the kernel that this plan uses. To look at others could load them."""
        backends = {item.raw_backend for item in plan.interfaces}
        if self._nft and (Backend.NFTABLES in backends or any(item.netdev for item in plan.interfaces)):
            self._safely(self._nft.listen)
        if Backend.IPTABLES in backends and self._iptables is None:
            self._iptables = IptablesWatch()
            self._changed = True  # there is nothing to compare with yet
        elif Backend.IPTABLES not in backends and self._iptables is not None:
            self._iptables.close()
            self._iptables = None

    def _look(self) -> bool:
        self._timer.take()
        if not self._lock.acquire(blocking=False):
            return False  # a pass looks at everything itself
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

    def _hear(self) -> bool:
        if self._nft is None:
            return False
        with self._hearing:
            changes = self._nft.changes()
            for change in changes:
                self._notice(Loss(what, change.by) for what in change.what)
        return any(not change.what for change in changes) or bool(self._noticed)

    def _notice(self, losses: Iterable[Loss]) -> None:
        for loss in losses:
            if loss.what not in self._told:
                self._told.add(loss.what)
                self._noticed[loss.what] = loss

    def _safely(self, look: Callable[[], None]) -> None:
        """What cannot be looked at is said once, and left to the regular resync."""
        try:
            look()
        except Exception as error:  # whatever it is, it must not keep the agent from its work
            if str(error) not in self._unable:
                self._unable.add(str(error))
                event(logging.WARNING, "cannot watch for changes by others; the resync will find them", problem=error)


def _allow_descriptors() -> None:
    """As many descriptors as this process may have: each interface's pins are held open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
