"""A feed from its source to network sets: what is written, what stays, and what a person has to say."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from enforcer.datastore.emergency_files import FileWriter
from enforcer.datastore.writer import RefusedError, StoreError, Writer
from enforcer.feeds import objects
from enforcer.feeds.canonical import Protected
from enforcer.feeds.config import Feed
from enforcer.feeds.guards import Limits
from enforcer.feeds.metrics import exposition
from enforcer.feeds.state import FeedState, StateStore, Status
from enforcer.feeds.sync import Result, Syncer, remove
from enforcer.lists.entry import networks_of
from enforcer.lists.parse import Format, Shape
from enforcer.model.errors import HostError, UsageError
from enforcer.policy.resources import GlobalNetworkSet, Resources
from enforcer.policy.tolerant import load_tolerant
from tests.support.certificates import Authority
from tests.support.list_server import Answer, Publisher, publisher

HOUR = 3600.0


@dataclass
class Host:
    """One host that syncs a feed. ``now``: its clock."""

    folder: Path
    feed: Feed
    now: float = 1_790_000_000.0
    protected: list[Protected] = field(default_factory=list)
    writer: Writer | None = None

    @property
    def states(self) -> StateStore:
        return StateStore(self.folder / "state")

    @property
    def state(self) -> FeedState:
        return self.states.read(self.feed.name)

    def resources(self) -> Resources:
        sets = self.folder / "sets"
        return load_tolerant([sets], Resources()).resources if sets.is_dir() and any(sets.iterdir()) else Resources()

    def sets(self) -> dict[str, GlobalNetworkSet]:
        return {item.name: item for item in self.resources().global_network_sets}

    def denied(self) -> list[str]:
        return sorted(str(net) for item in self.sets().values() for net in item.nets)

    def syncer(self, *, dry: bool = False) -> Syncer:
        writer = None if dry else self.writer or FileWriter(self.folder / "sets")
        return Syncer(self.states, self.resources(), self.protected, writer, lambda: self.now)

    def sync(self, *, dry: bool = False, accept: bool = False) -> Result:
        with self.states.locked():
            syncer = self.syncer(dry=dry)
            return syncer.accept(self.feed) if accept else syncer.sync(self.feed)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """It reads a file, which is always due."""
    (tmp_path / "list").write_text("198.51.100.0/25\n203.0.113.7\n2001:db8::/32\n")
    feed = Feed("drop", str(tmp_path / "list"), Shape(), {"list": "deny"}, "free, with attribution")
    return Host(tmp_path, feed)


@pytest.fixture
def remote(host: Host, lists: Publisher, authority: Authority) -> tuple[Host, Answer, Publisher]:
    """It fetches over https."""
    host.feed = replace(host.feed, source=f"{lists.url}/list", ca_file=authority.cert)
    answer = Answer(b"198.51.100.0/25\n203.0.113.7\n", headers={"ETag": '"1"'})
    lists.answers["/list"] = answer
    return host, answer, lists


def write(host: Host, *lines: str) -> None:
    (host.folder / "list").write_text("".join(f"{line}\n" for line in lines))


def test_a_list_becomes_sets_with_labels_and_where_they_are_from(host: Host) -> None:
    done = host.sync()
    assert (done.status, done.fetched, done.problem) == (Status.TAKEN, True, "")
    four, six = host.sets()["feed-drop-v4"], host.sets()["feed-drop-v6"]
    assert [str(net) for net in (*four.nets, *six.nets)] == ["198.51.100.0/25", "203.0.113.7/32", "2001:db8::/32"]
    assert four.labels == {"list": "deny", "enforcer.io/feed": "drop"}
    assert four.annotations == {
        "enforcer.io/source": str(host.folder / "list"),
        "enforcer.io/fetched": "2026-09-21T14:13:20Z",
        "enforcer.io/sha256": host.state.sha256,
        "enforcer.io/licence": "free, with attribution",
    }


def test_a_second_time_nothing_is_written(host: Host) -> None:
    host.sync()
    before = {path: path.stat().st_mtime_ns for path in (host.folder / "sets").iterdir()}
    host.now += HOUR
    done = host.sync()
    assert done.changes is not None
    assert (done.changes.count, done.changes.unchanged) == (0, 2)
    assert {path: path.stat().st_mtime_ns for path in (host.folder / "sets").iterdir()} == before


def test_a_change_is_written_to_its_set_alone(host: Host) -> None:
    host.sync()
    write(host, "198.51.100.0/25", "203.0.113.9", "2001:db8::/32")
    done = host.sync()
    assert done.changes is not None
    assert [item.name for item in done.changes.replace] == ["feed-drop-v4"]
    assert host.denied() == ["198.51.100.0/25", "2001:db8::/32", "203.0.113.9/32"]


def test_a_large_list_is_cut_and_no_address_is_let_through_meanwhile(host: Host) -> None:
    hosts = [f"198.{at >> 8 & 255}.{at & 255}.{1 + at % 2 * 6}" for at in range(1990)]
    write(host, *hosts)
    host.sync()
    assert list(host.sets()) == ["feed-drop-v4"]
    write(host, *hosts, *(f"203.0.113.{at}" for at in range(1, 64, 2)))
    log: list[str] = []

    class Watched(FileWriter):
        def create(self, name: str, item: dict[str, Any], *, keep_s: float | None) -> None:
            log.append(f"create {name}")
            super().create(name, item, keep_s=keep_s)

        def delete(self, name: str, revision: str) -> None:
            log.append(f"delete {name}")
            super().delete(name, revision)

    host.writer = Watched(host.folder / "sets")
    host.sync()
    assert sorted(log[:-1]) == ["create feed-drop-v4-c6", "create feed-drop-v4-cb"]
    assert log[-1] == "delete feed-drop-v4"


def test_a_set_that_somebody_deleted_or_changed_comes_back(host: Host) -> None:
    host.sync()
    path = host.folder / "sets" / "feed-drop-v4.yaml"
    path.unlink()
    host.sync()
    text = path.read_text()
    path.write_text(text.replace("203.0.113.7/32", "203.0.113.8/32").replace("list: deny", "list: allow"))
    host.sync()
    assert path.read_text() == text


def test_other_labels_reach_the_sets_without_a_fetch(remote: tuple[Host, Answer, Publisher]) -> None:
    host, _, lists = remote
    host.sync()
    host.feed = replace(host.feed, labels={"list": "other"})
    host.sync()
    assert len(lists.seen) == 1
    assert host.sets()["feed-drop-v4"].labels == {"list": "other", "enforcer.io/feed": "drop"}


def test_what_becomes_protected_leaves_the_sets_without_a_fetch(remote: tuple[Host, Answer, Publisher]) -> None:
    host, _, lists = remote
    host.sync()
    host.protected = [Protected(networks_of("203.0.113.7")[0], "ours")]
    done = host.sync()
    assert len(lists.seen) == 1
    assert host.denied() == ["198.51.100.0/25"]
    assert list(done.notes) == ["not denied: 203.0.113.7/32, ours; the list has 203.0.113.7/32"]


def test_an_url_is_asked_once_an_hour_whatever_came_of_it(remote: tuple[Host, Answer, Publisher]) -> None:
    host, answer, lists = remote
    answer.status = 503
    assert host.sync().status is Status.FAILED
    host.now += HOUR - 1
    again = host.sync()
    assert (again.status, again.fetched, again.next_s) == (Status.FAILED, False, host.now + 1)
    assert len(lists.seen) == 1
    answer.status = 200
    host.now += 1
    assert host.sync().good
    assert len(lists.seen) == 2
    host.now -= 10 * HOUR  # a clock that was set back
    assert host.sync().fetched


def test_a_list_that_has_not_changed_counts_as_good(remote: tuple[Host, Answer, Publisher]) -> None:
    host, _, lists = remote
    host.sync()
    fetched = host.state.fetched_s
    host.now += HOUR
    assert host.sync().good
    assert lists.seen[1][1]["if-none-match"] == '"1"'
    assert (host.state.fetched_s, host.state.good_s) == (fetched, host.now)
    assert host.denied() == ["198.51.100.0/25", "203.0.113.7/32"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(status=500), "HTTP 500"),
        (Answer(b""), "the list is empty"),
        (Answer(b"<html>\n"), "none of them an entry"),
        (Answer(b"198.51.100.0/25\n", length=99), "cut off"),
    ],
)
def test_a_feed_that_fails_keeps_its_sets(remote: tuple[Host, Answer, Publisher], answer: Answer, said: str) -> None:
    host, _, lists = remote
    host.sync()
    good = host.state.good_s
    lists.answers["/list"] = answer
    host.now += HOUR
    done = host.sync()
    assert (done.status, done.good) == (Status.FAILED, False)
    assert said in done.problem
    assert host.denied() == ["198.51.100.0/25", "203.0.113.7/32"]
    assert host.state.good_s == good
    with pytest.raises(UsageError, match="nothing of feed drop is held"):
        host.sync(accept=True)


def test_growth_is_held_until_a_person_accepts_the_list_that_was_seen(
    remote: tuple[Host, Answer, Publisher],
) -> None:
    host, answer, lists = remote
    host.sync()
    answer.content, answer.headers = b"".join(b"203.0.113.%d\n" % at for at in range(1, 21, 2)), {"ETag": '"2"'}
    host.now += HOUR
    held = host.sync()
    assert (held.status, host.state.status) == (Status.HELD, Status.HELD)
    assert "from 2 CIDRs to 10" in held.problem
    assert "'enforcer feed sync --accept drop'" in held.problem
    assert host.denied() == ["198.51.100.0/25", "203.0.113.7/32"]
    answer.content = b"192.0.2.1\n"  # what the publisher has since
    taken = host.sync(accept=True)
    assert (taken.status, taken.problem, taken.fetched) == (Status.TAKEN, "", True)
    assert host.denied() == [f"203.0.113.{at}/32" for at in (1, 11, 13, 15, 17, 19, 3, 5, 7, 9)]
    assert len(lists.seen) == 2
    with pytest.raises(UsageError):
        host.sync(accept=True)


def test_a_publisher_that_takes_it_back_ends_the_wait(remote: tuple[Host, Answer, Publisher]) -> None:
    host, answer, _ = remote
    host.sync()
    good = answer.content
    answer.content, answer.headers = b"203.0.113.7\nx\n", {"ETag": '"2"'}
    host.now += HOUR
    assert host.sync().status is Status.HELD
    answer.content, answer.headers = good, {"ETag": '"1"'}
    host.now += HOUR
    assert host.sync().status is Status.TAKEN
    with pytest.raises(UsageError):
        host.sync(accept=True)


def test_another_format_is_fetched_at_once_and_the_old_list_is_not_read_with_it(
    remote: tuple[Host, Answer, Publisher],
) -> None:
    host, answer, _ = remote
    host.sync()
    host.feed = replace(host.feed, shape=Shape(Format.CSV, column=1))
    before = host.denied()
    assert host.sync().changes is None
    assert host.denied() == before
    host.now += HOUR
    answer.content = b"198.51.100.0/25,x\n203.0.113.8,y\n"
    assert host.sync().good  # the validator of the other reading is not sent
    assert host.denied() == ["198.51.100.0/25", "203.0.113.8/32"]


def test_a_dry_run_writes_nothing(host: Host) -> None:
    done = host.sync(dry=True)
    assert done.changes is not None
    assert [item.name for item in done.changes.create] == ["feed-drop-v4", "feed-drop-v6"]
    assert not host.sets()
    assert host.state == FeedState()


def test_a_writer_that_was_interrupted_is_completed_by_the_next_run(host: Host) -> None:
    class Failing(FileWriter):
        def create(self, name: str, item: dict[str, Any], *, keep_s: float | None) -> None:
            if name == "feed-drop-v6":
                raise StoreError("gone")
            super().create(name, item, keep_s=keep_s)

    host.writer = Failing(host.folder / "sets")
    with pytest.raises(StoreError):
        host.sync()
    assert list(host.sets()) == ["feed-drop-v4"]
    assert host.state.unwritten == "gone"
    assert b'enforcer_feed_failed{feed="drop"} 1\n' in exposition({"drop": host.state})
    host.writer = None
    (host.folder / "list").unlink()
    assert host.sync().status is Status.FAILED
    assert host.denied() == ["198.51.100.0/25", "2001:db8::/32", "203.0.113.7/32"]
    assert host.state.unwritten == ""


def test_a_set_of_somebody_else_is_not_touched(host: Host) -> None:
    writer = FileWriter(host.folder / "sets")
    other = objects.object_of(objects.Wanted("feed-drop-v4", {"a": "b"}, {}, ["192.0.2.1/32"]))
    writer.create("feed-drop-v4", other, keep_s=None)
    with pytest.raises(RefusedError, match=r"feed-drop-v4: is there already, and is not of feed drop"):
        host.sync()
    found = writer.read("feed-drop-v4")
    assert found is not None
    assert found.object == other


def test_a_removed_feed_leaves_nothing(host: Host) -> None:
    host.sync()
    syncer = host.syncer()
    assert remove(syncer.states, None, syncer.resources, "drop") == ["feed-drop-v4", "feed-drop-v6"]
    assert host.sets()
    assert remove(syncer.states, syncer.writer, syncer.resources, "drop") == ["feed-drop-v4", "feed-drop-v6"]
    assert not host.sets()
    assert host.states.names() == []


def test_one_process_at_a_time(host: Host) -> None:
    with host.states.locked(), pytest.raises(HostError, match="another 'enforcer feed' is at work"):
        host.sync()


def test_a_state_that_cannot_be_read_is_an_error_and_not_a_new_feed(host: Host) -> None:
    host.sync()
    (host.folder / "state" / "drop.json").write_text("{}")
    with pytest.raises(HostError, match="remove it to begin anew"):
        host.sync()


def test_decisions_of_crowdsec_come_and_go(host: Host, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    first, later = "/v1/decisions/stream?startup=true", "/v1/decisions/stream?startup=false"

    def answer(new: list[tuple[int, str, str]], deleted: tuple[int, ...] = ()) -> Answer:
        bans = [
            {"id": number, "scope": "Ip", "type": "ban", "value": value, "duration": duration}
            for number, value, duration in new
        ]
        return Answer(json.dumps({"new": bans or None, "deleted": [{"id": number} for number in deleted]}).encode())

    with publisher() as local:
        bouncer = replace(host.feed, source=local.url, shape=None, key_file=tmp_path / "key", every_s=10.0)
        host.feed = replace(bouncer, limits=Limits(change=0))
        local.answers[first] = answer([(1, "198.51.100.7", "4h"), (2, "203.0.113.9", "30s")])
        local.answers[later] = answer([(3, "2001:db8::7", "1h")], (1,))
        assert host.sync().good
        assert host.denied() == ["198.51.100.7/32", "203.0.113.9/32"]
        host.now += 10
        assert host.sync().good
        assert host.denied() == ["2001:db8::7/128", "203.0.113.9/32"]
        host.now += 25
        local.answers[later] = Answer(status=500)
        assert host.sync().status is Status.FAILED
        assert host.denied() == ["2001:db8::7/128"]  # what has ended by its duration goes, what has not stays
        host.now += 10
        local.answers[first] = answer([])
        assert host.sync().good
        assert host.denied() == []
        assert local.paths() == [first, later, later, first]  # after a failure, everything is asked for
