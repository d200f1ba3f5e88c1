"""Progress bars: on stderr, only on a terminal, only for phases that take longer than a moment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from enforcer.model.printable import printable

if TYPE_CHECKING:
    from dossim.drill.run import Progress


@contextmanager
def progress(title: str) -> Iterator[Progress | None]:
    """A callback for the progress of a drill; None if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(escape(printable(f"{title}: {phase}")), total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield tell
