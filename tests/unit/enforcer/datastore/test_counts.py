"""An ObjectStore counts what its source says, whatever the source."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from enforcer.datastore.objects import ObjectStore
from enforcer.datastore.report import RESYNCS, Counting, Resync
from enforcer.datastore.updates import Changed, Contact, Listed, Lost, Resynced, Update
from enforcer.policy.objects import StoredObject
from enforcer.system.stop import Stop

BOTS = StoredObject("globalnetworksets", "", "bots", b"{}", "1")
DOS = StoredObject("globalnetworkpolicies", "", "dos", b"{}", "1")


class Scripted:
    kind = "etcd"

    def __init__(self, updates: Sequence[Update]) -> None:
        self.updates = updates

    def follow(self, stop: threading.Event) -> Iterator[Update]:
        yield from self.updates

    def describe(self) -> str:
        return "https://a:1"

    def identity(self) -> tuple[str, ...]:
        return ("https://a:1",)


def test_lists_changes_and_losses_are_counted_apart() -> None:
    store = ObjectStore(
        Scripted(
            [
                Lost("no answer"),
                Resynced(Resync.START),
                Listed((BOTS, DOS), "1"),
                Contact(),
                Changed((BOTS,), (DOS.path,), "2"),
                Lost("no answer"),
                Resynced(Resync.COMPACTED),
                Listed((BOTS,), "3"),
                Resynced(Resync.RESTORED),
                Listed((BOTS,), "1", another=True),
                Resynced(Resync.EXPIRED),
                Changed((BOTS,), (), "2"),
            ]
        )
    )
    assert isinstance(store, Counting)
    list(store.changes(Stop()))
    counts = store.counts()
    assert {key: count for key, count in counts.events.items() if count} == {
        ("globalnetworksets", "put"): 2,
        ("globalnetworkpolicies", "delete"): 1,
    }
    assert counts.resyncs == {**dict.fromkeys(RESYNCS, 0), "start": 1, "compacted": 1, "restored": 1, "expired": 1}
    assert counts.errors == {"lost": 2}
