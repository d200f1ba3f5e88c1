"""Whether somebody is still writing a file: a half of it may be the half without the exceptions.

Two signs. The kernel grants a read lease only on a file that nobody has open for writing (fcntl(2) ``F_SETLEASE``,
``fs/locks.c`` ``check_conflicting_open``): certain, where the file is local and ours. And a file that was changed in
place is taken only after it has been left alone for a while: for writers that close and open it again, and for file
systems without leases. A file that is replaced with rename(2) needs neither.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Mapping

from enforcer.system.files import Identity

SETTLE_S = 2.0
PATIENCE_S = 5.0  # a file at work longer than this is said to be

# Their leases are refused for other reasons: no delegation, no oplock, no such thing.
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "virtiofs", "fuse")


def is_open_for_writing(path: str) -> bool:
    """Whether any process has the file open for writing; False where this cannot be known. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        # Who opens the file for writing while the lease is held waits until it is given back, at once, and the kernel
        # sends us a signal: by default SIGIO, which ends a process. SIGURG does nothing.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:  # EACCES: not ours, and no CAP_LEASE; EINVAL: no leases here
        return error.errno == errno.EAGAIN and not _is_remote(os.fstat(descriptor).st_dev)
    finally:
        os.close(descriptor)
    return False


class Writers:
    """Which files are being written, told from how they look each time they are looked at. Safe to use from threads."""

    def __init__(self) -> None:
        self._since_s: dict[str, tuple[Identity, float, float]] = {}  # as it looks now; since when; at work since when
        self._lock = threading.Lock()

    def is_at_work(self, path: str, now: Identity, taken: Identity | None) -> bool:
        """Whether the file is still being written. ``taken`` is how it looked when it was last read, None: never."""
        if now == taken:
            return False
        try:
            return is_open_for_writing(path) or self.is_settling(path, now, taken)
        except OSError:
            return False  # reading it says what is wrong

    def is_settling(self, path: str, now: Identity, taken: Identity | None) -> bool:
        """Whether the file was changed in place, and :meth:`note` heard of that only a moment ago."""
        if taken is None or now == taken or now[:2] != taken[:2]:
            return False  # another file: renamed there as a whole
        with self._lock:
            seen = self._since_s.get(path)
        return seen is not None and (seen[0] != now or time.monotonic() - seen[1] < SETTLE_S)

    def note(self, looks: Mapping[str, Identity]) -> None:
        """How files look that are not as they were last read."""
        now_s = time.monotonic()
        with self._lock:
            known, self._since_s = self._since_s, {}
            for path, look in looks.items():
                earlier, since_s, first_s = known.get(path, (look, now_s, now_s))
                self._since_s[path] = (look, since_s if earlier == look else now_s, first_s)

    def is_late(self, path: str) -> bool:
        """Whether it has been at work for longer than can be waited for without a word."""
        with self._lock:
            seen = self._since_s.get(path)
        return seen is not None and time.monotonic() - seen[2] >= PATIENCE_S


def _is_remote(device: int) -> bool:
    """Whether the file system is one of another machine or process, by what is mounted (proc_pid_mountinfo(5))."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                before, _, after = line.partition(" - ")
                if before.split(" ")[2] == wanted:
                    return after.split(" ")[0].partition(".")[0] in _REMOTE
    except (OSError, IndexError):
        return True  # not known: no proof
    return False
