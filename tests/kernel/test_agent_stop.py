"""SIGTERM ends an agent at once, whatever it is waiting for: the policy stays in the kernel, and the exit code is 0."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from enforcer.enforcement.apply import Enforcer
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    APPLIED,
    DEADLINE_S,
    NODE,
    Agent,
    agent,
    deny_list,
    documents,
    endpoint,
    policy,
    start,
)
from tests.kernel.fuse_support import hanging_file

pytestmark = pytest.mark.needs_root

PROMPT_S = 10.0  # two seconds, plus scheduling delays of a busy machine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.mkdir()
    (path / "dos.yaml").write_text(documents())
    return path


def ends_promptly(running: Agent) -> int:
    begun_s = time.monotonic()
    code = running.end(signal.SIGTERM)
    assert time.monotonic() - begun_s < PROMPT_S
    return code


@contextmanager
def lock_held(pair: NetnsPair) -> Iterator[Path]:
    inode = os.stat(f"/run/netns/{pair.host_name}").st_ino
    Path("/run/enforcer").mkdir(exist_ok=True)
    with open(f"/run/enforcer/netns-{inode}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(lock.name)
        os.unlink(lock.name)


def test_while_another_has_the_lock(host: NetnsPair, pin_root: Path, folder: Path) -> None:
    with agent(host, pin_root, folder) as running, lock_held(host):
        running.expect("waiting for another enforcer")
        assert ends_promptly(running) == 0
        assert not any("level=error" in line for line in running.lines)


def test_that_was_to_remove_the_policy_while_another_has_the_lock(
    host: NetnsPair, pin_root: Path, folder: Path
) -> None:
    with agent(host, pin_root, folder, "--detach-on-exit") as running:
        running.expect(APPLIED)
        with lock_held(host):
            assert ends_promptly(running) == 3
    assert "held by another enforcer" in running.lines[-1]


def test_while_it_reads_a_huge_file(host: NetnsPair, pin_root: Path, folder: Path) -> None:
    with agent(host, pin_root, folder) as running:
        running.expect(APPLIED)
        cidrs = [f"203.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(1 << 20)]
        scratch = folder.parent / "scratch"
        scratch.write_text(documents(endpoint(), deny_list(*cidrs), policy()))
        scratch.replace(folder / "dos.yaml")
        wait_until_busy(running.process.pid)
        assert ends_promptly(running) == 0
    assert not any("changes=" in line for line in running.lines[running.lines.index(applied(running)) + 1 :])


def test_while_a_file_server_does_not_answer(host: NetnsPair, pin_root: Path, folder: Path) -> None:
    with hanging_file(folder / "mounted", "list.yaml") as waited_for, agent(host, pin_root, folder) as running:
        assert waited_for.wait(DEADLINE_S)
        assert ends_promptly(running) == 0


@pytest.mark.parametrize("answers", [0, 3, 6, 7, 8])
def test_whenever_a_file_server_stops_answering(host: NetnsPair, pin_root: Path, folder: Path, answers: int) -> None:
    """At first, in the first pass, and when the directory begins to be watched."""
    hanging = hanging_file(folder / "mounted", "list.yaml", answers=answers)
    with hanging as waited_for, agent(host, pin_root, folder) as running:
        assert waited_for.wait(DEADLINE_S)
        assert ends_promptly(running) == 0


def test_while_its_log_is_not_read(host: NetnsPair, pin_root: Path, folder: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    words = ["run", "-f", str(folder), "--node", NODE, "--pin-root", str(pin_root)]
    process = start(host, words, stderr=writer, env={**os.environ, "STATE_DIRECTORY": f"{folder}.state"})
    try:
        with host.host():
            wait_until_enforced(pin_root)
        process.terminate()
        assert process.wait(timeout=PROMPT_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(writer)
        os.close(reader)


def wait_until_enforced(pin_root: Path) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not Enforcer(NODE, pin_root=pin_root).status():
        assert time.monotonic() < until_s
        time.sleep(0.1)


def wait_until_busy(pid: int) -> None:
    """Wait until it has used one second of CPU time: reading has begun, and takes several more."""
    ticks = os.sysconf("SC_CLK_TCK")

    def spent_s() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    begun_s, until_s = spent_s(), time.monotonic() + DEADLINE_S
    while spent_s() < begun_s + 1.0:
        assert time.monotonic() < until_s
        time.sleep(0.05)


def applied(running: Agent) -> str:
    return next(line for line in running.lines if APPLIED in line)
