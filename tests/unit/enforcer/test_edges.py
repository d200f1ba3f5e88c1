"""The agent's interfaces to the system: the file store, log lines, notifications to systemd, the lock."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.agent.event_loop import EventLoop
from enforcer.agent.systemd import notify, watchdog_interval_s
from enforcer.datastore.base import StoreState
from enforcer.datastore.files import FileStore
from enforcer.kernel.lock import namespace_lock
from enforcer.model.errors import HostError
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded
from enforcer.system.log import LineFormatter
from enforcer.system.stop import Stop

SET = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: {0}}}
spec: {{nets: [192.0.2.0/24]}}
"""
DEADLINE_S = 60.0


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.mkdir()
    (path / "a.yaml").write_text(SET.format("a"))
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    found: list[str] = []

    def read(path: str) -> bytes:
        found.append(os.path.basename(path))
        return Path(path).read_bytes()

    monkeypatch.setattr("enforcer.datastore.files.system_files.read", read)
    return found


def _snapshot(store: FileStore, reads: list[str], later_ns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a snapshot reads so much later."""
    now_ns = time.time_ns()
    monkeypatch.setattr("enforcer.datastore.files.time.time_ns", lambda: now_ns + later_ns)
    reads.clear()
    assert not store.snapshot(Resources()).faults
    return list(reads)


def test_files_that_look_as_when_they_were_read_are_not_read_again(
    directory: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless they were written just before they were read, so that another change may have left the same times."""
    store = FileStore([directory])
    assert _snapshot(store, reads, 0, monkeypatch) == ["a.yaml"]
    assert _snapshot(store, reads, 10**10, monkeypatch) == ["a.yaml"]
    (directory / "b.yaml").write_text(SET.format("b"))
    assert _snapshot(store, reads, 10**10, monkeypatch) == ["b.yaml"]
    assert _snapshot(store, reads, 10**10, monkeypatch) == []
    (directory / ".a").write_text(SET.format("c"))
    os.replace(directory / ".a", directory / "a.yaml")
    loaded = store.snapshot(Resources())
    assert [item.name for item in loaded.resources.global_network_sets] == ["c", "b"]
    store.refresh()
    assert _snapshot(store, reads, 10**10, monkeypatch) == ["a.yaml", "b.yaml"]


class Watcher:
    """Counts a store's notifications, in a thread like the agent's."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._stop = Stop()
        self._sign = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def sees_a_change(self) -> bool:
        return self._sign.acquire(timeout=DEADLINE_S)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(timeout=DEADLINE_S)
        assert not self._thread.is_alive()

    def _watch(self) -> None:
        for _ in self._store.changes(self._stop):
            self._sign.release()


@pytest.fixture
def watchers() -> Iterator[list[Watcher]]:
    started: list[Watcher] = []
    yield started
    for watcher in started:
        watcher.end()


def names(store: FileStore) -> list[str]:
    return [item.name for item in store.snapshot(Resources()).resources.global_network_sets]


@pytest.mark.parametrize("what", ["written", "replaced", "added", "removed", "directory"])
def test_a_store_notices_when_a_file_is(directory: Path, watchers: list[Watcher], what: str) -> None:
    (directory / "z.yaml").write_text(SET.format("z"))
    store = FileStore([directory])
    assert names(store) == ["a", "z"]
    watchers.append(Watcher(store))
    scratch = directory.parent / "scratch"
    match what:
        case "written":
            (directory / "a.yaml").write_text(SET.format("other"))
        case "replaced":
            scratch.write_text(SET.format("b"))
            scratch.replace(directory / "a.yaml")
        case "added":
            (directory / "m.yaml").write_text(SET.format("m"))
        case "removed":
            (directory / "z.yaml").unlink()
        case "directory":
            directory.rename(scratch)
            directory.mkdir()
            (directory / "a.yaml").write_text(SET.format("anew"))
    assert watchers[0].sees_a_change()
    expected = {
        "written": ["other", "z"],
        "replaced": ["b", "z"],
        "added": ["a", "m", "z"],
        "removed": ["a"],
        "directory": ["anew"],
    }
    assert names(store) == expected[what]


def test_a_change_between_snapshot_and_watching_is_not_missed(directory: Path, watchers: list[Watcher]) -> None:
    store = FileStore([directory])
    store.snapshot(Resources())
    (directory / "a.yaml").write_text(SET.format("changed"))
    watchers.append(Watcher(store))
    assert watchers[0].sees_a_change()


def test_a_single_file_is_watched_through_its_replacement(directory: Path, watchers: list[Watcher]) -> None:
    store = FileStore([directory / "a.yaml"])
    store.snapshot(Resources())
    watchers.append(Watcher(store))
    scratch = directory.parent / "scratch"
    scratch.write_text(SET.format("b"))
    scratch.replace(directory / "a.yaml")
    assert watchers[0].sees_a_change()
    assert names(store) == ["b"]


def test_an_empty_directory_is_a_finding_not_an_empty_policy(tmp_path: Path) -> None:
    (finding,) = FileStore([tmp_path]).snapshot(Resources()).findings
    assert "no file here ends in" in finding.message


# -- log --------------------------------------------------------------------------------------------------------------


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("enforcer", logging.WARNING, "", 0, "%s", ("two\nlines",), None)
    record.fields = {"interface": "eth0", "why": 'a "b"', "none": ""}
    line = LineFormatter(with_time=False).format(record)
    assert line == r'level=warning msg="two\nlines" interface=eth0 why="a \"b\"" none=""'


def test_the_time_comes_first_unless_the_collector_adds_it() -> None:
    record = logging.LogRecord("enforcer", logging.INFO, "", 0, "%s", ("hello",), None)
    record.created = 0.0
    assert LineFormatter(with_time=True).format(record) == "time=1970-01-01T00:00:00Z level=info msg=hello"


# -- systemd ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract name"])
def test_systemd_hears_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@enforcer-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0") if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1", "STATUS=fine")
        assert manager.recv(100) == b"READY=1\nSTATUS=fine"


@pytest.mark.parametrize("address", ["", "/nowhere/notify"], ids=["no systemd", "one that does not listen"])
def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_a_state_is_one_line_whatever_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("STATUS=caf\udce9\nMAINPID=1\x1b", "READY=1")
        assert manager.recv(100) == rb"STATUS=caf\udce9\nMAINPID=1\x1b" + b"\nREADY=1"
        notify("STATUS=" + "x" * (1 << 20))
        assert len(manager.recv(1 << 20)) < 1 << 12


def test_a_service_manager_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for _ in range(10_000):  # more than a socket's queue holds (net.unix.max_dgram_qlen)
            notify("WATCHDOG=1")


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        pytest.param("30000000", None, 15.0, id="half of what is allowed"),
        pytest.param("30000000", "own", 15.0, id="meant for this process"),
        pytest.param("30000000", "1", None, id="meant for another"),
        pytest.param("", None, None, id="no watchdog"),
    ],
)
def test_the_watchdog_interval(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert watchdog_interval_s() == expected


# -- lock -------------------------------------------------------------------------------------------------------------


def test_passes_never_overlap_and_no_lock_is_left_behind(tmp_path: Path) -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def work() -> None:
        for _ in range(50):
            with namespace_lock(tmp_path):
                inside.append(1)
                overlaps.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=DEADLINE_S)
    assert overlaps == [1] * 200
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_not_waited_for_when_the_process_is_to_end(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    with (
        namespace_lock(tmp_path),
        pytest.raises(HostError, match="held by another enforcer"),
        namespace_lock(tmp_path, stopping=stopping),
    ):
        pass
    with namespace_lock(tmp_path, stopping=stopping):
        assert list(tmp_path.iterdir())


def test_without_room_for_a_lock_file_passes_do_not_overlap_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopping = threading.Event()
    stopping.set()
    (tmp_path / "file").write_text("")
    nowhere = tmp_path / "file" / "below"  # ENOTDIR; a full or read-only file system gives ENOSPC or EROFS
    with (
        namespace_lock(nowhere),
        pytest.raises(HostError, match="held by another enforcer"),
        namespace_lock(nowhere, stopping=stopping),
    ):
        pass
    with namespace_lock(nowhere):
        pass
    assert caplog.text.count("there can be no lock file") == 1


# -- waiting ----------------------------------------------------------------------------------------------------------


class Quiet:
    """A store in which nothing changes."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.fails = False

    def snapshot(self, last_good: Resources) -> Loaded:
        return Loaded(last_good)

    def refresh(self) -> None:
        pass

    def keep(self) -> None:
        pass

    def last_good(self) -> Resources:
        return Resources()

    def changes(self, stop: Stop) -> Iterator[None]:
        self.begun.release()
        if self.fails:
            self.fails = False
            raise SystemError("foreign code panicked")
        yield
        stop.wait()

    def state(self) -> StoreState:
        return StoreState("memory", self.describe(), True, 0.0, 0.0)

    def describe(self) -> str:
        return "nothing"


def unused(signal_name: str) -> None:
    raise AssertionError(signal_name)


def test_without_a_thread_the_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = _thread.start_new_thread

    def refused(function: object, arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    store = Quiet()
    monkeypatch.setattr(_thread, "start_new_thread", refused)
    done: list[int] = []
    with EventLoop(store, on_stop=unused) as loop:
        loop.work(lambda: done.append(1))
        assert done == [1]
        assert loop.wait(None, every_s=None, tick=lambda: None).policy, "read again, as changes are not heard of"
        monkeypatch.setattr(_thread, "start_new_thread", start)
        loop.work(lambda: done.append(2))
        events = loop.wait(None, every_s=None, tick=lambda: None)
        assert events.policy
        assert store.begun.acquire(timeout=DEADLINE_S), "watching begins when there are threads again"
    assert done == [1, 2]
    assert caplog.text.count("cannot start a worker thread") == 1


def test_a_thread_that_dies_before_it_begins_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a thread does without memory for its first frame."""
    monkeypatch.setattr(_thread, "start_new_thread", lambda function, arguments: 0)
    monkeypatch.setattr("enforcer.agent.threads._BEGINS_WITHIN_S", 0.01)
    done: list[int] = []
    with EventLoop(Quiet(), on_stop=unused) as loop:
        loop.work(lambda: done.append(1))
    assert done == [1]


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise RecursionError("too deep")

    with EventLoop(Quiet(), on_stop=unused) as loop, pytest.raises(RecursionError, match="too deep"):
        loop.work(work)


def test_watching_that_fails_begins_anew(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("enforcer.agent.event_loop._REPAIR_EVERY_S", 0.1)
    store = Quiet()
    store.fails = True
    with EventLoop(store, on_stop=unused) as loop:
        deadline = time.monotonic() + DEADLINE_S
        while not loop.wait(deadline, every_s=None, tick=lambda: None).policy:  # links of others change meanwhile
            assert time.monotonic() < deadline
    assert caplog.text.count("watching the policy for changes failed; starting again") == 1


def test_a_signal_is_heard_while_work_goes_on() -> None:
    heard = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.wait(DEADLINE_S)

    with EventLoop(Quiet(), on_stop=lambda name: heard.set()) as loop:
        loop.work(work)
        assert loop.stopped_by == "SIGTERM"
