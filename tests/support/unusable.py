"""What a path from a user can be other than a readable file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from enforcer.system.files import FILE_MAX_BYTES


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(FILE_MAX_BYTES + 1)


UNUSABLE: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "directory": Path.mkdir,
    "large": _large,
    "binary": lambda path: path.write_bytes(b"name: \xff\n"),
    "loop": lambda path: path.symlink_to(path),
}
