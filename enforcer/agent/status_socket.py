"""What a running agent says of itself: ``enforcer status`` asks it over a Unix socket beside the agent's lock.

Whoever connects gets one JSON document. The directory belongs to root (:mod:`enforcer.system.directories`), and the
socket answers while a pass runs or the datastore hangs.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from enforcer.agent.threads import Helper
from enforcer.kernel.lock import DIRECTORY
from enforcer.kernel.netns import current_inode
from enforcer.model.errors import HostError
from enforcer.system import directories
from enforcer.system.log import event

_WITHIN_S = 2.0
_LARGEST = 64 << 20

Answer = Callable[[], dict[str, Any]]


@contextmanager
def answering(answer: Answer, directory: Path = DIRECTORY) -> Iterator[None]:
    """Answer while inside. An agent that cannot (no directory, no descriptor, no thread) enforces all the same."""
    path = _path(directory)
    try:
        listener = _listener(path)
    except (OSError, HostError) as error:
        event(logging.WARNING, "cannot answer 'enforcer status'", problem=str(error))
        yield
        return
    try:
        helper = _helper(listener, answer)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if helper is not None:
            helper.join()
        listener.close()


def _listener(path: Path) -> socket.socket:
    """Raises OSError, and HostError for a directory that others can write to."""
    directories.make(path.parent)
    with suppress(FileNotFoundError):
        path.unlink()  # of a killed agent: the caller holds the lock
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o077)
    try:
        listener.bind(str(path))
        listener.listen(8)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _helper(listener: socket.socket, answer: Answer) -> Helper | None:
    try:
        return Helper(lambda: _serve(listener, answer))
    except (RuntimeError, MemoryError) as error:
        event(logging.WARNING, "cannot answer 'enforcer status'", problem=str(error))
        return None


def _serve(listener: socket.socket, answer: Answer) -> None:
    while True:
        try:
            asked, _ = listener.accept()
        except OSError:
            return
        with asked, suppress(OSError):
            asked.settimeout(_WITHIN_S)
            asked.sendall(json.dumps(answer()).encode())


def ask_agent(directory: Path = DIRECTORY) -> dict[str, Any] | None:
    """What the agent of the calling thread's network namespace says; None if none answers."""
    try:
        if not directories.is_there(directory):
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as asking:
            asking.settimeout(_WITHIN_S)
            asking.connect(str(_path(directory)))
            said = json.loads(b"".join(_received(asking)))
    except (OSError, ValueError, HostError):
        return None
    return said if isinstance(said, dict) else None


def _received(asking: socket.socket) -> Iterator[bytes]:
    size = 0
    while size < _LARGEST and (part := asking.recv(1 << 16)):
        size += len(part)
        yield part


def _path(directory: Path) -> Path:
    return directory / f"netns-{current_inode()}.status"
