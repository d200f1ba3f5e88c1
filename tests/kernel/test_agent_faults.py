"""One running agent, and one fault after the other: what was enforced stays, the log names each fault once, and
repaired objects are enforced again.

The agent runs without the capabilities that bypass file permissions (CAP_DAC_*), as in the unit.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.conftest import NetnsPair
from tests.kernel.enforcer_support import (
    ALLOWED,
    APPLIED,
    DENIED,
    Agent,
    Traffic,
    agent,
    deny_list,
    documents,
    endpoint,
    policy,
    traffic,
)

pytestmark = pytest.mark.needs_root

ALSO_DENIED = "192.0.2.7"
WITHOUT_DAC = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
MORE = deny_list("192.0.2.0/24").replace("bots", "others")


@dataclass(frozen=True)
class Scene:
    """The agent's files: ``folder/more/list.yaml`` has the list, ``folder/dos.yaml`` everything else."""

    folder: Path
    pin_root: Path
    running: Agent
    namespace: str

    @property
    def list(self) -> Path:
        return self.folder / "more" / "list.yaml"

    @property
    def scratch(self) -> Path:
        return self.folder.parent / "scratch"

    @property
    def pid(self) -> int:
        return self.running.process.pid

    def put(self, path: Path, text: str | bytes) -> None:
        """Replaces a file atomically."""
        self.scratch.write_bytes(text.encode() if isinstance(text, str) else text)
        self.scratch.replace(path)


Fault = Callable[[Scene], "contextmanager[None]"]  # the fault exists inside the block


def mode_000(scene: Scene, path: Path) -> Iterator[None]:
    mode = path.stat().st_mode
    path.chmod(0)
    yield
    path.chmod(mode)


def folder_unreadable(scene: Scene) -> Iterator[None]:
    yield from mode_000(scene, scene.list.parent)


def file_unreadable(scene: Scene) -> Iterator[None]:
    yield from mode_000(scene, scene.list)


def root_unreadable(scene: Scene) -> Iterator[None]:
    yield from mode_000(scene, scene.folder)


def root_gone(scene: Scene) -> Iterator[None]:
    aside = scene.folder.with_name("aside")
    scene.folder.rename(aside)
    yield
    aside.rename(scene.folder)


def root_empty(scene: Scene) -> Iterator[None]:
    aside = scene.folder.with_name("aside")
    scene.folder.rename(aside)
    scene.folder.mkdir()
    yield
    aside.rename(scene.folder)


def link_to_nowhere(scene: Scene) -> Iterator[None]:
    link = scene.list.parent
    target = link.readlink()
    for other in ("nowhere", target):
        scene.scratch.symlink_to(other)
        scene.scratch.replace(link)
        if other != target:
            yield


def link_to_itself(scene: Scene) -> Iterator[None]:
    yield from instead(scene, lambda path: path.symlink_to(scene.list.name))


def fifo(scene: Scene) -> Iterator[None]:
    yield from instead(scene, os.mkfifo)


def device(scene: Scene) -> Iterator[None]:
    yield from instead(scene, lambda path: path.symlink_to("/dev/zero"))


def unix_socket(scene: Scene) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        yield from instead(scene, lambda path: listener.bind(str(path)))


def endless_pseudo_file(scene: Scene) -> Iterator[None]:
    yield from instead(scene, lambda path: path.symlink_to("/proc/kmsg"))


def huge(scene: Scene) -> Iterator[None]:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(1 << 40)

    yield from instead(scene, make)


def instead(scene: Scene, make: Callable[[Path], object]) -> Iterator[None]:
    """Replaces the list atomically by something else."""
    make(scene.scratch)
    scene.scratch.replace(scene.list)
    yield
    scene.put(scene.list, MORE)


def other_text(scene: Scene, text: str | bytes) -> Iterator[None]:
    scene.put(scene.list, text)
    yield
    scene.put(scene.list, MORE)


def not_yaml(scene: Scene) -> Iterator[None]:
    yield from other_text(scene, "kind: [")


def not_text(scene: Scene) -> Iterator[None]:
    yield from other_text(scene, b"\xff\xfe\x00")


def not_enforceable(scene: Scene) -> Iterator[None]:
    scene.put(scene.folder / "dos.yaml", documents(endpoint(), deny_list("203.0.113.0/24"), policy(SERVICES)))
    yield
    scene.put(scene.folder / "dos.yaml", documents())


SERVICES = "{action: Deny, source: {services: {name: web, namespace: shop}}}"


def odd_name(scene: Scene) -> Iterator[None]:
    path = os.fsencode(scene.folder) + b"/caf\xe9\n\x1b[2J.yaml"
    with open(path, "w") as file:
        file.write("kind: [")
    yield
    os.unlink(path)


def half_written(scene: Scene) -> Iterator[None]:
    with (scene.folder / "dos.yaml").open("w") as file:
        file.write(endpoint() + "\n---\n")
        file.flush()
        yield
        file.write(documents(deny_list("203.0.113.0/24"), policy()))


def limited(scene: Scene, what: int, number: int) -> Iterator[None]:
    before = resource.prlimit(scene.pid, what)
    resource.prlimit(scene.pid, what, (number, before[1]))
    scene.put(scene.folder / "dos.yaml", documents())
    yield
    resource.prlimit(scene.pid, what, before)
    scene.put(scene.folder / "dos.yaml", documents())


def no_descriptors(scene: Scene) -> Iterator[None]:
    yield from limited(scene, resource.RLIMIT_NOFILE, 4)


def no_memory(scene: Scene) -> Iterator[None]:
    pages = int(Path(f"/proc/{scene.pid}/statm").read_text().split()[0])
    yield from limited(scene, resource.RLIMIT_AS, pages * resource.getpagesize() + (1 << 20))


def no_room_for_the_state(scene: Scene) -> Iterator[None]:
    yield from limited(scene, resource.RLIMIT_FSIZE, 0)


def lock_held(scene: Scene) -> Iterator[None]:
    inode = os.stat(f"/run/netns/{scene.namespace}").st_ino
    with open(f"/run/enforcer/netns-{inode}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scene.put(scene.folder / "dos.yaml", documents())
        yield
        os.unlink(lock.name)


def pins_unreadable(scene: Scene) -> Iterator[None]:
    mode = scene.pin_root.stat().st_mode
    scene.pin_root.chmod(0)
    scene.put(scene.folder / "dos.yaml", documents())
    yield
    scene.pin_root.chmod(mode)


HEALTHY = "recovered: the whole policy"
RECOVERED = "recovered: everything is enforced again"

# the fault, how it is created, what is logged, what is logged when it is over
FAULTS = [
    ("a directory cannot be read", folder_unreadable, "more: cannot be read: Permission denied", HEALTHY),
    ("a file cannot be read", file_unreadable, "list.yaml: cannot be read: Permission denied", HEALTHY),
    ("the whole directory cannot be read", root_unreadable, "policy: cannot be read: Permission denied", HEALTHY),
    ("the whole directory is gone", root_gone, "policy: cannot be read: No such file", HEALTHY),
    ("the whole directory is empty", root_empty, "policy: no file here ends in", HEALTHY),
    ("a directory is a link to nowhere", link_to_nowhere, "more: cannot be read: No such file", HEALTHY),
    ("a file is a link to itself", link_to_itself, "list.yaml: cannot be read: Too many levels", HEALTHY),
    ("a FIFO in place of a file", fifo, "list.yaml: not a regular file but a FIFO", HEALTHY),
    ("a socket in place of a file", unix_socket, "list.yaml: not a regular file but a socket", HEALTHY),
    ("a device without end", device, "list.yaml: not a regular file but a character device", HEALTHY),
    ("a pseudo file that waits", endless_pseudo_file, "list.yaml: cannot be read", HEALTHY),
    ("a file larger than memory", huge, "list.yaml: larger than", HEALTHY),
    ("a file that is no YAML", not_yaml, "list.yaml:2:1: not YAML", HEALTHY),
    ("a file that is no text", not_text, "list.yaml:1:1: not text", HEALTHY),
    ("a rule nothing can enforce", not_enforceable, "policy cannot be enforced", APPLIED),
    ("a name of control characters", odd_name, "[2J.yaml:2:1: not YAML", HEALTHY),
    ("a file is being written", half_written, "dos.yaml: is still open for writing", HEALTHY),
    ("no descriptor is left", no_descriptors, "not everything is enforced", RECOVERED),
    ("no memory is left", no_memory, "not everything is enforced", RECOVERED),
    ("no room for the last good state", no_room_for_the_state, "cannot store the last good policy on disk", APPLIED),
    ("another has the lock", lock_held, "waiting for another enforcer", APPLIED),
    ("the pins cannot be read", pins_unreadable, "not everything is enforced", RECOVERED),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (path / "more").symlink_to(tmp_path / "elsewhere")
    (path / "more" / "list.yaml").write_text(MORE)
    (path / "dos.yaml").write_text(documents())
    return path


@pytest.mark.long
def test_no_fault_ends_or_blinds_a_living_agent(host: NetnsPair, pin_root: Path, folder: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(tmp_path / "notify"))
        wire = stack.enter_context(traffic(host))
        running = stack.enter_context(
            agent(host, pin_root, folder, through=WITHOUT_DAC, NOTIFY_SOCKET=str(tmp_path / "notify"))
        )
        running.expect(APPLIED)
        scene = Scene(folder, pin_root, running, host.host_name)
        for what, inject, says, healed in FAULTS:
            print(what)
            before = len(running.lines)
            with contextmanager(inject)(scene):
                running.expect(says)
                assert_enforced(wire)
                assert running.process.poll() is None, what
            running.expect(healed)
            errors = [line.partition("level=error ")[2] for line in running.lines[before:] if "level=error" in line]
            assert len(errors) == len(set(errors)), f"{what}: said more than once"
            assert_enforced(wire)
        assert_follows(scene, wire)
        assert all(line.rstrip("\n").isprintable() for line in running.lines)
        assert running.end(signal.SIGTERM) == 0


def assert_enforced(wire: Traffic) -> None:
    assert wire.arrivals(DENIED, ALSO_DENIED, ALLOWED) == [ALLOWED]


def assert_follows(scene: Scene, wire: Traffic) -> None:
    """After all faults, the agent still follows its files."""
    scene.put(scene.list, deny_list("198.51.100.0/24").replace("bots", "others"))
    while "changes=0" in scene.running.expect(APPLIED):
        pass
    assert wire.arrivals(DENIED, ALLOWED, ALSO_DENIED) == [ALSO_DENIED]
