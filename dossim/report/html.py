"""One self-contained HTML page: no scripts, no fonts, nothing fetched; light or dark as the reader's system prefers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from dossim.report.diagram import HEIGHT, WIDTH, diagram
from dossim.report.text import several_lines
from dossim.report.view import View
from enforcer import __version__
from enforcer.model.counted import counted
from enforcer.model.printable import printable_lines


def html(views: Sequence[View], *, title: str) -> str:
    """The page of one or more results."""
    return template("report.html.j2").render(
        title=title,
        views=views,
        version=__version__,
        holds=all(view.holds for view in views),
        drilled=all(view.drilled for view in views),
        diagram=diagram,
        several_lines=several_lines,
        box_width=WIDTH,
        box_height=HEIGHT,
    )


def _printable(value: object) -> object:
    """A value before it is written into the page; HTML cannot contain most control characters."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def template(name: str) -> Template:
    """A page of this folder."""
    environment = Environment(
        loader=PackageLoader("dossim.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["packets"] = counted
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["seconds"] = lambda value: f"{value:.3f} s" if value < 10 else f"{value:.1f} s"
    environment.filters["percent"] = lambda part, whole: f"{100 * part / whole:.1f} %" if whole else ""
    return environment.get_template(name)
