"""The page of a suggested deny list."""

from __future__ import annotations

from dossim.report import suggestion
from dossim.report.html import template
from dossim.report.suggestion import SuggestionView
from enforcer import __version__


def suggestion_html(view: SuggestionView, *, title: str) -> str:
    return template("suggestion.html.j2").render(
        title=title,
        view=view,
        version=__version__,
        plot=suggestion.plot,
        plot_width=suggestion.WIDTH,
        plot_height=suggestion.HEIGHT,
        plot_top=suggestion.TOP,
        plot_bottom=suggestion.BOTTOM,
        plot_left=suggestion.LEFT,
        percent=suggestion.percent,
        point_text=suggestion.point_text,
        where_text=suggestion.where_text,
        customers_text=suggestion.customers_text,
    )
