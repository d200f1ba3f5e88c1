"""Boots a tree: systemd is process 1 of namespaces of its own, and runs the service as on a host."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import DEADLINE_S
from tests.package.service import namespace
from tools.package.base import Tree, environment_of

# $0: the root. systemd needs a root that is a mount, devices, and a cgroup. Pins are those of this machine alone.
BOOT = """
set -e
mount --make-rprivate /
mount --bind "$0" "$0"
cd "$0"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t bpf bpf sys/fs/bpf
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do cp -a "/dev/$name" dev; done
mkdir dev/pts dev/shm run/old
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . run/old
umount -l /run/old
mount --make-rshared /
exec /lib/systemd/systemd systemd.unified_cgroup_hierarchy=1
"""


class Machine:
    """``init``: the process number of its systemd."""

    def __init__(self, init: int) -> None:
        self._enter = ["nsenter", "--target", str(init), "--all", "--root", "--wdns=/"]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._enter, *words], capture_output=True, text=True, check=False, env=environment_of(), timeout=300
        )

    def must(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def main_process(self) -> int:
        return int(self.must("systemctl", "show", "--property=MainPID", "--value", "enforcer"))

    def is_active(self) -> bool:
        return self.run("systemctl", "is-active", "enforcer").returncode == 0


@contextmanager
def booted(tree: Tree, pair: NetnsPair) -> Iterator[Machine]:
    """Once all its units have been started (or could not be); everything in it is killed afterwards."""
    with _cgroup() as group:
        into = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        enter = ["nsenter", f"--net={namespace(pair)}"]
        apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup"]
        words = ["sh", "-c", into, "sh", *enter, *apart, "sh", "-c", BOOT, str(tree.path)]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(words, stdout=said, stderr=said, env=environment_of(container="other"))
            try:
                yield Machine(_wait_until_running(process, said.fileno()))
            finally:
                process.kill()
                process.wait()


def _wait_until_running(process: subprocess.Popen[bytes], said: int) -> int:
    deadline = time.monotonic() + DEADLINE_S
    answer = "nothing"
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n":
            answer = Machine(int(children[0])).run("systemctl", "is-system-running").stdout.strip()
            if answer in ("running", "degraded"):  # a unit of the system may want what a container lacks
                return int(children[0])
        time.sleep(0.1)
    raise AssertionError(f"systemd does not run ({answer}):\n{os.pread(said, 10000, 0).decode()}")


@contextmanager
def _cgroup() -> Iterator[Path]:
    """A cgroup of its own, removed with all below it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", folder], check=True)
        group = Path(folder) / f"enforcer-package-{os.getpid()}"
        group.mkdir()
        try:
            yield group
        finally:
            deadline = time.monotonic() + DEADLINE_S
            while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            for below in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                below.rmdir()
            group.rmdir()
            subprocess.run(["umount", "--lazy", folder], check=True)
