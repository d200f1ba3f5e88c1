"""An ObjectStore counts what its source says, whatever the source."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from enforcer.datastore.objects import ObjectStore
from enforcer.datastore.report import Counting
from enforcer.datastore.updates import Changed, Contact, Listed, Lost, Update
from enforcer.policy.objects import StoredObject

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
                Listed((BOTS, DOS), "1"),
                Contact(),
                Changed((BOTS,), (DOS.path,), "2"),
                Lost("no answer"),
                Listed((BOTS,), "3"),
                Listed((BOTS,), "1", another=True),
            ]
        )
    )
    assert isinstance(store, Counting)
    list(store.changes(threading.Event()))
    counts = store.counts()
    assert {key: count for key, count in counts.events.items() if count} == {
        ("globalnetworksets", "put"): 1,
        ("globalnetworkpolicies", "delete"): 1,
    }
    assert counts.resyncs == {"start": 1, "again": 1, "restored": 1}
    assert counts.errors == {"lost": 2}
