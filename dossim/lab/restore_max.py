"""Restores ``nf_conntrack_max`` when the process that lowered it is killed.

Run as a script with the folder of the record and the path of the setting; stdin is a pipe that only that process
writes to. Uses the standard library alone, so that it starts fast.

Whoever lowers or restores the value holds the lock of the folder. A record found by somebody who has the lock is that
of a process that is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class Record(NamedTuple):
    """``before`` was the value; ``lowered`` is what it was set to."""

    before: int
    lowered: int


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """The lock of the folder, held in the block; False without ``wait`` if somebody else has it."""
    with open(folder / "conntrack-max.lock", "w") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def write_record(folder: Path, record: Record) -> None:
    """Replaces the record in one step, so that a reader finds all of it or none."""
    temporary = _record(folder).with_suffix(".new")
    temporary.write_text(json.dumps(record._asdict()))
    os.replace(temporary, _record(folder))


def restore(folder: Path, setting: Path) -> bool:
    """Writes the value of the record back and removes the record; whether there was one. The caller has the lock.

    Raises ValueError for a damaged record: the value before is then unknown.
    """
    path = _record(folder)
    try:
        text = path.read_text()
    except FileNotFoundError:
        return False
    try:
        record = Record(**{name: int(value) for name, value in json.loads(text).items()})
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a record of nf_conntrack_max: {text[:80]!r}") from error
    if int(setting.read_text()) == record.lowered:  # else somebody else has set it since
        setting.write_text(str(record.before))
    with suppress(FileNotFoundError):
        path.unlink()
    return True


def _record(folder: Path) -> Path:
    return folder / "conntrack-max.json"


def main(folder: Path, setting: Path) -> None:
    """Waits until the other process is done, which it says, or ends without a word: then restores."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what ends the other process must not end this one
    os.setsid()
    print("ready", flush=True)
    if not os.read(0, 1):
        with locked(folder):
            restore(folder, setting)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
