"""One agent at a time in a network namespace.

An agent holds a lock for its lifetime, in addition to the lock of each pass (:mod:`enforcer.kernel.lock`), and writes
its identity into the lock file. The kernel releases the lock when the process ends, so neither a stale file nor a
reused pid is taken for an agent. It is an open file description lock (fcntl(2)): F_OFD_GETLK tests such a lock without
taking it. Taking it, even briefly, could reject an agent that starts at that moment.
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
    """The agent of a network namespace. ``since``: its start, in RFC 3339 format; ``policy``: where it reads policy."""

    pid: int
    since: str
    node: str
    policy: str

    def __str__(self) -> str:
        return f"an agent (pid {self.pid}, since {self.since}, node {self.node}, policy from {self.policy})"


_UNKNOWN = AgentRecord(0, "?", "?", "?")


@contextmanager
def agent_lock(record: AgentRecord, directory: Path = DIRECTORY) -> Iterator[None]:
    """Make the calling process the agent of the calling thread's network namespace. Leaves no file behind.

    Raises AgentRunsError when another agent runs. Where no lock file can be created (/run full or read-only) a second
    agent is not rejected; this is logged.
    """
    path = _agent_path(directory)
    descriptor = _become_agent(path, record)
    if descriptor is None:  # enforcing matters more than being the only agent
        event(logging.WARNING, "cannot create the lock file: a second agent would not be detected", file=path)
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # the file system may be read-only by now
            path.unlink()
        os.close(descriptor)


def _become_agent(path: Path, record: AgentRecord) -> int | None:
    """A descriptor of the locked file; None where the file cannot be created. Raises AgentRunsError."""
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
                    f"{running} already enforces in this network namespace; two agents would undo each other's "
                    f"changes: stop it first"
                )
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def running_agent(directory: Path = DIRECTORY) -> AgentRecord | None:
    """The agent of the calling thread's network namespace; None if none runs. A directory that others can write to is
    ignored, because no agent has its lock there.
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
    """Whether another open file description holds the lock."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _decode(data: bytes) -> AgentRecord:
    """The record of an agent; unknown while an agent holds the lock but has not written its record yet."""
    try:
        fields = json.loads(data)
        return AgentRecord(int(fields["pid"]), str(fields["since"]), str(fields["node"]), str(fields["policy"]))
    except (ValueError, KeyError, TypeError):
        return _UNKNOWN
