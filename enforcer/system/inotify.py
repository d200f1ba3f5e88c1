"""inotify(7): a descriptor that is readable after a change in the watched directories.

Through ctypes, which lets other threads run while a call waits: ``inotify_add_watch`` looks the path up, and on a file
server that does not answer that takes for ever.
"""

from __future__ import annotations

import ctypes
import os
import select
import stat
from collections.abc import Collection, Iterable

from enforcer.system.mounts import is_local, mount_points
from enforcer.system.stop import Stop

_LIBC = ctypes.CDLL(None, use_errno=True)

# linux/inotify.h: what changes a directory, or a file in it. Opening and reading do not.
_IN_MODIFY, _IN_ATTRIB, _IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
_IN_CREATE, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_IN_ONLYDIR = 0x0100_0000
_MASK = (
    _IN_MODIFY
    | _IN_ATTRIB
    | _IN_CLOSE_WRITE
    | _IN_MOVED_FROM
    | _IN_MOVED_TO
    | _IN_CREATE
    | _IN_DELETE
    | _IN_DELETE_SELF
    | _IN_MOVE_SELF
    | _IN_ONLYDIR
)
_EVENTS_BYTES = 1 << 16


class Inotify:
    """Watches directories, not what lies in directories below them. A context manager."""

    def __init__(self, folders: Iterable[str]) -> None:
        """Raises OSError with the path: it is gone (ENOENT), is no directory, or the limit of watches is reached."""
        self._fd = _checked(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify")
        try:
            for folder in folders:
                _checked(_LIBC.inotify_add_watch(self._fd, os.fsencode(folder), _MASK), folder)
        except OSError:
            os.close(self._fd)
            raise

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def wait(self, timeout_s: float, stop: Stop) -> bool:
        """Whether there was a change within ``timeout_s``; takes all events that have come. ``stop`` ends the wait."""
        poll = select.poll()
        for descriptor in (self._fd, stop.fileno()):
            poll.register(descriptor, select.POLLIN)
        return any(descriptor == self._fd for descriptor, _ in poll.poll(timeout_s * 1000)) and self._drain()

    def _drain(self) -> bool:
        try:
            while os.read(self._fd, _EVENTS_BYTES):
                pass
        except BlockingIOError:
            pass
        return True


def sees_all(files: Iterable[str], folders: Collection[str]) -> bool:
    """Whether each change of these files, by whatever path, is an event in one of these watched folders: they are on
    local file systems, and nothing leads to them from elsewhere (symbolic or hard links, mounted files).
    """
    try:
        links = any(os.path.realpath(folder) != folder for folder in folders)
        found = {path: os.lstat(path) for path in files}
        devices = {item.st_dev for item in found.values()} | {os.stat(folder).st_dev for folder in folders}
        return not (
            links
            or any(not stat.S_ISREG(item.st_mode) or item.st_nlink != 1 for item in found.values())
            or not all(map(is_local, devices))
            or not mount_points().isdisjoint(found)
        )
    except OSError:
        return False


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
