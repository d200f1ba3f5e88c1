"""A report that is written while its content comes, and takes the place of its file when it is complete."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from dossim.cli.options import STDOUT
from enforcer.cli.support import echo_bytes
from enforcer.model.errors import UsageError


class Replaced:
    """Where a report goes: a file, or stdout for ``-``. What is no regular file is written to as it is. Raises
    UsageError when it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_stdout = path == STDOUT
        self._is_direct = self.is_stdout or (os.path.exists(path) and not os.path.isfile(path))
        self._file: IO[bytes] | None = None
        self._written = path if self._is_direct else f"{path}.{os.getpid()}.part"

    def start(self) -> None:
        """Begin, perhaps anew: forget what was written."""
        self.discard()
        if self.is_stdout:
            return
        with _Faults(self.path):
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            if not self._is_direct:
                Path(self._written).unlink(missing_ok=True)  # of a process that was killed; or planted
            # "x" follows no link. It is open until the last part is written.
            self._file = open(self._written, "wb" if self._is_direct else "xb")  # noqa: SIM115

    def write(self, content: bytes) -> None:
        if self._file is None:
            echo_bytes(content)
            return
        with _Faults(self.path):
            self._file.write(content)

    def finish(self) -> None:
        """Everything was written."""
        if self._file is None:
            return
        with _Faults(self.path):
            self._file.close()
            if not self._is_direct:
                os.replace(self._written, self.path)
        self._file = None

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._file is None:
            return
        with suppress(OSError):
            self._file.close()
        if not self._is_direct:
            with suppress(OSError):
                os.unlink(self._written)
        self._file = None


class _Faults:
    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, OSError):
            raise UsageError(f"{self._path}: cannot be written: {error.strerror}") from error
