"""Detects changes by other programs to our nf_tables tables, netdev ingress included. The kernel notifies of every
transaction.
"""

from __future__ import annotations

from contextlib import suppress

from enforcer.backends.base import Loss
from enforcer.backends.nftables.rules import TABLE
from enforcer.kernel.nft_events import NftEvents
from enforcer.model.errors import HostError

WATCHED = "nf_tables"


class NftablesWatch:
    """Listens from :meth:`begin` on. On a kernel without nfnetlink, which has no nf_tables, it reports nothing."""

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
        """Keeps listening: once nf_tables is loaded, that costs nothing more."""

    def remember(self) -> tuple[Loss, ...]:
        return ()

    def losses(self, *, thorough: bool = False) -> list[Loss]:
        """The losses since the last call, without our own transactions."""
        changes = self._events.changes() if self._events else []
        return [Loss(what, change.by) for change in changes for what in change.what or ("",)]

    def close(self) -> None:
        if self._events:
            self._events.close()
