"""Faulty objects at an agent's start: the last state without a fault, kept on disk."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from enforcer.datastore.files import FileStore
from enforcer.datastore.lastgood import LastGood, state_directory
from enforcer.policy.resources import Resources

ENDPOINT = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: edge}
spec: {node: jasper, interfaceName: eth0}
"""
BOTS = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bots}
spec: {nets: [%s]}
"""
NOTHING = Resources()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.mkdir()
    write(path, "endpoint.yaml", ENDPOINT)
    write(path, "bots.yaml", BOTS % "203.0.113.0/24")
    return path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def nets(store: FileStore) -> list[str]:
    """The store's current resources, which then count as enforced."""
    loaded = store.snapshot(NOTHING)
    store.keep()
    return [str(net) for item in loaded.resources.global_network_sets for net in item.nets]


def test_a_new_store_has_the_last_good_version_of_an_object_that_is_faulty_now(folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert nets(FileStore([folder], state=state)) == ["203.0.113.0/24"]
    write(folder, "bots.yaml", BOTS % "203.0.113.0/33")
    again = FileStore([folder], state=state).snapshot(NOTHING)
    assert again.kept == ("GlobalNetworkSet bots",)
    assert "GlobalNetworkSet bots keeps its last good version" in again.faults[0].outcome
    assert [str(net) for item in again.resources.global_network_sets for net in item.nets] == ["203.0.113.0/24"]
    assert nets(FileStore([folder])) == [], "a store without state knows nothing of it"


def test_the_state_kept_is_the_newest_without_a_fault(folder: Path, tmp_path: Path) -> None:
    store = FileStore([folder], state=tmp_path)
    for cidrs in ("203.0.113.0/24", "198.51.100.0/24, 192.0.2.0/24", "192.0.2.0/99"):
        write(folder, "bots.yaml", BOTS % cidrs)
        nets(store)
    assert nets(FileStore([folder], state=tmp_path)) == ["192.0.2.0/24", "198.51.100.0/24"]


def test_what_was_removed_since_stays_removed(folder: Path, tmp_path: Path) -> None:
    nets(FileStore([folder], state=tmp_path))
    (folder / "bots.yaml").unlink()
    write(folder, "endpoint.yaml", ENDPOINT.replace("eth0", "no/name"))
    again = FileStore([folder], state=tmp_path).snapshot(NOTHING)
    assert again.kept == ("HostEndpoint edge",)
    assert again.resources.global_network_sets == ()


def test_only_the_first_snapshot_looks_at_what_was_kept(folder: Path, tmp_path: Path) -> None:
    store = FileStore([folder], state=tmp_path)
    good = store.snapshot(NOTHING).resources
    write(folder, "bots.yaml", BOTS % "bad")
    assert nets(store) == []
    assert store.snapshot(good).kept == ("GlobalNetworkSet bots",)


def test_other_paths_have_a_state_of_their_own(folder: Path, tmp_path: Path) -> None:
    nets(FileStore([folder], state=tmp_path / "state"))
    assert LastGood(tmp_path / "state", [folder]).read().host_endpoints
    assert LastGood(tmp_path / "state", [tmp_path]).read() == NOTHING


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "[" * 100_000,
        '{"version": 99, "files": []}',
        '{"version": "1", "files": []}',
        '{"version": 1, "files": {}}',
        '{"version": 1, "files": [{}]}',
        '{"version": 1, "files": ["a"]}',
        '{"version": 1, "files": [{"path": 1, "text": "a"}]}',
        '{"version": 1, "files": [{"path": "a", "text": null}]}',
        '{"version": 1, "files": [{"path": "a", "text": ["a"]}]}',
    ],
)
def test_a_state_that_cannot_be_read_is_none(
    folder: Path, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    nets(FileStore([folder], state=tmp_path / "state"))
    (kept,) = (tmp_path / "state").iterdir()
    kept.write_text(text)
    assert LastGood(tmp_path / "state", [folder]).read() == NOTHING
    assert caplog.text.count("cannot read the last good policy: ignored") == 1


def test_a_state_in_place_of_which_something_else_is_is_none(folder: Path, tmp_path: Path) -> None:
    nets(FileStore([folder], state=tmp_path / "state"))
    (kept,) = (tmp_path / "state").iterdir()
    kept.unlink()
    os.mkfifo(kept)
    assert LastGood(tmp_path / "state", [folder]).read() == NOTHING


def test_what_was_read_is_not_kept_before_it_is_enforced(folder: Path, tmp_path: Path) -> None:
    store = FileStore([folder], state=tmp_path)
    store.snapshot(NOTHING)
    assert store.last_good() == NOTHING
    store.keep()
    assert [item.name for item in store.last_good().host_endpoints] == ["edge"]


def test_what_a_killed_process_left_behind_is_removed(folder: Path, tmp_path: Path) -> None:
    """Files of this version and the previous one; no other file of the directory is removed."""
    state = tmp_path / "state"
    nets(FileStore([folder], state=state))
    (kept,) = state.iterdir()
    beginning = kept.read_text()[:30]
    number = kept.stem.removeprefix("last-good-")
    left = [state / f".last-good-{number}-abcdefgh", state / ".abcd_123", state / ".abcd_124"]
    others = [state / ".abcd_125", state / "notes", state / ".a", state / ".dirdirdi"]
    for path, text in zip(left, (beginning, beginning, ""), strict=True):
        path.write_text(text)
    for path in others[:-1]:
        path.write_text("something else")
    others[-1].mkdir()
    os.mkfifo(state / ".fifofifo")
    FileStore([folder], state=state)
    assert sorted(state.iterdir()) == sorted([kept, *others, state / ".fifofifo"])


def test_a_full_disk_leaves_nothing_behind(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file size limit simulates it: the write fails half way."""
    state = tmp_path / "state"
    store = FileStore([folder], state=state)
    assert nets(store) == ["203.0.113.0/24"]
    (kept,) = state.iterdir()
    write(folder, "bots.yaml", BOTS % "198.51.100.0/24")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        assert nets(store) == nets(store) == ["198.51.100.0/24"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(state.iterdir()) == [kept]
    assert caplog.text.count("cannot store the last good policy on disk") == 1
    assert nets(store) == ["198.51.100.0/24"]
    assert "198.51.100.0/24" in kept.read_text(), "it is tried again"


def test_names_that_are_not_utf8_are_kept(folder: Path, tmp_path: Path) -> None:
    path = os.fsencode(folder) + b"/caf\xe9.yaml"
    with open(path, "w") as file:
        file.write((BOTS % "192.0.2.0/24").replace("bots", "more"))
    store = FileStore([folder], state=tmp_path)
    nets(store)
    assert {item.position.path for item in store.last_good().global_network_sets} == {
        os.fsdecode(path),
        str(folder / "bots.yaml"),
    }


def test_files_that_changed_meanwhile_are_not_kept(folder: Path, tmp_path: Path) -> None:
    store = FileStore([folder], state=tmp_path)
    store.snapshot(NOTHING)
    write(folder, "bots.yaml", BOTS % "192.0.2.0/24")
    store.keep()
    assert store.last_good() == NOTHING
    assert nets(store) == ["192.0.2.0/24"]
    assert [item.name for item in store.last_good().host_endpoints] == ["edge"]


def test_a_state_that_cannot_be_kept_stops_nothing(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = FileStore([folder], state=tmp_path / "file")
    assert nets(store) == nets(store) == ["203.0.113.0/24"]
    assert caplog.text.count("cannot store the last good policy on disk") == 1


def test_services_say_where_their_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "STATE_DIRECTORY", "/var/lib/somewhere")
    assert state_directory() == Path("/var/lib/somewhere")
    monkeypatch.delitem(os.environ, "STATE_DIRECTORY")
    assert state_directory() == Path("/var/lib/enforcer")
