"""What a host may withhold: a BPF file system that stays, a writable one, a /run with room. Raw is in place anyway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.apply import Enforcer
from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import ALLOWED, DENIED, NODE, documents, run, traffic

pytestmark = pytest.mark.needs_root

# In a mount namespace of its own, which the kernel takes down with the last process in it.
ALONE = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
IN_VAIN = "the BPF file system on /sys/fs/bpf is mounted in this mount namespace alone"
UNPRIVILEGED = "setpriv --bounding-set=-all,+net_admin,+net_raw,+bpf,+perfmon --inh-caps=-all"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "dos.yaml"
    file.write_text(documents())
    return file


def prepared(script: str) -> list[str]:
    """The words that prepare a mount namespace and then start a command in it."""
    return [*ALONE, f'{script}; exec "$@"', "sh"]


@pytest.mark.parametrize(
    ("script", "warned"),
    [
        pytest.param("mount -t bpf bpf /sys/fs/bpf", True, id="mounted inside"),
        pytest.param("true", False, id="the host's"),
        pytest.param(
            f"mount --make-rshared /; exec unshare --mount --propagation slave sh -ec 'mount -t bpf bpf /sys/fs/bpf; "
            f'exec {UNPRIVILEGED} "$@"\' sh "$@"',
            True,
            id="mounted inside, and the first process cannot be looked at",
        ),
        pytest.param(
            f'mount --make-rshared /; exec unshare --mount --propagation slave {UNPRIVILEGED} "$@"',
            False,
            id="the host's, and the first process cannot be looked at",
        ),
        pytest.param(f'exec {UNPRIVILEGED} "$@"', False, id="nothing can be told"),
    ],
)
def test_pins_that_will_not_stay_are_warned_of(
    netns_pair: NetnsPair, pin_root: Path, policy: Path, script: str, warned: bool
) -> None:
    words = ["apply", "-f", str(policy), "--node", NODE, "--pin-root", str(pin_root)]
    done = run(netns_pair, words, through=prepared(script))
    assert done.returncode == 0, done.stderr
    assert (IN_VAIN in done.stderr) is warned
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        pytest.param("mount -o remount,bind,ro /sys/fs/bpf", "EROFS", id="a BPF file system that is read-only"),
        pytest.param(
            f'umount /sys/fs/bpf; exec {UNPRIVILEGED} "$@"',
            "there is no BPF file system on /sys/fs/bpf, and mounting it needs CAP_SYS_ADMIN",
            id="none, and no privilege to mount one",
        ),
    ],
)
def test_raw_is_in_place_where_nothing_can_be_pinned(
    netns_pair: NetnsPair, pin_root: Path, policy: Path, script: str, says: str
) -> None:
    words = ["apply", "-f", str(policy), "--node", NODE, "--pin-root", str(pin_root)]
    done = run(netns_pair, words, through=prepared(script))
    assert done.returncode == 0, done.stderr
    assert "enforced at raw" in done.stdout
    assert says in done.stdout
    with traffic(netns_pair) as wire:
        assert wire.arrivals(DENIED, ALLOWED) == [ALLOWED]


def test_what_is_pinned_already_is_enforced_further_where_nothing_can_be_changed(
    netns_pair: NetnsPair, pin_root: Path, policy: Path
) -> None:
    words = ["apply", "-f", str(policy), "--node", NODE, "--pin-root", str(pin_root)]
    assert run(netns_pair, words).returncode == 0
    policy.write_text(documents().replace("203.0.113.0/24", "203.0.112.0/23"))
    try:
        done = run(netns_pair, words, through=prepared("mount -o remount,bind,ro /sys/fs/bpf"))
        assert done.returncode == 0, done.stderr
        with traffic(netns_pair) as wire:
            assert wire.arrivals(DENIED, "203.0.112.9", ALLOWED) == [ALLOWED]
    finally:
        with netns_pair.host():
            Enforcer(NODE, pin_root=pin_root).detach()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("mount -t tmpfs -o ro none /run", id="read-only"),
        pytest.param("mount -t tmpfs -o size=4k,nr_inodes=1 none /run", id="full"),
        pytest.param("mount -t tmpfs -o size=4k none /run; mkdir /run/enforcer; mount -o remount,ro /run", id="later"),
    ],
)
def test_a_run_without_room_is_no_obstacle(netns_pair: NetnsPair, pin_root: Path, policy: Path, script: str) -> None:
    words = ["apply", "-f", str(policy), "--node", NODE, "--pin-root", str(pin_root)]
    done = run(netns_pair, words, through=prepared(script))
    assert done.returncode == 0, done.stderr
    assert "enforced at driver" in done.stdout
    assert "the lock's file cannot be made; the network namespace is locked instead" in done.stderr
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()


LOCKED_TWICE = """
import os, sys, threading
from pathlib import Path
from enforcer.lock import namespace_lock
inside, most = [], []
def work():
    for _ in range(50):
        with namespace_lock(Path("/run/enforcer")):
            inside.append(1); most.append(len(inside)); inside.pop()
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print(set(most), len(most))
"""


def test_passes_do_not_overlap_without_a_file_either(netns_pair: NetnsPair) -> None:
    words = [*prepared("mount -t tmpfs -o ro none /run"), sys.executable, "-c", LOCKED_TWICE]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "{1} 200\n"
