"""Resources in YAML files: single files, or all files below a directory.

inotify speeds up detection. What decides is whether the identity, size or times of any file differ from
the last snapshot. So no change is missed: not between two snapshots, not on file systems without inotify, and not when
a directory is replaced as a whole, as Kubernetes does with a mounted ConfigMap. They are compared each second, and less
often while inotify sees everything (``sees_all``) and nothing is faulty or being written.

An unreadable file is not a deleted file (``system/files.py``), and a file that is still being written is not read
(``writers.py``): in both cases the last version stays.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from enforcer.datastore.base import StoreState
from enforcer.datastore.lastgood import LastGood
from enforcer.datastore.writers import SETTLE_S, Writers
from enforcer.model.errors import HostError, UsageError
from enforcer.policy.collect import Readings
from enforcer.policy.resources import Resources
from enforcer.policy.tolerant import Loaded, load_tolerant
from enforcer.system import files as system_files
from enforcer.system.files import Identity, Tree, UnreadableError
from enforcer.system.inotify import Inotify, sees_all
from enforcer.system.log import event
from enforcer.system.stop import Stop

_LOOK_EVERY_S = 1.0
_LOOK_SELDOM_S = 15.0  # where inotify sees everything
_STEP_S = 0.02
# A file whose times are older when it is read cannot change without another time. (A tick of the kernel's clock is at
# most 10 ms; the rest is for clocks that were set.)
_CERTAIN_NS = 2_000_000_000
_WAIT_S = 2.0  # then whether it sees everything is asked again: a snapshot may have found a fault meanwhile
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0

_WRITTEN = "is still open for writing, or was changed in place a moment ago: not read yet; replace it with rename(2)"
_UNMOUNTED = "was a mount point and is not mounted now; mount it again, or remove the directory to delete its objects"
_VANISHED = "has vanished: create it again; each act is deleted with its file"
_ATTEMPTS = 4

# The identity of each file, or why it cannot be read.
Fingerprint = dict[str, Identity | str]


class FileStore:
    """A DataStore over paths that need not exist yet.

    With a ``state`` directory the first snapshot takes faulty objects from the last snapshot of an earlier run that had
    no fault and was enforced.
    """

    def __init__(self, paths: Sequence[Path], *, state: Path | None = None, emergency: Path | None = None) -> None:
        """``emergency``: the directory of emergency acts, which need not exist, and may be empty."""
        self._paths = tuple(Path(path).absolute() for path in paths)
        self._emergency = emergency.absolute() if emergency else None
        self._had_acts = False  # in an earlier snapshot
        self._kept = LastGood(state, self._paths) if state else None
        self._writers = Writers()
        self._seen: Fingerprint = {}  # by the last snapshot
        self._taken: dict[str, Identity] = {}  # the identity of each file when last read
        self._certain: dict[str, Identity] = {}  # of files whose identity tells whether they have what was read
        self._folders: frozenset[str] = frozenset()
        self._mount_points: frozenset[str] = frozenset()  # among the folders
        self._mounted: frozenset[str] = frozenset()  # those of earlier snapshots, while the folder exists
        self._good: tuple[Fingerprint, Sequence[str]] | None = None  # the last snapshot, if it had no fault
        self._saved: Fingerprint | None = None
        self._readings: Readings = {}  # what the files of the last snapshot were read into
        self._save_problem = ""
        self._is_first = True
        self._inotify_failed = False
        self._is_quiet = False  # inotify sees every change of what was read, and nothing else is waited for
        self._retry_s = 0.0  # 0: everything could be read
        self._retry_at_s = 0.0
        self._state = StoreState(
            "files",
            self.describe(),
            False,
            time.time(),
            0.0,
            paths=tuple(map(str, self._paths)),
            emergency=str(self._emergency or ""),
        )
        if self._kept:
            self._kept.clean()

    def require_something(self) -> None:
        """Raises UsageError for a missing path, unless an earlier run stored a policy: it may be back soon."""
        missing = [path for path in self._paths if _is_missing(path)]
        if missing and self.last_good() == Resources():
            raise UsageError(f"{missing[0]}: does not exist")

    def snapshot(self, last_good: Resources) -> Loaded:
        """All resources in the files, faulty ones from ``last_good``."""
        if self._is_first and self._kept is not None:
            loaded = self._load(last_good)
            if loaded.faults:
                loaded = self._load(self._kept.read())
        else:
            loaded = self._load(last_good)
        self._is_first = False
        self._is_quiet = not loaded.faults and self._watches_acts() and sees_all(self._taken, self._folders)
        self._retry_s = min(max(self._retry_s * 2, _FIRST_RETRY_S), _LAST_RETRY_S) if loaded.again else 0.0
        self._retry_at_s = time.monotonic() + self._retry_s
        self._state = self._state_after(loaded)
        return loaded

    def _state_after(self, loaded: Loaded) -> StoreState:
        before, now_s = self._state, time.time()
        problem = next((str(item.finding.position) for item in loaded.faults), "") if loaded.again else ""
        now = replace(
            before,
            connected=not loaded.again,
            since=before.since if before.connected != loaded.again else now_s,
            contact=before.contact if loaded.again else now_s,
            problem=f"{problem} cannot be read" if problem else "",
        )
        return now.after(loaded)

    def last_good(self) -> Resources:
        """What an earlier run stored; empty if nothing."""
        return self._kept.read() if self._kept else Resources()

    def refresh(self) -> None:
        """The next snapshot reads all files, also those that look as before."""
        self._certain = {}

    def keep(self) -> None:
        """Store the files of the last snapshot on disk, if it had no faults and the files are unchanged."""
        if self._kept is None or self._good is None or self._saved == self._good[0]:
            return
        looks, files = self._good
        try:
            texts = [(path, system_files.read(path).decode("utf-8-sig")) for path in files]
            if self._fingerprint() != looks:
                return  # they have changed since they were found good
            self._kept.save(texts)
            self._saved, self._save_problem = looks, ""
        except (OSError, HostError, UnicodeDecodeError, UnreadableError) as error:
            if self._fingerprint() != looks:
                return  # the files have changed: a new snapshot is due
            if str(error) != self._save_problem:
                event(logging.WARNING, "cannot store the last good policy on disk for a restart", problem=str(error))
            self._save_problem = str(error)

    def changes(self, stop: Stop) -> Iterator[None]:
        """Yields whenever the files differ from the last snapshot and nobody is writing them."""
        while not stop.is_set():
            for _ in self._ticks(stop):
                if self._has_changed() or self._is_retry_due():
                    yield

    def state(self) -> StoreState:
        return self._state

    def describe(self) -> str:
        return ", ".join(str(path) for path in self._paths)

    def _load(self, last_good: Resources) -> Loaded:
        """Read everything except files that are being written, before or during the read."""
        looks, now_ns = self._settled(), time.time_ns()
        certain = self._certain if self._is_quiet else {}
        changing: set[str] = set()  # during reading, and again
        for attempt in range(_ATTEMPTS):
            written = self._being_written(looks) | changing
            self._seen = _as_seen(looks, written)
            lost = dict.fromkeys(sorted(self._mounted - self._mount_points & self._folders), _UNMOUNTED)
            acts = self._acts()
            lost |= dict(acts.faults)
            read = partial(_read, without=written)
            paths: list[str | Path] = [*self._paths, *acts.files]
            same = {path for path, look in looks.items() if certain.get(path) == look} - written
            loaded = load_tolerant(paths, last_good, read=read, lost=lost, before=self._readings, unchanged=same)
            self._readings = loaded.readings
            now = self._fingerprint()
            changed = {path for path, look in now.items() if look != looks.get(path)} - written
            if not changed or attempt == _ATTEMPTS - 1:
                break
            looks = now
            changing |= changed if attempt else set()
        not_taken = written | changed
        taken = {path: look for path, look in looks.items() if not isinstance(look, str) and path not in not_taken}
        self._taken = {path: self._taken[path] for path in not_taken if path in self._taken} | taken
        self._certain = {path: look for path, look in taken.items() if max(look[-2:]) + _CERTAIN_NS < now_ns}
        self._good = None if loaded.faults else (looks, loaded.files)
        self._mounted = self._mounted & (self._folders | looks.keys()) | self._mount_points
        self._had_acts = self._had_acts or (self._emergency is not None and str(self._emergency) in self._folders)
        return loaded

    def _acts(self) -> Tree:
        """The files of emergency acts. A directory that vanished is unreadable: acts are deleted one by one."""
        if self._emergency is None or not (self._had_acts or _may_be_directory(self._emergency)):
            return Tree()
        if _is_missing(self._emergency):
            return Tree(faults=[(str(self._emergency), _VANISHED)])
        return system_files.find(str(self._emergency))

    def _watches_acts(self) -> bool:
        """Whether the directory of emergency acts is among the watched ones: a missing one may appear unseen."""
        return self._emergency is None or str(self._emergency) in self._folders

    def _settled(self) -> Fingerprint:
        """The identities of the files, after waiting for those that were changed in place a moment ago."""
        until_s = time.monotonic() + SETTLE_S
        while True:
            looks = self._fingerprint()
            settling = any(
                self._writers.is_settling(path, look, self._taken.get(path))
                for path, look in looks.items()
                if not isinstance(look, str)
            )
            if not settling or time.monotonic() >= until_s:
                return looks
            time.sleep(_STEP_S)

    def _has_changed(self) -> bool:
        """Whether a new snapshot may differ. A file that is being written does not count until it is overdue."""
        looks, seen = self._fingerprint(), self._seen
        if self._is_first:
            return False  # nothing was read yet
        changed = {path: look for path, look in looks.items() if seen.get(path) != look}
        self._writers.note({path: look for path, look in changed.items() if not isinstance(look, str)})
        written = self._being_written(changed)
        if written:
            self._is_quiet = False  # when it is complete is not an event
        for path in written:
            if seen.get(path) == _WRITTEN or not self._writers.is_overdue(path):
                del changed[path]
        return bool(changed) or bool(seen.keys() - looks.keys())

    def _being_written(self, looks: Fingerprint) -> set[str]:
        return {
            path
            for path, look in looks.items()
            if not isinstance(look, str) and self._writers.is_being_written(path, look, self._taken.get(path))
        }

    def _is_retry_due(self) -> bool:
        if not self._retry_s or time.monotonic() < self._retry_at_s:
            return False
        self._retry_at_s = time.monotonic() + self._retry_s  # in case no snapshot follows
        return True

    def _ticks(self, stop: Stop) -> Iterator[None]:
        """Yields now, on each file system event, and at a fixed interval."""
        yield
        folders = self._folders
        try:
            # Every directory with files to read is in the list.
            with Inotify(sorted(folders)) as inotify:
                yield  # of what changed before
                while not stop.is_set() and self._folders == folders:
                    self._wait(inotify, stop)
                    yield
        except OSError as error:  # nothing to watch, or out of inotify watches
            if not (self._inotify_failed or isinstance(error, FileNotFoundError)):
                event(logging.WARNING, "no inotify: polling for changes every second", problem=str(error))
                self._inotify_failed = True
            stop.wait(_LOOK_EVERY_S)

    def _wait(self, inotify: Inotify, stop: Stop) -> None:
        """Wait for a change and the end of its burst, for the next look, or for ``stop``."""
        since_s = time.monotonic()
        while not stop.is_set():
            if inotify.wait(_WAIT_S if self._is_quiet else _LOOK_EVERY_S, stop):
                stop.wait(_STEP_S)
                inotify.wait(0, stop)
                return
            if time.monotonic() >= since_s + (_LOOK_SELDOM_S if self._is_quiet else _LOOK_EVERY_S):
                return

    def _fingerprint(self) -> Fingerprint:
        looks: Fingerprint = {}
        folders: set[str] = set()
        mount_points: set[str] = set()
        trees = [(system_files.find(given), [os.path.dirname(given)]) for given in map(str, self._paths)]
        for tree, instead in (*trees, (self._acts(), [])):
            looks |= dict(tree.faults)
            looks |= {file: _look(file) for file in tree.files}
            folders |= set(tree.folders or instead)
            mount_points |= tree.mount_points()
        self._folders, self._mount_points = frozenset(folders), frozenset(mount_points)
        return looks


def _may_be_directory(path: Path) -> bool:
    return os.path.isdir(path) or (not os.path.exists(path) and system_files.may_exist(path))


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # reading it reports the error
    return False


def _as_seen(looks: Fingerprint, written: Collection[str]) -> Fingerprint:
    return {path: _WRITTEN if path in written else look for path, look in looks.items()}


def _look(file: str) -> Identity | str:
    try:
        return system_files.identity_of(file)
    except OSError as error:
        return system_files.cannot_read(error)


def _read(path: str, *, without: Collection[str]) -> bytes:
    if path in without:
        raise UnreadableError(_WRITTEN)
    return system_files.read(path)
