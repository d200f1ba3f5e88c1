"""Standard output and error when they are closed, full, of another encoding, or without a reader."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from enforcer.model.errors import HostError

STDOUT, STDERR = 1, 2


class OutputError(HostError):
    """The output cannot be written, for example because the file system is full."""


def prepare() -> None:
    """Replace a closed stdout or stderr, and make sure that no character raises an encoding error.

    Where the locale is not UTF-8, characters that it lacks are written as backslash escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # open for the life of the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def writing() -> Iterator[None]:
    """Wrap all printing. Raises OutputError; BrokenPipeError is passed on, as it is not a fault."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the output cannot be written: {error.strerror or error}") from error


class Output:
    """A text stream that raises OutputError."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with writing():
            return self._stream.write(text)

    def flush(self) -> None:
        with writing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard(stream: int) -> None:
    """Discard what is still buffered: the interpreter would fail to flush it at exit."""
    with suppress(OSError):  # no descriptors left: the interpreter prints its own error
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
