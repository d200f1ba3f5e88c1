"""Detects files that are still being written: a partial policy may lack its exceptions.

Two checks. The kernel grants a read lease only on a file that no process has open for writing (fcntl(2) ``F_SETLEASE``,
``fs/locks.c`` ``check_conflicting_open``). This is certain where the file is local and ours. A file that was changed in
place is read only after it has been unchanged for a while: this covers writers that close and reopen it, and file
systems without leases. A file replaced with rename(2) needs neither check.
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
from enforcer.system.mounts import is_remote

SETTLE_S = 2.0
REPORT_AFTER_S = 5.0  # a file that is written for longer is reported


def is_open_for_writing(path: str) -> bool:
    """Whether any process has the file open for writing; False where this cannot be known. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        # A process that opens the file for writing while we hold the lease blocks until we release it, which is at
        # once. The kernel sends us a signal: by default SIGIO, which ends a process. SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:  # EACCES: not ours, and no CAP_LEASE; EINVAL: no leases here
        # Remote file systems refuse leases for other reasons: no delegation, no oplock, not supported.
        return error.errno == errno.EAGAIN and not is_remote(os.fstat(descriptor).st_dev)
    finally:
        os.close(descriptor)
    return False


class Writers:
    """Which files are being written, derived from how their identities change between checks. Thread-safe."""

    def __init__(self) -> None:
        self._since_s: dict[str, tuple[Identity, float, float]] = {}  # identity; its time; time of the first change
        self._lock = threading.Lock()

    def is_being_written(self, path: str, now: Identity, taken: Identity | None) -> bool:
        """Whether the file is still being written. ``taken``: its identity when last read, None if never read."""
        if now == taken:
            return False
        try:
            return is_open_for_writing(path) or self.is_settling(path, now, taken)
        except OSError:
            return False  # reading it says what is wrong

    def is_settling(self, path: str, now: Identity, taken: Identity | None) -> bool:
        """Whether the file was changed in place and :meth:`note` saw the change only a moment ago."""
        if taken is None or now == taken or now[:2] != taken[:2]:
            return False  # another file: replaced by rename(2)
        with self._lock:
            seen = self._since_s.get(path)
        return seen is not None and (seen[0] != now or time.monotonic() - seen[1] < SETTLE_S)

    def note(self, looks: Mapping[str, Identity]) -> None:
        """Record the identities of files that differ from what was last read."""
        now_s = time.monotonic()
        with self._lock:
            known, self._since_s = self._since_s, {}
            for path, look in looks.items():
                earlier, since_s, first_s = known.get(path, (look, now_s, now_s))
                self._since_s[path] = (look, since_s if earlier == look else now_s, first_s)

    def is_overdue(self, path: str) -> bool:
        """Whether it has been written for so long that this must be reported."""
        with self._lock:
            seen = self._since_s.get(path)
        return seen is not None and time.monotonic() - seen[2] >= REPORT_AFTER_S
