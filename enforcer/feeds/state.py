"""What is remembered of each feed between two runs: a folder with a few files for each.

``NAME.json`` says when it was fetched and what came of it, ``NAME.list`` has the last list that was taken, from which
the sets can be made again at any time, and ``NAME.held`` one that waits for a person.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from enforcer.datastore.lastgood import state_directory
from enforcer.feeds import crowdsec
from enforcer.feeds.canonical import Size
from enforcer.model.errors import HostError
from enforcer.model.vocabulary import Word
from enforcer.system import directories, files

_VERSION = 1
_MAX_BYTES = 1 << 30
_SCRATCH_PREFIX = ".writing-"


class Status(Word):
    """How the last attempt ended."""

    NEVER = "never fetched"
    TAKEN = "ok"
    HELD = "held"
    FAILED = "failed"


@dataclass(frozen=True)
class FeedState:
    """Times are Unix times, 0: never. ``source``, ``attempted_s``: of the last request. ``reading``: from where, and in
    which format, the list that was taken is.
    ``good_s``: the last one that confirmed or changed what is enforced. ``etag``, ``modified``: HTTP validators of the
    list that was taken. ``fetched_s``, ``sha256``, ``size``, ``expires_s``: of that list. ``decisions``: of CrowdSec;
    ``complete``: whether no answer to a request for changes can have been lost. ``unwritten``: why the datastore does
    not have the sets of that list yet, "" if it has them.
    """

    source: str = ""
    reading: str = ""
    status: Status = Status.NEVER
    attempted_s: float = 0.0
    good_s: float = 0.0
    fetched_s: float = 0.0
    etag: str = ""
    modified: str = ""
    sha256: str = ""
    size: Size | None = None
    expires_s: int | None = None
    problem: str = ""
    decisions: crowdsec.Decisions = field(default_factory=dict)
    complete: bool = False
    unwritten: str = ""


def feeds_directory(state: Path | None = None) -> Path:
    """Where the states are without an option that says so."""
    return (state or state_directory()) / "feeds"


class StateStore:
    """The folder. Raises HostError for one that cannot be used, or that others could change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For one process at a time. Raises HostError if another has it."""
        with self._failing():
            directories.make(self._folder)
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HostError(f"{self._folder}: another 'enforcer feed' is at work") from None
            for item in self._folder.glob(f"{_SCRATCH_PREFIX}*"):  # of one that was killed
                item.unlink()
            yield
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """The feeds that something is remembered of."""
        with self._failing():
            if not directories.is_there(self._folder):
                return []
            return sorted(item.stem for item in self._folder.glob("*.json"))

    def read(self, name: str) -> FeedState:
        """The state of a feed; that of one never fetched if there is none. One that cannot be read is an error: who has
        forgotten the last list cannot say whether the next one is much larger.
        """
        content = self._content(name, "json")
        if content is None:
            return FeedState()
        try:
            return _state(json.loads(content))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            path = self._path(name, "json")
            raise HostError(f"{path}: cannot be read ({error}); remove it to begin anew") from error

    def write(self, name: str, state: FeedState) -> None:
        data = asdict(state) | {"version": _VERSION, "decisions": crowdsec.as_data(state.decisions)}
        self._put(name, "json", json.dumps(data, indent=1).encode())

    def list(self, name: str) -> bytes | None:
        """The list that was taken last."""
        return self._content(name, "list")

    def held(self, name: str) -> bytes | None:
        """The list that waits for a person."""
        return self._content(name, "held")

    def put_list(self, name: str, content: bytes) -> None:
        self._put(name, "list", content)

    def hold(self, name: str, content: bytes) -> None:
        self._put(name, "held", content)

    def release(self, name: str) -> None:
        with self._failing(), suppress(FileNotFoundError):
            self._path(name, "held").unlink()

    def forget(self, name: str) -> None:
        """Remove all that is remembered of a feed."""
        with self._failing():
            for suffix in ("held", "list", "json"):
                self._path(name, suffix).unlink(missing_ok=True)

    def _path(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name}.{suffix}"

    def _content(self, name: str, suffix: str) -> bytes | None:
        with self._failing():
            if not directories.is_there(self._folder):
                return None
            with suppress(FileNotFoundError):
                return files.read(str(self._path(name, suffix)), limit_bytes=_MAX_BYTES)
        return None

    def _put(self, name: str, suffix: str, content: bytes) -> None:
        with (
            self._failing(),
            NamedTemporaryFile("wb", dir=self._folder, prefix=_SCRATCH_PREFIX, delete=False) as new,
        ):
            try:
                new.write(content)
                new.flush()
                os.fsync(new.fileno())
                os.replace(new.name, self._path(name, suffix))
            except BaseException:
                os.unlink(new.name)
                raise

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, files.UnreadableError) as error:
            raise HostError(f"{self._folder}: {getattr(error, 'strerror', None) or error}") from error


def _state(data: Mapping[str, Any]) -> FeedState:
    if data["version"] != _VERSION:
        raise ValueError(f"of version {data['version']}")
    size = data["size"]
    texts = {key: str(data[key]) for key in ("source", "reading", "etag", "modified", "sha256", "problem", "unwritten")}
    return FeedState(
        attempted_s=float(data["attempted_s"]),
        good_s=float(data["good_s"]),
        fetched_s=float(data["fetched_s"]),
        **texts,
        status=Status(data["status"]),
        size=None if size is None else Size(**size),
        expires_s=data["expires_s"],
        decisions=crowdsec.from_data(data["decisions"]),
        complete=bool(data["complete"]),
    )
