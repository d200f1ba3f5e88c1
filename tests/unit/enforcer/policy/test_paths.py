"""Finding and opening files: what cannot be read is a finding, never treated as absent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.model.errors import PolicyError
from enforcer.policy.load import load
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import load_tolerant
from enforcer.system import files
from enforcer.system.files import FILE_MAX_BYTES, find

SET = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: %s}, spec: {nets: [192.0.2.0/24]}}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    (path / "more").mkdir(parents=True)
    (path / "a.yaml").write_text(SET % "a")
    (path / "more" / "b.yaml").write_text(SET % "b")
    return path


def names(resources: Resources) -> list[str]:
    return [item.name for item in resources.global_network_sets]


def findings(path: Path) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        load([path])
    return [str(finding) for finding in raised.value.findings]


def test_linked_directories_are_read_and_loops_end(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c.yaml").write_text(SET % "c")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    assert sorted(names(load([folder]))) == ["a", "b", "c"]


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    """Kubernetes' AtomicWriter: the names are links through ``..data``, those of directories too."""
    data = tmp_path / "..2026_01_01"
    (data / "sub").mkdir(parents=True)
    (data / "a.yaml").write_text(SET % "a")
    (data / "sub" / "b.yaml").write_text(SET % "b")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    (tmp_path / "sub").symlink_to("..data/sub")
    assert names(load([tmp_path])) == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("FIFO", "not a regular file but a FIFO"),
        ("socket", "not a regular file but a socket"),
        ("device", "not a regular file but a character device"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("nowhere", "cannot be read: No such file or directory"),
        ("kernel log", "cannot be read"),
        ("sparse", f"larger than {FILE_MAX_BYTES >> 20} MiB"),
    ],
)
def test_what_is_no_ordinary_file_is_a_finding(folder: Path, kind: str, says: str) -> None:
    path = folder / "x.yaml"
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "FIFO":
                os.mkfifo(path)
            case "socket":
                listener.bind(str(path))
            case "device":
                path.symlink_to("/dev/zero")
            case "loop":
                path.symlink_to(path)
            case "nowhere":
                path.symlink_to("nowhere")
            case "kernel log":
                path.symlink_to("/proc/self/mem")
            case "sparse":
                path.touch()
                os.truncate(path, 1 << 40)
        (said,) = findings(folder)
    assert said.startswith(f"{path}: {says}")


@pytest.mark.parametrize("name", ["linked", "linked.d", "README"])
def test_a_link_to_nowhere_may_have_been_a_directory(folder: Path, name: str) -> None:
    (folder / name).symlink_to("nowhere")
    assert findings(folder) == [f"{folder / name}: cannot be read: No such file or directory"]


def test_a_hidden_link_to_nowhere_is_none_of_ours(folder: Path) -> None:
    (folder / ".#a.yaml").symlink_to("user@host.1")  # how Emacs locks a file
    assert names(load([folder])) == ["a", "b"]


def test_a_path_that_is_too_long_is_a_finding(folder: Path) -> None:
    """ENAMETOOLONG represents every error of stat(2)."""
    (folder / "far").symlink_to("y" * 256)
    (said,) = findings(folder)
    assert said == f"{folder / 'far'}: cannot be read: File name too long"


def test_a_link_that_leads_out_is_a_finding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcer.system.files.FOLDERS_MAX", 3)
    for number in range(4):
        (folder / f"d{number}").mkdir()
    assert "does a symbolic link lead out of it?" in findings(folder)[0]


UNREADABLE = """
import os, sys
from enforcer.policy.tolerant import load_tolerant
from enforcer.policy.resources import Resources
folder = sys.argv[1]
good = load_tolerant([folder], Resources())
assert not good.faults
os.chmod(folder + "/more", 0)
now = load_tolerant([folder], good.resources)
print([item.name for item in now.resources.global_network_sets], now.again, [str(item.finding) for item in now.faults])
"""


@pytest.mark.needs_root
def test_an_unreadable_directory_is_not_an_empty_one(folder: Path) -> None:
    """Run by a user without root's permission to read everything."""
    words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", sys.executable, "-c", UNREADABLE, folder]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == f"['a', 'b'] True ['{folder}/more: cannot be read: Permission denied']", done.stderr


UNMOUNTED = """
import subprocess, sys
from pathlib import Path
from enforcer.datastore.files import FileStore
from enforcer.policy.resources import Resources
folder = Path(sys.argv[1])
more = folder / "more"
text = (more / "b.yaml").read_text()
(more / "b.yaml").unlink()
def mount():
    subprocess.run(["mount", "-t", "tmpfs", "none", more], check=True)
    (more / "b.yaml").write_text(text)
mount()
store = FileStore([folder])
resources = Resources()
def look():
    global resources
    loaded = store.snapshot(resources)
    resources = loaded.resources
    print([item.name for item in resources.global_network_sets], [item.finding.message[:17] for item in loaded.faults])
look()
subprocess.run(["umount", more], check=True)
look()
look()
mount()
look()
subprocess.run(["umount", more], check=True)
more.rmdir()
look()
"""


@pytest.mark.needs_root
def test_an_unmounted_directory_is_not_an_empty_one(folder: Path) -> None:
    words = ["unshare", "--mount", sys.executable, "-c", UNMOUNTED, folder]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.splitlines() == [
        "['a', 'b'] []",
        "['a', 'b'] ['was a mount point']",
        "['a', 'b'] ['was a mount point']",
        "['a', 'b'] []",
        "['a'] []",
    ], done.stderr


@pytest.mark.needs_root
@pytest.mark.parametrize("words", [["dossim.cli", "validate"], ["enforcer.cli", "apply", "-f"]])
def test_commands_refuse_what_they_cannot_read(folder: Path, words: list[str]) -> None:
    (folder / "more").chmod(0)
    through = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    done = subprocess.run(
        [*through, sys.executable, "-m", *words, str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert f"{folder}/more: cannot be read: Permission denied" in done.stdout + done.stderr


def test_an_exception_from_one_file_is_a_fault_of_that_file_alone(folder: Path) -> None:
    """Whatever unexpected exception one file raises, the other files and its last good version stay."""
    good = load_tolerant([folder], Resources())

    def read(path: str) -> bytes:
        if path.endswith("b.yaml"):
            raise MemoryError
        return files.read(path)

    now = load_tolerant([folder], good.resources, read=read)
    assert names(now.resources) == ["a", "b"]
    assert now.again
    assert [type(crash) for crash in now.crashes] == [MemoryError]
    assert "cannot be read: MemoryError" in now.findings[0].message


def test_folders_of_a_tree_are_those_that_files_may_come_to(folder: Path) -> None:
    assert find(str(folder)).folders == [str(folder), str(folder / "more")]
    assert find(str(folder / "a.yaml")).folders == []
