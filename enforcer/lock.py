"""One pass at a time: two enforcers must not interleave their changes to one network namespace."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enforcer.errors import PrivilegeError
from enforcer.kernel.netns import current_inode
from enforcer.log import event

DIRECTORY = Path("/run/enforcer")


@contextmanager
def namespace_lock(directory: Path = DIRECTORY) -> Iterator[None]:
    """Holds the lock of the calling thread's network namespace; waits for whoever has it. Leaves no file behind."""
    path = directory / f"netns-{current_inode()}.lock"
    descriptor = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            event(logging.INFO, "waiting for another enforcer to finish its pass", lock=path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_current(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder removed the file: the lock is now another file of that name


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise PrivilegeError(f"{path}: cannot be opened ({error.strerror}); run as root") from error


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
