"""Resources in YAML files: named one by one, or all below a directory.

inotify (watchfiles) makes changes quick to notice; what counts is whether any file's identity, size or time differs
from what the last snapshot was taken of. So nothing is missed between two snapshots, nor on file systems without
inotify, nor when a directory is replaced as a whole (as Kubernetes does with a mounted ConfigMap).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from watchfiles import watch

from enforcer.datastore.lastgood import LastGood
from enforcer.errors import HostError
from enforcer.log import event
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded, load_tolerant

_LOOK_EVERY_S = 1.0
_STEP_MS = 50

Fingerprint = tuple[tuple[str, int, int, int], ...]


class FileStore:
    """A DataStore over paths that need not exist yet when it is made.

    With a ``state`` directory the first snapshot has faulty objects as they were in the last one of an earlier run in
    which nothing was wrong.
    """

    def __init__(self, paths: Sequence[Path], *, state: Path | None = None) -> None:
        self._paths = tuple(paths)
        self._seen: Fingerprint = ()
        self._saved: Fingerprint | None = None
        self._last_good = LastGood(state, paths) if state else None
        self._is_first = True

    def snapshot(self, last_good: Resources) -> Loaded:
        """All resources in the files, faulty ones as ``last_good`` has them."""
        self._seen = self._fingerprint()  # before reading: a change during it then counts as one after it
        loaded = load_tolerant(self._paths, last_good)
        if self._last_good is None:
            return loaded
        if loaded.faults and self._is_first:
            loaded = load_tolerant(self._paths, self._last_good.read())
        self._is_first = False
        if not loaded.faults:
            self._save(self._last_good, loaded.files)
        return loaded

    def _save(self, last_good: LastGood, files: Sequence[str]) -> None:
        """Keep the files of a snapshot without faults."""
        if self._saved == self._seen:
            return
        try:
            if last_good.save(files, unchanged=lambda: self._fingerprint() == self._seen):
                self._saved = self._seen
        except (OSError, HostError, UnicodeDecodeError) as error:
            event(logging.WARNING, "the last good policy cannot be kept on disk for a restart", problem=str(error))
            self._saved = self._seen

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """An item whenever the files are no longer those of the last snapshot."""
        while not stop.is_set():
            for _ in self._ticks(stop):
                if self._fingerprint() != self._seen:
                    yield

    def describe(self) -> str:
        return ", ".join(str(path) for path in self._paths)

    def _ticks(self, stop: threading.Event) -> Iterator[None]:
        """Now, on each file system event, and at least every so often."""
        yield
        try:
            for _ in watch(
                *self._watchable(),
                watch_filter=None,
                stop_event=stop,
                debounce=_STEP_MS,
                step=_STEP_MS,
                rust_timeout=int(_LOOK_EVERY_S * 1000),
                yield_on_timeout=True,
                raise_interrupt=False,
            ):
                yield
        except (OSError, RuntimeError):  # nothing to watch (yet, or any more), or out of inotify watches
            stop.wait(_LOOK_EVERY_S)

    def _watchable(self) -> set[Path]:
        """Directories: a file that an editor replaces would be lost from sight."""
        return {path if path.is_dir() else path.absolute().parent for path in self._paths}

    def _fingerprint(self) -> Fingerprint:
        found = (_identity(file) for path in self._paths for file in _files(path))
        return tuple(sorted(identity for identity in found if identity))


def _files(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield str(path)
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in names)


def _identity(file: str) -> tuple[str, int, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return (file, status.st_ino, status.st_size, status.st_mtime_ns)
