"""A report that is written while its content comes, and takes the place of its file when it is complete."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from dossim.cli.options import STDOUT
from enforcer.cli.support import echo_bytes
from enforcer.model.errors import UsageError

_LINKS = 40  # that the kernel follows
_NAME_BYTES = 200  # of the older file's name, so that more fits behind it


class Replaced:
    """Where a report goes: a file, or stdout for ``-``. Links are followed. What is no regular file, or is in a folder
    that cannot be written to, is written to as it is. Raises UsageError when it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_stdout = path == STDOUT
        self._file: IO[bytes] | None = None
        self._is_begun = False  # before there is a file: a signal can come at any time
        self._target = os.path.realpath(path)
        folder, name = os.path.split(self._target)
        short = os.fsdecode(os.fsencode(name)[:_NAME_BYTES])
        self._is_direct = self.is_stdout or (
            os.path.exists(path)
            and (not os.path.isfile(path) or _is_descriptor(path) or not os.access(folder, os.W_OK))
        )
        self._written = path if self._is_direct else os.path.join(folder, f"{short}.{os.getpid()}.part")

    @property
    def can_start_again(self) -> bool:
        """Whether nobody has seen what was written: it is not in a pipe, nor elsewhere than in a file of ours."""
        return not self._is_direct

    def start(self) -> None:
        """Begin, perhaps anew: forget what was written."""
        self.discard()
        if self.is_stdout:
            return
        self._is_begun = True
        with _Faults(self.path):
            if self._is_direct:
                self._file = open(self._written, "wb")  # noqa: SIM115  # until the last part is written
                return
            Path(self._target).parent.mkdir(parents=True, exist_ok=True)
            Path(self._written).unlink(missing_ok=True)  # of a process that was killed; or planted
            self._file = self._created()

    def _created(self) -> IO[bytes]:
        """Follows no link. It has the permissions of the older file, if there is one."""
        older = stat.S_IMODE(os.stat(self._target).st_mode) & 0o777 if os.path.exists(self._target) else None
        mode = 0o666 if older is None else older
        descriptor = os.open(self._written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        if older is not None:
            os.fchmod(descriptor, older)  # whatever the umask is
        return open(descriptor, "wb")

    def write(self, content: bytes) -> None:
        if self.is_stdout:
            echo_bytes(content)
            return
        assert self._file is not None, "it has been started"
        with _Faults(self.path):
            self._file.write(content)

    def finish(self) -> None:
        """Everything was written."""
        if self._file is None:
            return
        with _Faults(self.path):
            self._file.close()
            if not self._is_direct:
                os.replace(self._written, self._target)
        self._file, self._is_begun = None, False

    def discard(self) -> None:
        """Leave nothing behind."""
        if not self._is_begun:
            return
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        if not self._is_direct:
            with suppress(OSError):
                os.unlink(self._written)
        self._file, self._is_begun = None, False


def _is_descriptor(path: str) -> bool:
    """/dev/stdout, /dev/fd/3: links into /proc to what is open already."""
    for _ in range(_LINKS):
        folder = os.path.dirname(path)
        if not os.path.islink(path):
            return False
        if os.path.realpath(folder).startswith("/proc/"):
            return True
        path = os.path.join(folder, os.readlink(path))
    return False


class _Faults:
    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, OSError):
            raise UsageError(f"{self._path}: cannot be written: {error.strerror}") from error
