"""The unix socket on which an agent answers ``enforcer status``: one JSON document for each connection.

It lies beside the agent's lock, in a directory that only root can change, and is for root and the agent's own user.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from enforcer.kernel.lock import DIRECTORY
from enforcer.kernel.netns import current_inode
from enforcer.model.errors import HostError
from enforcer.monitor.report import SCHEMA
from enforcer.system import directories

_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_ANSWER_MAX = 16 << 20
_WITHIN_S = 3.0


def socket_path(directory: Path = DIRECTORY) -> Path:
    """Of the calling thread's network namespace."""
    return directory / f"netns-{current_inode()}.sock"


def listen(path: Path) -> socket.socket:
    """A listening socket for the agent, which holds the namespace's lock: one that is there is a dead agent's.

    Raises OSError, HostError.
    """
    directories.make(path.parent, 0o755)
    with suppress(FileNotFoundError):
        path.unlink()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(server.fileno(), 0o600)  # bind takes the file's mode from the socket (unix_bind_bsd)
        server.bind(str(path))
        server.listen(8)
        server.setblocking(False)
    except BaseException:
        server.close()
        raise
    return server


def answer(connection: socket.socket, report: dict[str, Any]) -> None:
    """Send the report to a peer who may read it. Raises OSError."""
    if _uid_of(connection) not in (0, os.geteuid()):
        return
    connection.settimeout(_WITHIN_S)
    connection.sendall(json.dumps(report).encode())


def ask(directory: Path = DIRECTORY) -> dict[str, Any]:
    """The report of the agent of the calling thread's network namespace.

    Raises HostError when there is none that answers within three seconds.
    """
    path = socket_path(directory)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
            client.settimeout(_WITHIN_S)
            client.connect(str(path))
            if _uid_of(client) not in (0, os.geteuid()):
                raise HostError(f"{path}: another user listens there")
            data = _read_all(client)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror or error}") from error
    try:
        report = json.loads(data)
    except ValueError as error:
        raise HostError(f"{path}: no JSON document: {error}") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise HostError(f"{path}: the agent is of another version; expected {SCHEMA}")
    return report


def _read_all(client: socket.socket) -> bytes:
    until_s = time.monotonic() + _WITHIN_S
    parts: list[bytes] = []
    while sum(map(len, parts)) <= _ANSWER_MAX:
        client.settimeout(max(until_s - time.monotonic(), 0.001))
        if not (part := client.recv(1 << 16)):
            return b"".join(parts)
        parts.append(part)
    raise HostError("the agent's answer is too long")


def _uid_of(connection: socket.socket) -> int:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(packed)[1])
