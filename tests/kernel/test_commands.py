"""A command of the fork server is like one of an interpreter of its own, but for its imports."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import APPLIED, DEADLINE_S, agent, deny_list, documents, run, start
from tests.kernel.forked import forked
from tests.kernel.test_agent_stop import lock_held

pytestmark = pytest.mark.needs_root

SAME = "Umask Uid Gid Groups NSpgid NSsid Threads SigQ SigPnd ShdPnd SigBlk SigIgn SigCgt CapEff NoNewPrivs Seccomp"


def looks(pid: int) -> dict[str, object]:
    """What the kernel says of a process, without its numbers and its memory."""
    here = Path(f"/proc/{pid}")
    lines = dict(line.split(":\t", 1) for line in (here / "status").read_text().splitlines())
    return {name: lines[name].split("/")[-1] for name in SAME.split()} | {
        "directory": os.readlink(here / "cwd"),
        "network": os.readlink(here / "ns/net"),
        "mounts": os.readlink(here / "ns/mnt"),
        "descriptors": sorted(os.readlink(each).rstrip("0123456789:[]") for each in (here / "fd").iterdir()),
    }


def test_the_kernel_sees_no_other_process(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    (tmp_path / "dos.yaml").write_text(documents())
    seen = []
    for through in ((), ("env",)):
        alike = {"through": through, "OPENBLAS_NUM_THREADS": "1"}  # numpy's threads are not in the fork server
        with lock_held(netns_pair), agent(netns_pair, pin_root, tmp_path, "--mode", "raw", **alike) as running:
            running.expect("waiting for another enforcer")
            seen.append(looks(running.process.pid))
            assert running.end(signal.SIGTERM) == 0
    assert seen[0] == seen[1]


@pytest.mark.parametrize("words", [["apply", "-f", "/nowhere"], ["status", "--help"]], ids=" ".join)
def test_it_says_the_same(netns_pair: NetnsPair, words: list[str]) -> None:
    ours, other = run(netns_pair, words), run(netns_pair, words, through=["env"])
    assert (ours.returncode, ours.stdout, ours.stderr) == (other.returncode, other.stdout, other.stderr)


def test_a_signal_that_kills_it_is_seen(netns_pair: NetnsPair, tmp_path: Path) -> None:
    process = start(netns_pair, ["run", "-f", str(tmp_path), "--mode", "raw"], stderr=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.kill()
    assert process.wait(DEADLINE_S) == process.poll() == -signal.SIGKILL
    process.kill()  # of what has ended: nothing


def test_where_the_tests_end_it_is_killed(netns_pair: NetnsPair, pin_root: Path, tmp_path: Path) -> None:
    (tmp_path / "dos.yaml").write_text(documents(deny_list("203.0.113.0/24")))
    words = ["run", "-f", str(tmp_path), "--mode", "raw", "--pin-root", str(pin_root)]
    ended, held = os.pipe()

    def tests() -> None:
        process = start(netns_pair, words, stdout=held, stderr=subprocess.PIPE)
        assert any(APPLIED in line for line in process.stderr or ())
        assert process.poll() is None

    forked(tests)
    os.close(held)
    with open(ended, "rb") as output:
        assert select.select([output], [], [], DEADLINE_S)[0]
        assert output.read() == b""
