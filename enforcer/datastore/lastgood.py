"""The last version of the policy without faults, on disk, for an agent that starts while a file is faulty, or its
datastore is away.

A running agent remembers the last good version of every object. Without this copy, an agent restarted while a deny list
is faulty would remove the list from the kernel.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from enforcer.model.errors import HostError
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import TolerantCollector
from enforcer.system import directories
from enforcer.system import files as system_files
from enforcer.system.log import event

DEFAULT_DIRECTORY = Path("/var/lib/enforcer")
_VERSION = 1
_MAX_BYTES = 1 << 30
_SCRATCH_PREFIX = ".last-good-"
_EARLIER_SCRATCH = re.compile(r"\.[a-z0-9_]{8}")  # as an earlier version named them
_BEGINNING = f'{{"version": {_VERSION}, "files": ['.encode()


def state_directory() -> Path:
    """The state directory: systemd's (``StateDirectory=``), else :data:`DEFAULT_DIRECTORY`."""
    return Path(os.environ.get("STATE_DIRECTORY") or DEFAULT_DIRECTORY)


Texts = Sequence[tuple[str, str]]
"""The path of each file, or the name of each object, with its text."""


def resources_of_files(texts: Texts) -> Resources:
    """The sound objects of YAML texts."""
    collector = TolerantCollector()
    for path, text in texts:
        collector.read_text(text, path)
    return collector.sound()


class LastGood:
    """The stored texts of files or objects, one state file for each ``source``: a list of paths, or of endpoints."""

    def __init__(self, directory: Path, source: Sequence[str | os.PathLike[str]]) -> None:
        identity = "\n".join(os.fspath(item) for item in source)
        name = hashlib.sha256(os.fsencode(identity)).hexdigest()[:16]
        self._file = directory / f"last-good-{name}.json"
        self._scratch = directory / f"{_SCRATCH_PREFIX}{name}-"

    def save(self, texts: Texts) -> None:
        """Store these texts.

        Raises OSError when they cannot be stored, and HostError when others can write to the directory. The older state
        then stays.
        """
        directories.make(self._file.parent)
        self.clean()
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=self._file.parent, prefix=self._scratch.name, delete=False
        ) as new:
            try:
                fcntl.flock(new, fcntl.LOCK_EX)
                files = [{"path": path, "text": text} for path, text in texts]
                new.write(json.dumps({"version": _VERSION, "files": files}))  # json.dump is many times as slow
                new.flush()
                os.fsync(new.fileno())
                os.replace(new.name, self._file)
            except BaseException:
                os.unlink(new.name)
                raise

    def clean(self) -> None:
        """Remove the temporary files of a process that was killed while saving."""
        try:
            if not directories.is_there(self._file.parent):
                return
            for item in self._file.parent.iterdir():
                if item.name.startswith(self._scratch.name) or _EARLIER_SCRATCH.fullmatch(item.name):
                    _remove_left(item)
        except (OSError, HostError):
            return  # not worth an error; saving reports what is wrong with the directory

    def read(self, parse: Callable[[Texts], Resources] = resources_of_files) -> Resources:
        """The objects of the stored state, as if read from their source; none if there is no state.

        A directory that others can write to is not used.
        """
        try:
            directories.is_there(self._file.parent)
            content = system_files.read(str(self._file), limit_bytes=_MAX_BYTES, instead="no agent stored that")
            texts = _texts(json.loads(content.decode("utf-8")))
        except FileNotFoundError:
            return Resources()
        except (
            OSError,
            HostError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            system_files.UnreadableError,
        ) as error:
            problem = f"{type(error).__name__}: {error}"
            event(logging.WARNING, "cannot read the last good policy: ignored", file=self._file, problem=problem)
            return Resources()
        return parse(texts)


def _remove_left(path: Path) -> None:
    """Remove a temporary file that no process is writing."""
    if path.is_symlink() or not path.is_file():
        return
    with path.open("rb") as file:
        if not _BEGINNING.startswith(file.read(len(_BEGINNING))):
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path.unlink(missing_ok=True)


def _texts(kept: object) -> list[tuple[str, str]]:
    """The paths and texts of a state. Raises ValueError for malformed data."""
    match kept:
        case {"version": version, "files": list(files)} if version == _VERSION and type(version) is int:
            texts = [(item.get("path"), item.get("text")) for item in files if isinstance(item, dict)]
            good = [(path, text) for path, text in texts if isinstance(path, str) and isinstance(text, str)]
            if len(good) == len(files):
                return good
        case {"version": version} if version != _VERSION:
            raise ValueError(f"version {version!r}, expected {_VERSION}")
    raise ValueError("not a list of paths and texts")
