"""Where every change of a file is an event in its directory, and where a change may come from elsewhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from enforcer.datastore import files
from enforcer.system import inotify
from enforcer.system.inotify import Inotify, sees_all
from enforcer.system.stop import Stop
from tests.unit.enforcer.test_writers import DEADLINE_S, SET, Follower


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On a local file system, whatever that of the test is."""
    monkeypatch.setattr(inotify, "is_local", lambda device: True)
    made = tmp_path.resolve() / "policy"
    made.mkdir()
    (made / "sets.yaml").write_text(SET % "a")
    return made


def as_it_is(folder: Path) -> list[Path]:
    return [folder / "sets.yaml"]


def with_a_link(folder: Path) -> list[Path]:
    (folder / "link.yaml").symlink_to(folder.parent / "elsewhere.yaml")
    return [*as_it_is(folder), folder / "link.yaml"]


def with_a_second_name(folder: Path) -> list[Path]:
    os.link(folder / "sets.yaml", folder.parent / "elsewhere.yaml")
    return as_it_is(folder)


def through_a_link(folder: Path) -> list[Path]:
    link = folder.parent / "link"
    link.symlink_to(folder)
    return [link / "sets.yaml"]


def gone(folder: Path) -> list[Path]:
    return [folder / "gone.yaml"]


@pytest.mark.parametrize(
    ("make", "sees"),
    [(as_it_is, True), (with_a_link, False), (with_a_second_name, False), (through_a_link, False), (gone, False)],
)
def test_every_change_is_an_event_unless_something_leads_to_the_file_from_elsewhere(
    folder: Path, make: Callable[[Path], list[Path]], sees: bool
) -> None:
    paths = make(folder)
    assert sees_all(map(str, paths), {str(path.parent) for path in paths}) is sees


def test_on_another_file_system_changes_may_come_from_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inotify, "is_local", lambda device: False)
    assert not sees_all([str(folder / "sets.yaml")], [str(folder)])


def test_a_mounted_file_may_be_changed_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inotify, "mount_points", lambda: frozenset([str(folder / "sets.yaml")]))
    assert not sees_all([str(folder / "sets.yaml")], [str(folder)])


def test_a_change_through_another_name_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although no event comes, and events alone would be enough otherwise."""
    monkeypatch.setattr(files, "_LOOK_SELDOM_S", 3600.0)
    with_a_second_name(folder)
    follower = Follower(folder)
    with follower.following():
        (folder.parent / "elsewhere.yaml").write_text(SET % "b")
        follower.wait_for(["b"])


def test_the_first_emergency_act_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory, which no event announces, is not there at the start."""
    waiting = threading.Event()

    class Watching(Inotify):
        def wait(self, timeout_s: float, stop: Stop) -> bool:
            waiting.set()
            return super().wait(timeout_s, stop)

    monkeypatch.setattr(files, "_LOOK_SELDOM_S", 3600.0)
    monkeypatch.setattr(files, "Inotify", Watching)
    acts = folder.parent / "acts"
    follower = Follower(folder, emergency=acts)
    with follower.following():
        assert waiting.wait(DEADLINE_S)
        acts.mkdir()
        (acts / "act.yaml").write_text(SET % "b")
        follower.wait_for(["a", "b"])


def test_a_file_that_is_complete_after_its_last_event_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file changed in place counts once it has been unchanged for a while, which is no event."""
    monkeypatch.setattr(files, "_LOOK_SELDOM_S", 3600.0)
    follower = Follower(folder)
    with follower.following():
        (folder / "sets.yaml").write_text(SET % "b")
        follower.wait_for(["b"])


def test_what_changes_just_before_the_watch_begins_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Inotify):
        def __init__(self, folders: Iterable[str]) -> None:
            scratch = folder.parent / "scratch"
            scratch.write_text(SET % "b")
            scratch.replace(folder / "sets.yaml")
            super().__init__(folders)

    monkeypatch.setattr(files, "_LOOK_SELDOM_S", 3600.0)
    monkeypatch.setattr(files, "Inotify", Late)
    follower = Follower(folder)
    with follower.following():
        follower.wait_for(["b"])
