"""What every writer of emergency acts does: files, a real etcd, the Kubernetes API. No act of ten operators is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path

import pytest

from enforcer.datastore.emergency_files import FileWriter
from enforcer.datastore.writer import ConflictError, Held, StoreError, Writer
from enforcer.emergency.act import Act, Deed, acts_of, object_of
from enforcer.emergency.allow import lifted
from enforcer.emergency.commit import Outcome, edit, parsed, put, remove
from enforcer.system import files as system_files
from enforcer.system.files import UnreadableError
from tests.support.api_server import needs_api_server
from tests.support.datastores import InEtcd, World, world

OPERATORS = 10


@pytest.fixture(params=["files", "etcd", "kubernetes", pytest.param("api server", marks=needs_api_server)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with world(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def writer(where: World) -> Iterator[Writer]:
    with where.writer() as made:
        yield made


def act(*cidrs: str, hours: float | None = 4, by: str = "alice@adm", reason: str = "flood", later_s: int = 0) -> Act:
    now = int(time.time()) + later_s
    who = Deed(now, by, reason, None if hours is None else int(now + hours * 3600))
    (made,) = acts_of([ip_network(each) for each in cidrs], beside="bots", labels={"deny": "all"}, deed=who)
    return made


def held(writer: Writer, name: str) -> Held:
    found = writer.read(name)
    assert found
    return found


def test_an_object_is_created_read_replaced_and_deleted(writer: Writer) -> None:
    one = act("192.0.2.1/32", reason='"odd": {reason} ‘é’\nof two lines')
    assert writer.read(one.name) is None
    writer.create(one.name, object_of(one), keep_s=60)
    first = held(writer, one.name)
    assert parsed(one.name, first) == one
    other = act("192.0.2.1/32", hours=None)
    writer.replace(one.name, object_of(other, first.object), first.revision, keep_s=None)
    second = held(writer, one.name)
    assert parsed(one.name, second) == other
    assert second.revision != first.revision
    writer.delete(one.name, second.revision)
    assert writer.read(one.name) is None


def test_a_version_that_its_author_has_not_seen_is_not_replaced(writer: Writer) -> None:
    one = act("192.0.2.1/32")
    writer.create(one.name, object_of(one), keep_s=60)
    with pytest.raises(ConflictError):
        writer.create(one.name, object_of(act("192.0.2.1/32", hours=1)), keep_s=60)
    first = held(writer, one.name)
    writer.replace(one.name, object_of(act("192.0.2.1/32", hours=9), first.object), first.revision, keep_s=60)
    second = held(writer, one.name)
    for fails in (
        lambda: writer.replace(one.name, object_of(one, first.object), first.revision, keep_s=60),
        lambda: writer.delete(one.name, first.revision),
    ):
        with pytest.raises(ConflictError):
            fails()
    assert held(writer, one.name) == second
    writer.delete(one.name, second.revision)
    for fails in (
        lambda: writer.replace(one.name, object_of(one, second.object), second.revision, keep_s=60),
        lambda: writer.delete(one.name, second.revision),
    ):
        with pytest.raises(ConflictError):
            fails()
    assert writer.read(one.name) is None, "what is gone does not come back"


def test_the_agents_store_reads_what_is_written(where: World, writer: Writer) -> None:
    from tests.support.datastores import Following, nets, put
    from tests.support.etcd import network_set

    put(where, network_set("bots", "203.0.113.0/24"))
    one = act("192.0.2.1/32")
    with Following(where.store()) as following:
        following.until(lambda loaded: list(nets(loaded)) == ["bots"])
        writer.create(one.name, object_of(one), keep_s=60)
        loaded = following.until(lambda loaded: one.name in nets(loaded))
        assert not loaded.faults
        assert nets(loaded)[one.name] == ["192.0.2.1/32"]
        writer.delete(one.name, held(writer, one.name).revision)
        following.until(lambda loaded: list(nets(loaded)) == ["bots"])


def test_an_act_is_stored_once(writer: Writer) -> None:
    one = act("192.0.2.1/32")
    assert put(writer, one).outcome is Outcome.CREATED
    assert put(writer, one).outcome is Outcome.UNCHANGED
    before = held(writer, one.name)
    assert put(writer, act("192.0.2.1/32", hours=1)).outcome is Outcome.UNCHANGED
    assert held(writer, one.name) == before
    longer = put(writer, act("192.0.2.1/32", hours=9, by="bob@adm", later_s=5))
    assert longer.outcome is Outcome.CHANGED
    assert longer.act
    assert [each.by for each in longer.act.deeds] == ["alice@adm", "bob@adm"]
    assert parsed(one.name, held(writer, one.name)) == longer.act
    less = act("192.0.2.1/32", hours=2)
    put(writer, less, shorten=True)
    assert parsed(one.name, held(writer, one.name)).until_s == less.until_s


def test_a_cidr_is_taken_out_and_with_the_last_the_object(writer: Writer) -> None:
    one = act("192.0.2.1/32", "192.0.2.2/32")
    put(writer, one)

    def without(*texts: str) -> Callable[[Act], Act]:
        return lambda found: lifted(found, [ip_network(text) for text in texts], split=False)

    assert edit(writer, one.name, without("198.51.100.1/32")).outcome is Outcome.UNCHANGED
    assert edit(writer, one.name, without("192.0.2.1/32")).outcome is Outcome.CHANGED
    assert edit(writer, one.name, without("192.0.2.2/32")).outcome is Outcome.DELETED
    assert edit(writer, one.name, without("192.0.2.2/32")).outcome is Outcome.ABSENT
    put(writer, one)
    assert remove(writer, one.name, lambda found: found.until_s is None).outcome is Outcome.UNCHANGED
    assert remove(writer, one.name, lambda found: True).outcome is Outcome.DELETED


def at_once(where: World, job: Callable[[Writer, int], object]) -> list[object]:
    """What each of ten operators gets who begin at the same time."""
    begin = threading.Barrier(OPERATORS)

    def operate(number: int) -> object:
        with where.writer() as own:
            own.read("warm-up")
            begin.wait()
            return job(own, number)

    with ThreadPoolExecutor(OPERATORS) as pool:
        return list(pool.map(operate, range(OPERATORS)))


def test_ten_operators_with_acts_of_their_own(where: World, writer: Writer) -> None:
    acts = [act(f"192.0.2.{number}/32", by=f"operator{number}@adm") for number in range(OPERATORS)]
    at_once(where, lambda own, number: put(own, acts[number]))
    assert [parsed(each.name, held(writer, each.name)) for each in acts] == acts


def test_ten_operators_with_the_same_act_lose_none(where: World, writer: Writer) -> None:
    """The latest end counts, and everybody who made it later is remembered."""
    acts = [act("192.0.2.1/32", hours=1 + number, by=f"operator{number}@adm") for number in range(OPERATORS)]
    done = at_once(where, lambda own, number: put(own, acts[number]))
    final = parsed(acts[0].name, held(writer, acts[0].name))
    assert final.until_s == acts[-1].until_s
    wrote = {
        f"operator{number}@adm"
        for number, each in enumerate(done)
        if each.outcome is not Outcome.UNCHANGED  # type: ignore[attr-defined]  # of this subclass
    }
    assert {each.by for each in final.deeds} == wrote
    assert "operator9@adm" in wrote


def test_ten_operators_take_one_cidr_each_out_of_an_act(where: World, writer: Writer) -> None:
    whole = act(*(f"192.0.2.{number}/32" for number in range(OPERATORS + 1)))
    put(writer, whole)

    def lift(own: Writer, number: int) -> object:
        net = ip_network(f"192.0.2.{number}/32")
        return edit(own, whole.name, lambda found: lifted(found, [net], split=False))

    at_once(where, lift)
    assert parsed(whole.name, held(writer, whole.name)).nets == (ip_network("192.0.2.10/32"),)


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, answers = act("192.0.2.1/32"), [UnreadableError("changed while it was read")] * 3
    writer = FileWriter(tmp_path / "acts")
    put(writer, made)
    read = system_files.read

    def failing(path: str) -> bytes:
        if answers:
            raise answers.pop()
        return read(path)

    monkeypatch.setattr(system_files, "read", failing)
    assert parsed(made.name, held(writer, made.name)) == made
    assert not answers


def test_an_object_that_somebody_spoiled_is_named(where: World, writer: Writer) -> None:
    one = act("192.0.2.1/32")
    made = object_of(one)
    made["metadata"]["labels"] = {}
    writer.create(one.name, made, keep_s=60)
    with pytest.raises(StoreError, match=rf"globalnetworksets/{one.name} was changed by somebody else"):
        put(writer, one)


def test_a_datastore_that_is_away_is_an_error(where: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if where.writer().kind == "files":
        pytest.skip("a directory that is away is one that does not exist yet")
    for module in ("etcd", "kubernetes"):
        monkeypatch.setattr(f"enforcer.datastore.{module}.writer._WITHIN_S", 0.5)
    with where.away(), where.writer() as away, pytest.raises(StoreError):
        away.read("enforcer-deny-1")


def test_a_lease_collects_what_has_ended(where: World, writer: Writer) -> None:
    if not isinstance(where, InEtcd):
        pytest.skip("only etcd deletes by itself")
    one = act("192.0.2.1/32")
    writer.create(one.name, object_of(one), keep_s=1)
    until_s = time.monotonic() + 60
    while writer.read(one.name) is not None:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    permanent = act("192.0.2.2/32", hours=None)
    writer.create(permanent.name, object_of(permanent), keep_s=2)
    first = held(writer, permanent.name)
    writer.replace(permanent.name, object_of(permanent), first.revision, keep_s=None)
    until_s = time.monotonic() + 60
    while "found 0 leases" not in where.cluster.ctl("lease", "list"):
        assert time.monotonic() < until_s
        time.sleep(0.1)
    assert writer.read(permanent.name), "it has no lease any more"
