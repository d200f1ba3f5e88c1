"""stdout and stderr as they may be found: closed, full, of another encoding, or with nobody at the other end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from enforcer.model.errors import HostError

STDOUT, STDERR = 1, 2


class OutputError(HostError):
    """What is printed cannot be written: the file system is full, say."""


def prepare() -> None:
    """Stand something in for a closed stdout or stderr, and let no character end a command.

    A locale without UTF-8 has no way to say some names; they are written as Python would spell them.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def writing() -> Iterator[None]:
    """Around whatever prints. Raises OutputError; BrokenPipeError as it is, for that is no fault."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the output cannot be written: {error.strerror or error}") from error


class Output:
    """A text stream whose faults are OutputError."""

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
    """What is still buffered goes nowhere: the interpreter would try again at its end, and fail."""
    with suppress(OSError):  # no descriptors left; then the interpreter says what it says
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
