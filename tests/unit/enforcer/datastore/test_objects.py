"""What a store of objects makes of what its source says, in any order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.datastore.objects import ObjectStore
from enforcer.datastore.updates import Changed, Contact, Listed, Lost, Update
from enforcer.policy.objects import StoredObject
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded
from enforcer.system.stop import Stop

NOTHING = Resources()


class Script:
    """A source that says what the test wrote."""

    kind = "etcd"

    def __init__(self, *updates: Update) -> None:
        self.updates = updates

    def follow(self, stop: threading.Event) -> Iterator[Update]:
        yield from self.updates

    def refresh(self) -> None:
        raise AssertionError

    def describe(self) -> str:
        return "https://a:2379"

    def identity(self) -> tuple[str, ...]:
        return ("https://a:2379",)


def bots(net: str = "203.0.113.0/24", revision: int = 1, name: str = "bots") -> StoredObject:
    text = f'{{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet", "metadata": {{"name": "{name}"}}, '
    return StoredObject("globalnetworksets", "", name, f'{text}"spec": {{"nets": ["{net}"]}}}}'.encode(), str(revision))


def listed(*objects: StoredObject, revision: int = 1, another: bool = False) -> Listed:
    return Listed(objects, str(revision), another)


def changes(store: ObjectStore) -> int:
    """How often it said that something changed."""
    return sum(1 for _ in store.changes(Stop()))


def after(*updates: Update, state: Path | None = None) -> tuple[ObjectStore, Loaded]:
    store = ObjectStore(Script(*updates), state=state)
    changes(store)
    return store, store.snapshot(NOTHING)


def nets(loaded: Loaded) -> dict[str, list[str]]:
    return {item.name: list(map(str, item.nets)) for item in loaded.resources.global_network_sets}


def test_a_change_names_what_it_concerns() -> None:
    change = Changed((bots("192.0.2.0/24", 3, "late"),), ("globalnetworksets/bots",), "3")
    store, loaded = after(listed(bots()), change)
    assert nets(loaded) == {"late": ["192.0.2.0/24"]}
    assert store.state().revision == "3"


def test_what_did_not_change_is_neither_read_nor_said_again() -> None:
    script = Script(listed(bots(), bots(name="late")))
    store = ObjectStore(script)
    assert changes(store) == 1
    (first, _) = store.snapshot(NOTHING).resources.global_network_sets
    script.updates = (listed(bots(), bots(name="late")), Contact(), Lost("away"), Contact())
    assert changes(store) == 0
    script.updates = (Changed((bots("192.0.2.0/24", 2, "late"),), (), "2"),)
    assert changes(store) == 1
    (again, other) = store.snapshot(NOTHING).resources.global_network_sets
    assert again is first
    assert list(map(str, other.nets)) == ["192.0.2.0/24"]


@pytest.mark.parametrize(("another", "net"), [(False, "203.0.113.0/24"), (True, "192.0.2.0/24")])
def test_revisions_of_a_restored_backup_say_nothing(another: bool, net: str) -> None:
    """Otherwise the same revision is the same text, and not read."""
    script = Script(listed(bots()))
    store = ObjectStore(script)
    changes(store)
    store.snapshot(NOTHING)
    script.updates = (listed(bots("192.0.2.0/24"), another=another),)
    assert changes(store) == another
    assert nets(store.snapshot(NOTHING)) == {"bots": [net]}


def test_each_problem_is_logged_once_for_each_time_away(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        flapping = (Lost("refused"), Lost("refused"), Lost("no answer"), Lost("refused"))
        store, loaded = after(*flapping, listed(bots()), Contact(), *flapping)
    said = [(record.getMessage(), getattr(record, "fields", {}).get("problem")) for record in caplog.records]
    away = "the datastore cannot be followed; what is enforced stays"
    twice = [(away, "refused"), (away, "no answer")]
    assert said == [*twice, ("following the datastore", None), *twice]
    assert nets(loaded) == {"bots": ["203.0.113.0/24"]}
    assert (store.state().connected, store.state().problem) == (False, "refused")
    assert not loaded.faults, "the policy that is held has none"


def test_a_store_that_was_never_read_says_why(tmp_path: Path) -> None:
    _, loaded = after(Lost("refused"))
    assert loaded.empty
    (fault,) = loaded.faults
    assert str(fault.finding) == "etcd: https://a:2379: refused"
    assert fault.outcome == "nothing is known of the policy"
    store, _ = after(listed(bots()), state=tmp_path)
    store.keep()
    _, loaded = after(Lost("refused"), state=tmp_path)
    assert nets(loaded) == {"bots": ["203.0.113.0/24"]}
    assert loaded.faults[0].outcome == "the last good policy, stored by an earlier run, is enforced"


def test_a_state_that_cannot_be_stored_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store, _ = after(listed(bots()), state=tmp_path / "file")
    store.keep()
    store.keep()
    assert caplog.text.count("cannot store the last good policy on disk") == 1


def test_the_state_of_another_cluster_is_another_state(tmp_path: Path) -> None:
    store, _ = after(listed(bots()), state=tmp_path)
    store.keep()
    other = Script(Lost("refused"))
    other.identity = lambda: ("https://b:2379",)  # type: ignore[method-assign]  # a double
    assert ObjectStore(other, state=tmp_path).last_good() == NOTHING
