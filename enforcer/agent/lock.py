"""One agent at a time in a network namespace.

An agent holds a lock as long as it lives, beside that of each pass (:mod:`enforcer.kernel.lock`), and says in its file
who it is. The lock is the kernel's and ends with the process, however that ends; a file that nobody has locked says
nothing, so neither a stale file nor a process number in use again can stand for an agent. It is an open file
description lock (fcntl(2)), since of those one can ask without taking them for a moment, which would keep an agent that
starts just then from it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from enforcer.kernel.lock import DIRECTORY, is_current, open_lock_file
from enforcer.kernel.netns import current_inode
from enforcer.model.errors import AgentRunsError, PrivilegeError
from enforcer.system import directories
from enforcer.system.log import event

_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length (0: to the end), pid
_LARGEST_RECORD = 1 << 16


@dataclass(frozen=True)
class AgentRecord:
    """The agent of a network namespace. ``since`` is a time as RFC 3339 has it, ``policy`` where it reads policy."""

    pid: int
    since: str
    node: str
    policy: str

    def __str__(self) -> str:
        return f"an agent (pid {self.pid}, since {self.since}, node {self.node}, policy from {self.policy})"


_UNKNOWN = AgentRecord(0, "?", "?", "?")


@contextmanager
def agent_lock(record: AgentRecord, directory: Path = DIRECTORY) -> Iterator[None]:
    """Makes the calling process the agent of the calling thread's network namespace. Leaves no file behind.

    Raises AgentRunsError when there is one already.
    Where no file can be made (/run full, or read-only) nobody is excluded, which is said.
    """
    path = _agent_path(directory)
    descriptor = _become_agent(path, record)
    if descriptor is None:  # to enforce matters more than to be alone
        event(logging.WARNING, "no lock file can be made: another agent here would not be noticed", file=path)
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # the file system may be read-only by now
            path.unlink()
        os.close(descriptor)


def _become_agent(path: Path, record: AgentRecord) -> int | None:
    """A descriptor of the file, locked; None where there can be no file. Raises AgentRunsError."""
    while (descriptor := open_lock_file(path)) is not None:
        try:
            if _try_lock(descriptor):
                if is_current(path, descriptor):
                    with suppress(OSError):  # no room: it is locked all the same
                        os.truncate(descriptor, 0)
                        os.pwrite(descriptor, json.dumps(asdict(record)).encode(), 0)
                    return descriptor
            elif running := running_agent(path.parent):  # else it has ended since
                raise AgentRunsError(
                    f"{running} enforces in this network namespace already; two would undo each other's work: "
                    "stop that one first"
                )
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def running_agent(directory: Path = DIRECTORY) -> AgentRecord | None:
    """The agent of the calling thread's network namespace, None when none runs. A directory that others can write to
    tells nothing: no agent has its lock there.
    """
    try:
        if not directories.is_there(directory):
            return None
        descriptor = os.open(_agent_path(directory), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (directories.UntrustedDirectoryError, FileNotFoundError):
        return None
    except PermissionError as error:
        raise PrivilegeError(f"{_agent_path(directory)}: cannot be read ({error.strerror}); run as root") from error
    try:
        if not _is_locked(descriptor):
            return None
        return _decode(os.pread(descriptor, _LARGEST_RECORD, 0))
    finally:
        os.close(descriptor)


def _agent_path(directory: Path) -> Path:
    return directory / f"netns-{current_inode()}.agent"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def _is_locked(descriptor: int) -> bool:
    """Whether any other open file has it locked."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _decode(data: bytes) -> AgentRecord:
    """What an agent says of itself; one that has its lock, but has not said it yet, is one all the same."""
    try:
        fields = json.loads(data)
        return AgentRecord(int(fields["pid"]), str(fields["since"]), str(fields["node"]), str(fields["policy"]))
    except (ValueError, KeyError, TypeError):
        return _UNKNOWN
