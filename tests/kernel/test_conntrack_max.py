"""A lowered nf_conntrack_max is restored whatever ends the process. A file stands for the setting, which is the whole
host's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dossim.lab.conntrack_max import lowered, restore_abandoned, why_not_writable
from enforcer.model.errors import HostError

pytestmark = pytest.mark.needs_root

BEFORE, LOWERED = "262144", "2048"
DEADLINE_S = 30
OWNER = """
import sys
from pathlib import Path
from dossim.lab.conntrack_max import lowered
with lowered(2048, folder=Path(sys.argv[1]), setting=Path(sys.argv[2])):
    print("lowered", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def setting(tmp_path: Path) -> Path:
    path = tmp_path / "nf_conntrack_max"
    path.write_text(BEFORE)
    return path


@pytest.fixture
def owner(folder: Path, setting: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has it lowered."""
    command = [sys.executable, "-c", OWNER, str(folder), str(setting)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"lowered\n"
        assert setting.read_text() == LOWERED
        yield child
        child.kill()


def wait_for(setting: Path, value: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while setting.read_text() != value:
        assert time.monotonic() < until, f"still {setting.read_text()}"
        os.sched_yield()


def record(folder: Path) -> Path:
    return folder / "conntrack-max.json"


def watcher_of(pid: int) -> int:
    (watcher,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(watcher)


def test_it_is_lowered_in_the_block_and_restored_after_it(folder: Path, setting: Path) -> None:
    with lowered(2048, folder=folder, setting=setting):
        assert setting.read_text() == LOWERED
        assert not restore_abandoned(folder, setting), "whoever lowered it is alive"
        assert setting.read_text() == LOWERED
    assert setting.read_text() == BEFORE
    assert not record(folder).exists()


def test_it_is_restored_after_an_exception(folder: Path, setting: Path) -> None:
    with pytest.raises(ZeroDivisionError), lowered(2048, folder=folder, setting=setting):
        raise ZeroDivisionError
    assert setting.read_text() == BEFORE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_it_is_restored_when_the_process_is_killed(
    number: signal.Signals, owner: subprocess.Popen[bytes], folder: Path, setting: Path
) -> None:
    owner.send_signal(number)
    assert owner.wait() == -number
    wait_for(setting, BEFORE)


def test_the_next_lab_restores_it_when_both_processes_are_killed(
    owner: subprocess.Popen[bytes], folder: Path, setting: Path
) -> None:
    os.kill(watcher_of(owner.pid), signal.SIGKILL)
    owner.kill()
    owner.wait()
    assert setting.read_text() == LOWERED
    assert restore_abandoned(folder, setting)
    assert setting.read_text() == BEFORE
    assert not restore_abandoned(folder, setting)


def test_who_lowers_it_next_knows_the_value_before(owner: subprocess.Popen[bytes], folder: Path, setting: Path) -> None:
    os.kill(watcher_of(owner.pid), signal.SIGKILL)
    owner.kill()
    owner.wait()
    with lowered(512, folder=folder, setting=setting):
        assert json.loads(record(folder).read_text()) == {"before": int(BEFORE), "lowered": 512}
    assert setting.read_text() == BEFORE


def test_a_value_that_somebody_else_has_set_since_stays(folder: Path, setting: Path) -> None:
    with lowered(2048, folder=folder, setting=setting):
        setting.write_text("5000")
    assert setting.read_text() == "5000"


def test_where_it_cannot_be_written_nothing_is_done(folder: Path, setting: Path) -> None:
    setting.chmod(0o444)
    assert "not the initial network namespace" in why_not_writable(setting)
    with (
        pytest.raises(HostError, match="not the initial network namespace"),
        lowered(1, folder=folder, setting=setting),
    ):
        pass
    assert not folder.exists()
    assert not restore_abandoned(folder, setting)


def test_a_damaged_record_is_not_ignored(folder: Path, setting: Path) -> None:
    folder.mkdir()
    record(folder).write_text('{"before": "many"}')
    with pytest.raises(HostError, match="not a record of nf_conntrack_max"):
        restore_abandoned(folder, setting)
