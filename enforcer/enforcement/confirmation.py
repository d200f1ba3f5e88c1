"""A change that is rolled back unless somebody confirms it in time: the marker that says so, in /run/enforcer.

There is one marker for a network namespace. Its name tells its state, and only rename(2) and unlink(2) change that, so
that of several processes exactly one decides::

    netns-INODE.pending       waits until a time of CLOCK_BOOTTIME; whoever makes the change holds its lock
        unlink                confirmed
        rename                  ▼
    netns-INODE.rolled-back   nobody confirmed. An agent does not switch on again while it is there

What cannot be read counts as not confirmed. /run is empty after a boot, as the kernel is.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from enforcer.kernel.lock import DIRECTORY
from enforcer.kernel.netns import current_inode
from enforcer.model.errors import HostError, UsageError
from enforcer.model.vocabulary import Word
from enforcer.system import directories, files
from enforcer.system.log import event

_SO_NETNS_COOKIE = 71
_MAX_BYTES = 1 << 12


class TrialState(Word):
    """``KILLED``: the command that waits for the confirmation was killed, so that nothing watches the time."""

    PENDING = "pending"
    KILLED = "killed"
    ROLLED_BACK = "rolled-back"


@dataclass(frozen=True)
class Trial:
    """What is on trial in a network namespace, or was. ``left_s``: until it is rolled back, less than 0 once that is
    overdue; ``pid``: the process that put it on trial, 0 if unknown.
    """

    state: TrialState
    left_s: float
    pid: int

    @property
    def until(self) -> str:
        """The end of the time to confirm, by the clock, in RFC 3339 format."""
        end = datetime.now(timezone.utc) + timedelta(seconds=self.left_s)
        return end.isoformat(timespec="seconds").replace("+00:00", "Z")


def trial_here(directory: Path = DIRECTORY) -> Trial | None:
    """The trial of the network namespace that the calling thread is in, None without one. Changes nothing."""
    name, namespace = f"netns-{current_inode()}", _cookie()
    for path in (directory / f"{name}.pending", directory / f"{name}.rolled-back"):
        record = _read(path)
        if record is None or _is_of_another(record, namespace):
            continue
        left_s = record.get("until_boottime_s", 0.0) - now_s()
        if path.suffix == ".pending":
            state = TrialState.PENDING if _is_held(path) else TrialState.KILLED
        else:
            state = TrialState.ROLLED_BACK
        return Trial(state, left_s, int(record.get("pid", 0)))
    return None


class Confirmation:
    """The marker of the network namespace that the calling thread is in when this is made."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory
        name = f"netns-{current_inode()}"
        self._namespace = _cookie()
        self._new = f".{name}.pending"
        self._pending, self._rolled_back = directory / f"{name}.pending", directory / f"{name}.rolled-back"
        self._descriptor: int | None = None
        self._forget_others()

    def require_free(self) -> None:
        """Raises UsageError while another process waits for a confirmation here."""
        if _is_held(self._pending):
            raise UsageError(
                "another 'enforcer apply' waits for a confirmation in this network namespace: run 'enforcer "
                "confirm', or wait until it has rolled back"
            )

    def begin(self, within_s: float) -> None:
        """From now on a confirmation is waited for. Raises UsageError as :meth:`require_free`, HostError where the
        marker cannot be written.
        """
        self.require_free()
        record = {"until_boottime_s": now_s() + within_s, "namespace": self._namespace, "pid": os.getpid()}
        try:
            with directories.opened(self._directory, 0o755) as folder:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                self._descriptor = os.open(self._new, flags, 0o600, dir_fd=folder)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(self._descriptor, json.dumps(record).encode())
                os.rename(self._new, self._pending.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            raise HostError(
                f"{self._pending}: cannot be written ({error.strerror}); without it nothing could be rolled back"
            ) from error
        _remove(self._rolled_back)

    def until_s(self) -> float | None:
        """The end of the time to confirm, on CLOCK_BOOTTIME; None when nothing waits for it. What cannot be read has
        ended.
        """
        record = _read(self._pending)
        return record if record is None else float(record.get("until_boottime_s", 0.0))

    def confirm(self) -> bool:
        """The change stays. False when nothing waits for a confirmation. Raises HostError where the marker stays."""
        if self.until_s() is None:
            return False
        try:
            self._pending.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostError(f"{self._pending}: cannot be removed ({error.strerror})") from error
        return True

    def claim(self) -> bool:
        """The change is to be rolled back; False when it was confirmed, or another process rolls it back.

        A marker that cannot be changed is claimed: rolled back twice is better than never.
        """
        try:
            os.rename(self._pending, self._rolled_back)
        except FileNotFoundError:
            return False
        except OSError as error:
            event(logging.ERROR, "the marker of a change on trial cannot be renamed", file=self._pending, problem=error)
        return True

    def was_rolled_back(self) -> bool:
        return _read(self._rolled_back) is not None

    def forget(self) -> None:
        """No marker is left, whatever it said."""
        for path in (self._pending, self._rolled_back):
            _remove(path)
        self.close()

    def close(self) -> None:
        """Another process may begin."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _forget_others(self) -> None:
        """The markers of namespaces that have ended."""
        for path in (self._pending, self._rolled_back):
            record = _read(path)
            if record and _is_of_another(record, self._namespace):
                _remove(path)


def now_s() -> float:
    """CLOCK_BOOTTIME, which goes on while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _read(path: Path) -> dict[str, float] | None:
    """What a marker says, nothing where it cannot be read; None where there is none, or others could have made it."""
    try:
        directories.is_there(path.parent)
        found = json.loads(files.read(str(path), limit_bytes=_MAX_BYTES))
        return {name: float(value) for name, value in found.items()}
    except (FileNotFoundError, directories.UnusableDirectoryError):
        return None
    except (OSError, HostError, ValueError, TypeError, AttributeError, files.UnreadableError):
        return {}


def _is_held(path: Path) -> bool:
    """Whether the process that made a marker still runs. Its lock is tested by taking it, shared, for a moment."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_of_another(record: dict[str, float], namespace: int) -> bool:
    """Whether a marker is of a network namespace that has ended: the kernel gives its inode to another one."""
    return bool(namespace) and record.get("namespace", namespace) != namespace


def _remove(path: Path) -> None:
    if not path.exists():  # on a read-only file system unlink(2) fails even where there is nothing
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{path}: cannot be removed ({error.strerror})") from error


def _cookie() -> int:
    """A number that no other network namespace has or will have; 0 where the kernel has none (before 5.14)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as conn:
        try:
            return int.from_bytes(conn.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError:
            return 0
