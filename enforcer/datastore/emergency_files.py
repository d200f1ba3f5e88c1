"""Emergency acts as files: one for each object, in a directory of their own, which the agent reads with its others.

Writers take turns by a lock on the directory (flock(2)), and a file is replaced as a whole, so that the agent never
reads half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml

from enforcer.datastore.lastgood import state_directory
from enforcer.datastore.writer import ConflictError, Held, StoreError
from enforcer.model.errors import HostError
from enforcer.system import directories
from enforcer.system import files as system_files
from enforcer.system.files import UnreadableError

_READS = 10
_LOCK_WITHIN_S = 10.0
_SCRATCH_PREFIX = ".writing-"


def _revision_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def emergency_directory(state: Path | None = None) -> Path:
    """Where acts are without an option that says so: below the agent's state directory."""
    return (state or state_directory()) / "emergency"


class FileWriter:
    """A Writer. The directory is created with the first act."""

    kind = "files"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, *error: object) -> None: ...

    def read(self, name: str) -> Held | None:
        with self._failing():
            return self._read(name)

    def create(self, name: str, item: dict[str, Any], *, keep_s: float | None) -> None:
        del keep_s  # files are deleted by 'enforcer prune' alone
        with self._locked():
            if self._revision(name) is not None:
                raise ConflictError(f"{self._file(name)}: exists")
            self._write(name, item)

    def replace(self, name: str, item: dict[str, Any], revision: str, *, keep_s: float | None) -> None:
        del keep_s
        with self._locked():
            self._require(name, revision)
            self._write(name, item)

    def delete(self, name: str, revision: str) -> None:
        with self._locked():
            self._require(name, revision)
            self._file(name).unlink()

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.yaml"

    def _read(self, name: str) -> Held | None:
        content = self._content(name)
        if content is None:
            return None
        try:
            item = yaml.safe_load(content)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(f"{self._file(name)}: not YAML: {' '.join(str(error).split())}; remove it") from error
        if not isinstance(item, dict):
            raise StoreError(f"{self._file(name)}: holds no object; remove it")
        return Held(item, _revision_of(content))

    def _content(self, name: str) -> bytes | None:
        """None if there is no such file. Again if another operator replaced it meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            for _ in range(_READS - 1):
                with contextlib.suppress(UnreadableError):
                    return system_files.read(str(self._file(name)))
                time.sleep(random.uniform(0.001, 0.02))
            return system_files.read(str(self._file(name)))
        return None

    def _revision(self, name: str) -> str | None:
        content = self._content(name)
        return None if content is None else _revision_of(content)

    def _require(self, name: str, revision: str) -> None:
        found = self._revision(name)
        if found != revision:
            raise ConflictError(f"{self._file(name)}: {'changed' if found else 'is gone'}")

    def _write(self, name: str, item: dict[str, Any]) -> None:
        text = yaml.safe_dump(item, sort_keys=False, allow_unicode=True, width=1000)
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=self._directory, prefix=_SCRATCH_PREFIX, delete=False
        ) as new:
            try:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())
                os.replace(new.name, self._file(name))
            except BaseException:
                os.unlink(new.name)
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; what is written is on disk afterwards."""
        with self._failing():
            directories.make(self._directory)
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._lock(descriptor)
                self._clean()
                yield
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        until_s = time.monotonic() + _LOCK_WITHIN_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until_s:
                    raise StoreError(f"{self._directory}: another process has it locked") from None
                time.sleep(random.uniform(0.005, 0.05))

    def _clean(self) -> None:
        """Remove what a writer that was killed left: the lock is ours, so nobody is writing it."""
        for item in self._directory.glob(f"{_SCRATCH_PREFIX}*"):
            with contextlib.suppress(OSError):
                item.unlink()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnreadableError) as error:
            raise StoreError(f"{self._directory}: {getattr(error, 'strerror', None) or error}") from error
        except HostError as error:
            raise error if isinstance(error, StoreError) else StoreError(str(error)) from error
