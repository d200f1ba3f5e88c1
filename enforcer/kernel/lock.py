"""The lock of a network namespace: two enforcers must not interleave their changes to it.

The lock is a file that only root can open. If it cannot be created (/run is full or read-only), or other users could
remove it, the network namespace itself is locked: its inode also accepts flock(2), but from any process in the
namespace, so it is the second choice.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from enforcer.kernel.netns import OWN, current_inode
from enforcer.model.errors import HostError, PrivilegeError
from enforcer.system import directories
from enforcer.system.log import event

DIRECTORY = Path("/run/enforcer")

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.001, 0.05
_PATIENCE_AT_THE_END_S = 0.5
_warned: set[str] = set()
_telling = threading.Lock()


@contextmanager
def namespace_lock(directory: Path = DIRECTORY, *, stopping: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock of the calling thread's network namespace. Waits for the present holder, and leaves no file behind.

    Raises HostError if another process still holds the lock shortly after ``stopping`` was set.
    """
    path = directory / f"netns-{current_inode()}.lock"
    descriptor = _acquire(path, stopping)
    try:
        yield
    finally:
        if is_current(path, descriptor):
            with suppress(OSError):  # /run may be read-only by now
                path.unlink()
        os.close(descriptor)


def _acquire(path: Path, stopping: threading.Event | None) -> int:
    while True:
        descriptor = open_lock_file(path)
        is_file = descriptor is not None
        if descriptor is None:
            descriptor = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _wait_for(descriptor, path, stopping)
        except BaseException:
            os.close(descriptor)
            raise
        if not is_file or is_current(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder removed the file: the lock is now a new file of that name


def _wait_for(descriptor: int, name: Path | str, stopping: threading.Event | None) -> None:
    """Wait by polling, because a thread that sleeps in flock(2) cannot be woken."""
    pause_s = _FIRST_PAUSE_S
    give_up_s: float | None = None
    said = False
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if not said:
            event(logging.INFO, "waiting for another enforcer to finish its pass", lock=name)
            said = True
        if stopping is not None and stopping.is_set():
            give_up_s = give_up_s or time.monotonic() + _PATIENCE_AT_THE_END_S
            if time.monotonic() >= give_up_s:
                raise HostError(f"{name}: held by another enforcer, and there is no time left to wait for it")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)


def open_lock_file(path: Path) -> int | None:
    """A descriptor of the lock file; None if it cannot be created, or other users could remove it."""
    try:
        with directories.opened(path.parent, 0o755) as folder:
            return os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    except (HostError, OSError) as error:
        number = getattr(error, "errno", 0)
        if number in (errno.EPERM, errno.EACCES):
            raise PrivilegeError(f"{path}: cannot be opened ({os.strerror(number)}); run as root") from error
        _warn_once(str(error))
        return None


def _warn_once(problem: str) -> None:
    """Warn once, even if several threads find out at the same time."""
    with _telling:
        if problem in _warned:
            return
        _warned.add(problem)
    event(logging.WARNING, "there can be no lock file; the network namespace is locked instead", problem=problem)


def is_current(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False
