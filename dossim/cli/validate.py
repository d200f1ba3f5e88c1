"""``dossim validate``: resources and scenarios, every finding as ``file:line:column: ...``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from enforcer.cli_support import echo, verbose_option
from enforcer.errors import EnforcerError

BAD_INPUT = 2
EXISTING_OR_STDIN = click.Path(exists=True, allow_dash=True, path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=EXISTING_OR_STDIN, metavar="PATH...")
@verbose_option
def validate(paths: tuple[Path, ...]) -> int:
    """Check resources and scenario files; print every finding, and exit with 2 when there is one.

    '-' is standard input, which holds resources.

    The resource files of a directory are taken together, as -p would take them; in a directory with scenarios, which
    name their policy themselves, each is checked on its own.

    \b
    Example:
      dossim validate policies/ scenarios/
    """
    findings: dict[str, None] = {}  # a policy that two scenarios share is wrong once
    checks = [check for path in paths for check in _checks(path)]
    for check in checks:
        findings.update(dict.fromkeys(_findings(check)))
    for line in findings:
        echo(line)
    if findings:
        return BAD_INPUT
    echo(f"{len(checks)} checked: nothing wrong")
    return 0


def _checks(path: Path) -> Iterator[Callable[[], object]]:
    """What has to be loaded; each raises what is wrong."""
    from dossim.scenario.load import SUFFIXES, load_scenario
    from enforcer.policy.load import load

    if path.is_file() and path.name.endswith(SUFFIXES):
        yield partial(load_scenario, path)
        return
    scenarios = sorted(item for suffix in SUFFIXES for item in path.rglob(f"*{suffix}"))
    yield from (partial(load_scenario, item) for item in scenarios)
    if scenarios:
        yield from (partial(load, [item]) for item in _resource_files(path))
    else:
        yield partial(load, [path])


def _resource_files(folder: Path) -> Iterator[Path]:
    from dossim.scenario.load import SUFFIXES
    from enforcer.policy.load import SUFFIXES as RESOURCE_SUFFIXES

    for item in sorted(folder.rglob("*")):
        if item.name.endswith(RESOURCE_SUFFIXES) and not item.name.endswith(SUFFIXES):
            yield item


def _findings(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except EnforcerError as error:
        return [str(finding) for finding in getattr(error, "findings", ())] or [str(error)]
    return []
