"""Human-readable output: tables and lines through rich, escaped before they reach the terminal.

Not part of ``support``: importing rich takes as long as the rest of a command line, and JSON does not need it.
"""

from __future__ import annotations

from typing import IO, cast

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from enforcer.model.printable import printable, printable_lines
from enforcer.system import streams

_WIDE = 4096  # columns if stdout is not a terminal: programs read the lines, so they must not be wrapped


def console_for(stream: IO[str]) -> Console:
    """A console, without colours and wrapping if the stream is not a terminal. rich itself honours NO_COLOR.

    Markup is off: the text may come from anybody.
    """
    terminal = stream.isatty()
    console = Console(
        file=cast("IO[str]", streams.Output(stream)),
        highlight=False,
        markup=False,
        force_terminal=terminal,
        width=None if terminal else _WIDE,
        emoji=False,
    )
    console.push_render_hook(_Printable())
    return console


def line(text: object, style: str = "") -> Text:
    """Text that stays on one line, for a console or a cell of its tables."""
    return Text(printable(text), style=style)


class _Printable(RenderHook):
    """A render hook that escapes all text, in case the caller did not."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_PrintableRenderable(item) for item in renderables]


class _PrintableRenderable:
    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(printable_lines(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)
