"""How much of a capture is read, on stderr: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from enforcer.cli.support import echo
from enforcer.model.printable import printable
from enforcer.system import streams

if TYPE_CHECKING:
    from dossim.predict.batches import Decided

_EVERY_S = 5


class BytesRead:
    """Tells what was read; nothing here."""

    can_start_again = True
    sees_all = False

    @classmethod
    @contextmanager
    def on(cls, name: str, wanted: bool | None) -> Iterator[BytesRead]:
        """``wanted`` None: on a terminal only."""
        is_terminal = sys.stderr.isatty()
        if not (is_terminal if wanted is None else wanted):
            yield cls()
        elif is_terminal:
            with _bars() as bars:
                yield _Bar(bars, name)
        else:
            yield _Lines(name)

    def start(self) -> None:
        """As Watcher has it."""

    def see(self, decided: Decided) -> None:
        """As Watcher has it."""

    def tell(self, done: int, total: int | None) -> None:
        """As Watcher has it."""


class _Lines(BytesRead):
    def __init__(self, name: str) -> None:
        self._name, self._told_s = name, time.monotonic()

    def tell(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._told_s < _EVERY_S and done != total:
            return
        self._told_s = now
        share = f" of {total:,} bytes ({100 * done / total:.0f} %)" if total else " bytes"
        try:
            echo(printable(f"{self._name}: {done:,}{share} read"), err=True)
        except (BrokenPipeError, streams.OutputError):  # nobody reads it, or it is full: no reason to end
            streams.discard(streams.STDERR)


class _Bar(BytesRead):
    def __init__(self, bars: Any, name: str) -> None:
        from rich.markup import escape

        self._bars, self._task = bars, bars.add_task(escape(printable(name)), total=None)

    def tell(self, done: int, total: int | None) -> None:
        self._bars.update(self._task, completed=done, total=total)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
