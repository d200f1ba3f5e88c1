"""The members of our sets, as the last pass listed or wrote them.

Listing a set of 100,000 members takes the kernel 20 ms. So a pass that changes a set begins with these, if the set
still has as many members. Another pass follows each change; like every pass that finds nothing to change, it lists the
set.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from enforcer.backends.iptables.ipset import SetHeader
from enforcer.backends.netfilter.members import Members

# While changes follow each other so fast that no other pass comes between. Longer than the default of
# ipsetsRefreshInterval (90 s), after which a pass lists, so that a change on a host at rest does not list first.
_TRUSTED_S = 100.0


@dataclass(frozen=True)
class Listed:
    """``index``: the kernel's number of the set. ``digest``: of its listing (:func:`digest_of`), None if it was changed
    afterwards. ``at_s``: when it was listed, monotonic clock.
    """

    index: int
    members: Members
    digest: bytes | None
    at_s: float

    def may_be_in(self, header: SetHeader) -> bool:
        """Whether the set of this header may still have these members, as far as its header says."""
        is_recent = time.monotonic() < self.at_s + _TRUSTED_S
        return is_recent and (self.index, len(self.members)) == (header.index, header.members)


class ListedSets:
    """What is known of the sets of all network namespaces, by the namespace's number and the set's name."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], Listed] = {}

    def recall(self, namespace: int, name: str) -> Listed | None:
        """None if nothing is known, or the namespace has no number: another could have a set of the same name."""
        return self._known.get((namespace, name)) if namespace else None

    def keep(self, namespace: int, name: str, listed: Listed) -> None:
        if namespace:
            self._known[namespace, name] = listed

    def forget(self, namespace: int, name: str) -> None:
        self._known.pop((namespace, name), None)


LISTED = ListedSets()


def digest_of(listing: bytes) -> bytes:
    """A digest of a listing, whose order is stable as long as no member changes."""
    return hashlib.sha256(listing).digest()
