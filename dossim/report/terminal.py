"""Results on a terminal: one table of stages, the verdict, and the lines of YAML whose entries dropped packets."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dossim.exhaustion.words import lines as outlook_lines
from dossim.report.text import SHOWN, blocked_lines, mismatch_lines, outcome_line, several_lines
from dossim.report.view import StageRow, View
from enforcer.cli.console import line
from enforcer.model.counted import counted

_MARK = {True: ("held    ", "green"), False: ("FAILED  ", "red bold"), None: ("unknown ", "yellow")}


def print_view(view: View, console: Console, *, shown: int = SHOWN) -> None:
    """What a person wants to know first; the rest is in JSON and HTML."""
    console.print(line(view.title, "bold"), soft_wrap=True)
    console.print(line(_where(view), "dim"), soft_wrap=True)
    for text in view.about:
        console.print(line(text, "yellow" if text in view.warnings else "dim"), soft_wrap=True)
    console.print(_stage_table(view))
    if view.conntrack:
        console.print(line(view.conntrack, "dim"), soft_wrap=True)
    for reason, count in view.open_reasons:
        console.print(line(f"{counted(count)} {reason}", "yellow"), soft_wrap=True)
    for text in several_lines(view):
        console.print(line(text, "yellow"), soft_wrap=True)
    if view.full_table:
        console.print(line(view.full_table, "yellow"), soft_wrap=True)
    if view.outlook is not None:
        for text in outlook_lines(view.outlook):
            console.print(line(text), soft_wrap=True)
    for outcome in view.outcomes:
        word, style = _MARK[outcome.holds]
        found = outcome_line(outcome) if outcome.holds is False else f"{outcome.expectation}: {outcome.found}"
        console.print(Text.assemble((word, style), line(found)), soft_wrap=True)
    for text in mismatch_lines(view, shown=shown):
        console.print(line(text, "red"), soft_wrap=True)
    console.print(line(view.summary, _verdict_style(view)), soft_wrap=True)
    if view.busy:
        console.print(line(view.busy, "yellow bold"), soft_wrap=True)
    for text in blocked_lines(view):
        console.print(line(text), soft_wrap=True)
    if view.scope:
        console.print(line(view.scope, "yellow"), soft_wrap=True)
    for text in view.calico.lines() if view.calico else ():
        console.print(line(text, "yellow"), soft_wrap=True)
    console.print()


def _where(view: View) -> str:
    host = f"node {view.node}, interface {view.interface}"
    mode = f"mode {view.mode}" if view.choice in ("", view.mode) else f"mode {view.mode} (requested: {view.choice})"
    kernel = f", Linux {view.kernel}" if view.kernel else ""
    return f"{host}, {mode}{kernel}"


def _stage_table(view: View) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage")
    for name in ("predicted", "observed", "matched") if view.drilled else ("predicted",):
        table.add_column(name, justify="right")
    table.add_column("", style="dim")
    for row in view.stages:
        table.add_row(*_cells(row, drilled=view.drilled), row.gloss)
    return table


def _cells(row: StageRow, *, drilled: bool) -> list[Text]:
    style = "" if row.agrees else "red"
    counts = (row.predicted, row.observed or 0, row.matched or 0) if drilled else (row.predicted,)
    return [Text(row.word, style=style), *(Text(f"{count:,}", style=style) for count in counts)]


def _verdict_style(view: View) -> str:
    if not view.holds:
        return "red bold"
    if not view.drilled:
        return "yellow"
    return "yellow bold" if view.open_counts or not view.packets else "green bold"
