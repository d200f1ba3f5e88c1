"""A file that is being written counts with its last version; a complete one is read, even while others read it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enforcer.datastore.files import FileStore
from enforcer.datastore.writers import is_open_for_writing
from enforcer.policy.resources import Resources
from enforcer.system import files
from enforcer.system.stop import Stop

SET = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: %s}, spec: {nets: [192.0.2.0/24]}}\n"
WHOLE = f"{SET % 'a'}---\n{SET % 'b'}"
DEADLINE_S = 60.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy" / "sets.yaml"
    path.parent.mkdir()
    path.write_text(WHOLE)
    return path


class Follower:
    """As an agent uses a store: a snapshot at the start, and another after each notification."""

    def __init__(self, path: Path, *, emergency: Path | None = None) -> None:
        self.store = FileStore([path], emergency=emergency)
        self.seen: list[list[str]] = []
        self.faults: list[str] = []
        self.resources = Resources()
        self.look()

    def look(self) -> None:
        loaded = self.store.snapshot(self.resources)
        self.resources = loaded.resources
        self.seen.append([item.name for item in loaded.resources.global_network_sets])
        self.faults = [finding.message for finding in loaded.findings]

    @contextmanager
    def following(self) -> Iterator[None]:
        stop = Stop()

        def follow() -> None:
            for _ in self.store.changes(stop):
                self.look()

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def wait_for(self, names: list[str], *, without: str = "still open") -> None:
        until_s = time.monotonic() + DEADLINE_S
        while self.seen[-1] != names or any(without in fault for fault in self.faults):
            assert time.monotonic() < until_s, (self.seen, self.faults)
            time.sleep(0.02)


def test_the_kernel_knows_who_writes(file: Path) -> None:
    assert not is_open_for_writing(str(file))
    with file.open("a"):
        assert is_open_for_writing(str(file))
    with file.open():
        assert not is_open_for_writing(str(file))


def test_a_writer_is_not_delayed_by_a_reader(file: Path) -> None:
    """The signal that a lease causes (SIGIO) does not kill the process."""
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            is_open_for_writing(str(file))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(300):
            file.write_text(WHOLE)
    finally:
        stop.set()
        thread.join()
    assert file.read_text() == WHOLE


@pytest.mark.parametrize("closes", [False, True], ids=["and pauses", "and closes it meanwhile"])
def test_half_a_file_is_never_taken(file: Path, closes: bool) -> None:
    follower = Follower(file.parent)
    with follower.following():
        writer = file.open("w")
        writer.write(SET % "a")
        writer.flush()
        if closes:
            writer.close()
        time.sleep(1.5)
        writer = writer if not closes else file.open("a")
        writer.write(f"---\n{SET % 'c'}")
        writer.close()
        follower.wait_for(["a", "c"])
    assert [names for names in follower.seen if names not in (["a", "b"], ["a", "c"])] == []


def test_a_file_that_is_written_when_the_agent_starts_is_a_fault(file: Path) -> None:
    with file.open("a"):
        follower = Follower(file.parent)
        assert follower.seen == [[]]
        assert "is still open for writing" in follower.faults[0]
        with follower.following():
            (file.parent / "other.yaml").write_text(SET % "other")
            follower.wait_for(["other"], without="nothing")
    with follower.following():
        follower.wait_for(["other", "a", "b"])


def test_a_snapshot_for_another_reason_does_not_take_the_half(file: Path) -> None:
    follower = Follower(file.parent)
    with file.open("w") as writer:
        writer.write(SET % "a")
        writer.flush()
        follower.look()
        assert follower.seen[-1] == ["a", "b"]
        assert "is still open for writing" in follower.faults[0]
        writer.write(f"---\n{SET % 'c'}")
    with follower.following():
        follower.wait_for(["a", "c"])


def test_a_rename_needs_no_time_to_settle(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcer.datastore.writers.SETTLE_S", 3600.0)
    follower = Follower(file.parent)
    with follower.following():
        scratch = file.parent.parent / "scratch"
        scratch.write_text(SET % "renamed")
        scratch.replace(file)
        follower.wait_for(["renamed"])


def test_a_change_that_hides_its_time_and_size_is_noticed(file: Path) -> None:
    before = file.stat()
    follower = Follower(file.parent)
    with follower.following():
        file.write_text(WHOLE.replace("name: b", "name: c"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        follower.wait_for(["a", "c"])


def test_one_file_is_watched_without_what_lies_below_its_directory(file: Path) -> None:
    for number in range(50):
        (file.parent / f"d{number}").mkdir()
    follower = Follower(file)
    with follower.following():
        until_s = time.monotonic() + DEADLINE_S
        while not (watches := inotify_watches()):
            assert time.monotonic() < until_s
            time.sleep(0.02)
        assert watches == 1


def inotify_watches() -> int:
    """The leases of this process (proc_pid_fdinfo(5))."""
    found = 0
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            found += entry.read_text().count("inotify wd:")
        except FileNotFoundError:
            continue
    return found


def test_without_inotify_changes_are_still_noticed(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def limit_reached(folders: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # inotify_add_watch(2)

    monkeypatch.setattr("enforcer.datastore.files.Inotify", limit_reached)
    follower = Follower(file.parent)
    with follower.following():
        for name in ("one", "two"):
            scratch = file.parent.parent / "scratch"
            scratch.write_text(SET % name)
            scratch.replace(file)
            follower.wait_for([name])
    assert caplog.text.count("no inotify: polling for changes every second") == 1


def test_a_fault_that_goes_by_unseen_is_tried_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk error changes nothing about the file that could be detected."""
    failing = True
    real = files.read

    def read(path: str) -> bytes:
        if failing:
            raise OSError(5, "Input/output error")
        return real(path)

    follower = Follower(file.parent)
    monkeypatch.setattr("enforcer.system.files.read", read)
    with follower.following():
        scratch = file.parent.parent / "scratch"
        scratch.write_text(SET % "new")
        scratch.replace(file)
        until_s = time.monotonic() + DEADLINE_S
        while not follower.faults:
            assert time.monotonic() < until_s
            time.sleep(0.02)
        assert follower.seen[-1] == ["a", "b"]
        failing = False
        follower.wait_for(["new"])
