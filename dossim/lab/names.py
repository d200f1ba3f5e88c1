"""Names of a lab's namespaces and pins, and the remains of killed labs.

A lab's name carries its owner's process id and start time, so that the next lab can tell a dead owner from a living one
even when the id was reused. :func:`reap` removes what a killed drill left: namespaces, pins, temporary files.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from pyroute2 import netns

from enforcer.kernel.netns import unshare
from enforcer.system.signals import held

PREFIX = "dossim"
NETNS_DIR = Path("/run/netns")
PIN_ROOT = Path("/sys/fs/bpf/dossim")
_NAME = re.compile(rf"^{PREFIX}-(?P<pid>\d+)-(?P<start>\d+)-\d+(?:-(?:victim|peer))?$")
_counter = itertools.count()


def new_name() -> str:
    """A name no other lab of any process has: ``dossim-<pid>-<start time>-<n>``."""
    pid = os.getpid()
    return f"{PREFIX}-{pid}-{_start_time(pid)}-{next(_counter)}"


def pin_root(name: str) -> Path:
    """Where the enforcer of this lab pins: apart from a host's own enforcer, and from other labs."""
    return PIN_ROOT / name


def make_namespace(name: str, stack: ExitStack) -> None:
    """A network namespace, which the exit stack removes; no signal can arrive in between."""
    with held(), ThreadPoolExecutor(1) as thread:
        thread.submit(_create, name).result()
        stack.callback(netns.remove, name)


def _create(name: str) -> None:
    """In a thread that ends afterwards. (pyroute2's netns.create forks the process instead, which costs more the larger
    it is.)
    """
    unshare()
    netns.attach(name, threading.get_native_id())


def reap() -> tuple[str, ...]:
    """Remove namespaces, pins and temporary files whose owner is gone; the names of what was removed."""
    removed = []
    for directory, remove in ((NETNS_DIR, netns.remove), (PIN_ROOT, remove_pins), (_temporary(), _remove_scratch)):
        for name in sorted(_names_in(directory)):
            if not _alive(name):
                with suppress(OSError):  # another drill may be reaping the same
                    remove(name)
                    removed.append(name)
    return tuple(removed)


def remove_pins(name: str) -> None:
    """Unpin everything of a lab; the last reference to a link detaches it."""
    with suppress(FileNotFoundError):
        shutil.rmtree(pin_root(name))
    with suppress(OSError):  # not empty: other labs are running
        PIN_ROOT.rmdir()


def scratch(name: str) -> Path:
    """A directory for temporary files; :func:`reap` removes it if its owner is killed."""
    path = _temporary() / name
    path.mkdir(mode=0o700)
    return path


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _remove_scratch(name: str) -> None:
    shutil.rmtree(_temporary() / name)


def _names_in(directory: Path) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if _NAME.match(name)]
    except FileNotFoundError:
        return []


def _alive(name: str) -> bool:
    match = _NAME.match(name)
    assert match
    return _start_time(int(match["pid"])) == int(match["start"])


def _start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat (clock ticks since boot), -1 when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    return int(stat.rpartition(")")[2].split()[19])
