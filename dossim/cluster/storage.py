"""Reads captures where they are: a path of the machine, or a URL that fsspec knows."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from dossim.model.errors import CaptureError

_HEAD = 4096
_AT_ONCE = 16 << 20  # of an object: each request takes its time


class UnreadableError(CaptureError):
    """A capture that this machine cannot read, whatever is in it."""


class Opened(Protocol):
    """A capture of ``size`` bytes."""

    @property
    def size(self) -> int: ...
    def fill(self, view: memoryview, first: int) -> None:
        """Puts the bytes from ``first`` on there. Raises UnreadableError, also if there are too few."""
        ...


@dataclass(frozen=True)
class Identity:
    """What must be the same of a capture on all machines that read it."""

    size: int
    digest: str  # of its beginning


def is_url(name: str) -> bool:
    return "://" in name


@contextmanager
def opened(name: str) -> Iterator[Opened]:
    """A path or URL, for reading at any place. Raises UnreadableError, also if its size is not known."""
    found: _File | _Object = _Object(name) if is_url(name) else _File(name)
    try:
        yield found
    finally:
        found.close()


def bytes_of(capture: Opened, first: int, last: int) -> bytes:
    """As :meth:`Opened.fill`, up to ``last``."""
    buf = bytearray(last - first)
    capture.fill(memoryview(buf), first)
    return bytes(buf)


def identity_of(name: str, capture: Opened) -> Identity:
    """Raises UnreadableError."""
    return Identity(capture.size, hashlib.sha256(bytes_of(capture, 0, min(capture.size, _HEAD))).hexdigest())


class _File:
    def __init__(self, name: str) -> None:
        self._name = name
        self._descriptor = -1
        try:
            self._descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
            status = os.fstat(self._descriptor)
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise UnreadableError(f"{name}: not a regular file on {socket.gethostname()}; expected one, or a URL")
        self.size = status.st_size

    def fill(self, view: memoryview, first: int) -> None:
        while len(view):
            try:
                count = os.preadv(self._descriptor, [view], first)
            except OSError as error:
                raise _unreadable(self._name, error) from error
            if not count:
                raise _shorter(self._name, self.size)
            view, first = view[count:], first + count

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _Object:
    """What fsspec reads. Its errors are those of many libraries: each means that the object cannot be read."""

    def __init__(self, name: str) -> None:
        self._name = name
        try:
            import fsspec

            self._system, self._path = fsspec.core.url_to_fs(name)
            size: Any = self._system.info(self._path)["size"]
        except Exception as error:
            raise _unreadable(name, error) from error
        if not isinstance(size, int):
            raise UnreadableError(f"{name}: its size is not known, so that it cannot be split; copy it elsewhere")
        self.size = size
        self._first, self._kept = 0, b""

    def fill(self, view: memoryview, first: int) -> None:
        while len(view):
            if not self._first <= first < self._first + len(self._kept):
                self._fetch(first)
            part = memoryview(self._kept)[first - self._first :][: len(view)]
            view[: len(part)] = part
            view, first = view[len(part) :], first + len(part)

    def _fetch(self, first: int) -> None:
        last = min(first + _AT_ONCE, self.size)
        try:
            self._kept = bytes(self._system.cat_file(self._path, start=first, end=last)) if first < last else b""
        except Exception as error:
            raise _unreadable(self._name, error) from error
        if not self._kept:
            raise _shorter(self._name, self.size)
        self._first = first

    def close(self) -> None:
        self._kept = b""  # the file system itself is shared


def _unreadable(name: str, error: Exception) -> UnreadableError:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UnreadableError(f"{name}: cannot be read on {socket.gethostname()}: {why}")


def _shorter(name: str, size: int) -> UnreadableError:
    return UnreadableError(f"{name}: has not all of its {size:,} bytes on {socket.gethostname()}: it is being changed")
