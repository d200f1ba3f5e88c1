"""``dossim validate``: resources and scenarios, every finding as ``file:line:column: ...``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from dossim.cli.options import EXISTING
from enforcer.cli_support import verbose_option
from enforcer.errors import EnforcerError

BAD_INPUT = 2


@click.command()
@click.argument("paths", nargs=-1, required=True, type=EXISTING, metavar="PATH...")
@verbose_option
def validate(paths: tuple[Path, ...]) -> int:
    """Check resources and scenario files; print every finding. Exits with 2 when there is one.

    A directory stands for its resource files, taken together, and its *.scenario.yaml files. A scenario's policy is
    checked with it, and so is every resource file that a scenario names.

    \b
    Example:
      dossim validate policies/ scenarios/
    """
    findings: dict[str, None] = {}
    checked = 0
    for finding in _check(paths):
        checked += finding is None
        if finding is not None:
            findings.setdefault(finding)
    for line in findings:
        click.echo(line)
    if findings:
        return BAD_INPUT
    click.echo(f"{checked} {'file' if checked == 1 else 'files'}: nothing wrong")
    return 0
