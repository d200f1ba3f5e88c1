"""Reports that a command writes: to files that are none of its inputs, each whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from dossim.cli.options import STDIN, STDOUT
from dossim.cli.replaced import Replaced
from enforcer.model.errors import UsageError
from enforcer.model.printable import printable_lines
from enforcer.system import files

Path = str | os.PathLike[str]


def takes_stdout(reports: Sequence[str | None], inputs: Iterable[Path]) -> bool:
    """Whether a report goes to stdout; nothing else is printed then. Raises UsageError for two with the same name, and
    for one that would take the place of an input: a file, or one in a folder of policy.
    """
    wanted = [path for path in reports if path]
    places = [path if path == STDOUT else os.path.realpath(path) for path in wanted]
    for path, place in zip(wanted, places, strict=True):
        if places.count(place) > 1:
            where = "to stdout (-)" if path == STDOUT else f"into {path}"
            raise UsageError(f"only one report can go {where}")
    present = {key: path for path in wanted if path != STDOUT for key in _regular(path)}
    for name in _each(inputs) if present else ():
        for key in _regular(name):
            if key in present:
                raise UsageError(f"{present[key]}: the command reads this file; expected another one for a report")
    return STDOUT in wanted


def _each(inputs: Iterable[Path]) -> Iterator[Path]:
    for name in inputs:
        if os.path.isdir(name):
            yield from files.find(os.fspath(name)).files
        else:
            yield name


def _regular(name: Path) -> Iterator[tuple[int, int]]:
    """What identifies the file, if it is there and a regular one."""
    with suppress(OSError, ValueError, AttributeError):  # a name with a NUL; stdin that is closed, or no file
        status = os.fstat(sys.stdin.fileno()) if os.fspath(name) == STDIN else os.stat(name)
        if stat.S_ISREG(status.st_mode):
            yield status.st_dev, status.st_ino


def write(path: str, text: str) -> None:
    """Write a report to a file, or to stdout for ``-``. Raises UsageError when the file cannot be written."""
    write_bytes(path, (printable_lines(text) if path == STDOUT else text).encode("utf-8"))


def write_bytes(path: str, content: bytes) -> None:
    """As :func:`write`, for bytes."""
    report = Replaced(path)
    try:
        report.start()
        report.write(content)
        report.finish()
    finally:
        report.discard()
