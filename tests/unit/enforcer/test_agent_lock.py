"""One agent per network namespace, by the kernel's lock, held while the agent lives, never by a file's content."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.agent.lock import AgentRecord, agent_lock, running_agent
from enforcer.model.errors import AgentRunsError

ME = AgentRecord(os.getpid(), "2026-01-02T03:04:05Z", "jasper", "/etc/enforcer")
HOLDER = """
import sys
from pathlib import Path
from enforcer.agent.lock import AgentRecord, agent_lock
with agent_lock(AgentRecord(4711, "2026-01-02T03:04:05Z", "onyx", "/srv/policy"), Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(directory: Path) -> subprocess.Popen[str]:
    """Another process that is the agent until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_no_agent_runs_where_none_ran(tmp_path: Path) -> None:
    assert running_agent(tmp_path) is None
    assert running_agent(tmp_path / "not there") is None


def test_an_agent_is_seen_while_it_holds_the_lock_and_leaves_nothing(tmp_path: Path) -> None:
    with agent_lock(ME, tmp_path):
        assert running_agent(tmp_path) == ME
    assert running_agent(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_agent_is_refused_with_the_first_ones_number(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        with pytest.raises(AgentRunsError, match=r"pid 4711, since 2026-01-02T03:04:05Z, node onyx.*stop it first"):
            agent_lock(ME, tmp_path).__enter__()
        assert other.stdin
        other.stdin.close()
        other.wait()
        with agent_lock(ME, tmp_path):
            assert running_agent(tmp_path) == ME


def test_the_lock_file_of_a_killed_agent_means_no_agent(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
    (left,) = tmp_path.iterdir()
    # The pid in the file may belong to another process by now, even to this one.
    left.write_text(left.read_text().replace("4711", str(os.getpid())))
    assert running_agent(tmp_path) is None
    with agent_lock(ME, tmp_path):
        assert running_agent(tmp_path) == ME
    assert list(tmp_path.iterdir()) == []


def test_looking_never_keeps_an_agent_from_starting(tmp_path: Path) -> None:
    for _ in range(50):
        with agent_lock(ME, tmp_path):
            (path,) = tmp_path.iterdir()
            with path.open() as also_open:
                assert running_agent(tmp_path) == ME
                assert not also_open.closed
        assert running_agent(tmp_path) is None


@pytest.mark.parametrize("said", ["", "{", "[]", '{"pid": "x"}', "\x00" * 100], ids=repr)
def test_an_agent_that_has_not_said_who_it_is_is_one_all_the_same(tmp_path: Path, said: str) -> None:
    with agent_lock(ME, tmp_path):
        (path,) = tmp_path.iterdir()
        path.write_text(said)
        found = running_agent(tmp_path)
        assert found is not None
        assert found.pid == 0
