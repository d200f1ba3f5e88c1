"""``dossim lint``: parts of a valid policy without effect, or with an unexpected one, as ``file:line:column: ...``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dossim.cli.options import EXISTING, allow_path_option, require_below, unknown_node
from enforcer.cli.options import tracked_option
from enforcer.cli.support import NonEmptyPath, echo, echo_json, require_nonempty, verbose_option
from enforcer.model.choices import TrackedChoice
from enforcer.model.errors import UsageError
from enforcer.model.printable import printable

if TYPE_CHECKING:
    from dossim.lint import Finding

FORMATS = ("text", "json", "sarif")
LEVELS = ("error", "warning", "note")
FAILING = LEVELS[:2]
FOUND = 1


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=NonEmptyPath(exists=True, allow_dash=True, path_type=Path),
    metavar="PATH...",
)
@click.option(
    "--host",
    "facts_file",
    type=EXISTING,
    metavar="FACTS",
    help="Facts of the real host: the output of 'enforcer probe -o yaml'.",
)
@click.option("--node", callback=require_nonempty, help="The node. Default: every node with HostEndpoints.")
@click.option(
    "--level", type=click.Choice(LEVELS), default="note", show_default=True, help="The lowest level to report."
)
@click.option(
    "-o", "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Output format."
)
@tracked_option
@allow_path_option
@verbose_option
def lint(
    paths: tuple[Path, ...],
    facts_file: Path | None,
    node: str | None,
    level: str,
    form: str,
    tracked: str,
    allow_path: tuple[Path, ...],
) -> int:
    """Find entries that never match, unused selectors and sets, harmful deny lists, and entries that are enforced late.

    PATH is a file or directory of Calico resources; all are linted together; - is stdin. Exits with 1 if there is an
    error or a warning, and with 0 if there are only notes. With --tracked enforce, what normal policy closes is an
    error or a warning too. The rules: docs/lint.md.

    \b
    Example:
      dossim lint policies/
      dossim lint policies/ --host jasper.yaml --level warning --format sarif > lint.sarif
    """
    from dataclasses import replace

    from dossim import lint as linter
    from dossim.cli.facts import read_facts
    from enforcer.policy.load import load

    for path in paths:
        if path.is_dir():
            require_below(path, (path, *allow_path))
    resources = load(paths)
    facts = read_facts(facts_file) if facts_file is not None else None
    if node is not None and (unknown := unknown_node(resources, node)):
        raise UsageError(unknown)
    if facts is not None and node is not None:
        facts = replace(facts, node=node)
    choice = TrackedChoice(tracked)
    found = linter.lint(resources, node=node, facts=facts, read_text=_text_of, tracked=choice)
    found = [item for item in found if LEVELS.index(item.level) <= LEVELS.index(level)]
    _print(found, form)
    echo(_totals(found), err=True)
    return FOUND if any(item.level in FAILING for item in found) else 0


def _text_of(path: str) -> str:
    """Reads the text of a loaded file again; "" for stdin, which can be read only once."""
    from enforcer.system.files import UnreadableError, read_text

    try:
        return read_text(path)
    except UnreadableError:
        return ""


def _print(found: Sequence[Finding], form: str) -> None:
    import dossim
    from dossim.lint import as_json, as_sarif

    if form == "json":
        echo_json(as_json(found))
    elif form == "sarif":
        echo_json(as_sarif(found, dossim.__version__))
    else:
        for item in found:
            echo(printable(item))


def _totals(found: Sequence[Finding]) -> str:
    count = Counter(str(item.level) for item in found)
    parts = [f"{count[level]:,} {level}{'s' * (count[level] != 1)}" for level in LEVELS if count[level]]
    return ", ".join(parts) or "nothing found"
