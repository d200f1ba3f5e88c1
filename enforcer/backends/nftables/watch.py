"""What others do to our tables of nf_tables, netdev ingress included: the kernel tells of every transaction."""

from __future__ import annotations

from contextlib import suppress

from enforcer.backends.base import Loss
from enforcer.backends.nftables.rules import TABLE
from enforcer.kernel.nft_events import NftEvents
from enforcer.model.errors import HostError

WATCHED = "nf_tables"


class NftablesWatch:
    """Listens from :meth:`begin` on. What it cannot hear (a kernel without nfnetlink has no nf_tables) is no loss."""

    def __init__(self) -> None:
        self._events: NftEvents | None = None
        with suppress(HostError):
            self._events = NftEvents(TABLE)

    def fileno(self) -> int:
        return self._events.fileno() if self._events else -1

    def begin(self) -> bool:
        if self._events:
            self._events.listen()
        return False

    def pause(self) -> None:
        """Once the kernel has nf_tables, to listen costs nothing more."""

    def remember(self) -> tuple[Loss, ...]:
        return ()

    def losses(self, *, thorough: bool = False) -> list[Loss]:
        """Since the last call; our own transactions are none."""
        changes = self._events.changes() if self._events else []
        return [Loss(what, change.by) for change in changes for what in change.what or ("",)]

    def close(self) -> None:
        if self._events:
            self._events.close()
