"""Lowers ``nf_conntrack_max`` for a drill at a full table, and restores it whatever happens.

The value is one for the whole host and can be written in the initial network namespace only; each namespace compares
its own count with it. Three things restore it: the end of the block; a watching process, when this one is killed; and
the next lab (:func:`restore_abandoned`), when both were.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dossim.lab import restore_max
from dossim.lab.restore_max import Record, locked, restore, write_record
from enforcer.model.errors import HostError
from enforcer.system.signals import unwinding

SETTING = Path("/proc/sys/net/netfilter/nf_conntrack_max")
FOLDER = Path("/run/dossim")
_WRITABLE = 0o200


def why_not_writable(setting: Path = SETTING) -> str:
    """Why the value cannot be lowered here, "" if it can be."""
    if os.geteuid() != 0:
        return "lowering nf_conntrack_max needs root"
    try:
        mode = setting.stat().st_mode
    except OSError as error:
        return f"{setting}: {error.strerror}: nf_conntrack is not loaded"
    # The kernel makes it read-only in all other namespaces (nf_conntrack_standalone_init_sysctl).
    return "" if mode & _WRITABLE else "nf_conntrack_max is read-only: this is not the initial network namespace"


@contextmanager
def lowered(value: int, *, folder: Path = FOLDER, setting: Path = SETTING) -> Iterator[None]:
    """``nf_conntrack_max`` is ``value`` in the block. Waits for other processes that have it lowered. Raises HostError
    where it cannot be written, and for a damaged record.
    """
    if why := why_not_writable(setting):
        raise HostError(why)
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(unwinding())
        stack.enter_context(locked(folder))
        _restore(folder, setting)
        before = int(setting.read_text())
        stack.enter_context(_watched(folder, setting))
        stack.callback(restore, folder, setting)  # before the watching process is told that all is done
        write_record(folder, Record(before, value))
        setting.write_text(str(value))
        yield


def restore_abandoned(folder: Path = FOLDER, setting: Path = SETTING) -> bool:
    """Restore what killed processes have left lowered; whether they had left anything. Raises HostError for a damaged
    record.
    """
    if not folder.is_dir() or why_not_writable(setting):
        return False
    with locked(folder, wait=False) as is_mine:
        return is_mine and _restore(folder, setting)


def _restore(folder: Path, setting: Path) -> bool:
    try:
        return restore(folder, setting)
    except ValueError as error:
        raise HostError(f"{error}; set nf_conntrack_max yourself if it is lowered, and remove the file") from error


@contextmanager
def _watched(folder: Path, setting: Path) -> Iterator[None]:
    """Another process restores the value if this one ends in the block."""
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", restore_max.__file__, str(folder), str(setting)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert watcher.stdin is not None
    assert watcher.stdout is not None
    try:
        if watcher.stdout.readline() != b"ready\n":
            raise HostError("the process that would restore nf_conntrack_max did not start; nothing was lowered")
        yield
    finally:
        watcher.stdin.write(b".")  # this process is alive, and restores it
        watcher.stdin.close()
        watcher.wait()
        watcher.stdout.close()
