"""The metrics as a file for node_exporter's textfile collector, for hosts where the agent may not listen."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from enforcer.model.errors import UsageError

EVERY_S = 15.0
_MODE = 0o644  # node_exporter runs as another user


def check_textfile(path: Path) -> None:
    """Raises UsageError for a file that node_exporter would not read, or whose directory does not exist."""
    if path.suffix != ".prom":
        raise UsageError(f"{path}: node_exporter reads files that end in .prom")
    if not os.path.isdir(path.parent):
        raise UsageError(f"{path.parent}: not a directory")


def write_textfile(path: Path, content: bytes) -> None:
    """Replace the file as a whole. Raises OSError.

    The directory may be another user's: a new file is made in it (O_EXCL), so that no link is followed.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    scratch = f".{path.name}.{os.getpid()}"
    try:
        with suppress(FileNotFoundError):
            os.unlink(scratch, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(scratch, flags, _MODE, dir_fd=folder), "wb") as file:
                os.fchmod(file.fileno(), _MODE)  # whatever the umask
                file.write(content)
            os.replace(scratch, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(scratch, dir_fd=folder)
            raise
    finally:
        os.close(folder)


def remove_textfile(path: Path) -> None:
    """At the end: a file that stays would be taken for an agent that runs."""
    with suppress(OSError):
        path.unlink()
