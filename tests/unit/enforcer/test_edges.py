"""The small edges of the agent: the file store, log lines, what systemd is told, the lock."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.datastore.files import FileStore
from enforcer.lock import namespace_lock
from enforcer.log import LineFormatter
from enforcer.policy.resources import Resources
from enforcer.systemd import notify, watchdog_interval_s

SET = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: {0}}}
spec: {{nets: [192.0.2.0/24]}}
"""
DEADLINE_S = 20.0


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.mkdir()
    (path / "a.yaml").write_text(SET.format("a"))
    return path


class Watcher:
    """Counts the signs a store gives, in a thread as the agent's."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._stop = threading.Event()
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
