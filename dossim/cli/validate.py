"""``dossim validate``: resources and scenarios, every finding as ``file:line:column: ...``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from dossim.cli.options import UntrustedOptions, require_below, untrusted_options
from dossim.scenario.find import files_below
from enforcer.cli.support import NonEmptyPath, echo, verbose_option
from enforcer.model.errors import EnforcerError
from enforcer.policy.load import load
from enforcer.system.files import SCENARIO_SUFFIXES, SUFFIXES

BAD_INPUT = 2
EXISTING_OR_STDIN = NonEmptyPath(exists=True, allow_dash=True, path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=EXISTING_OR_STDIN, metavar="PATH...")
@untrusted_options
@verbose_option
def validate(paths: tuple[Path, ...], untrusted: UntrustedOptions) -> int:
    """Check resources and scenario files. Prints every finding, and exits with 2 if there is one.

    Accepted input without effect (fields of a newer Calico, address lists) is reported as a note.

    '-' reads resources from stdin.

    The resource files of a directory are checked together, as with -p. In a directory with scenarios, which name their
    policy themselves, each file is checked separately.

    \b
    Example:
      dossim validate policies/ scenarios/
    """
    findings: dict[str, None] = {}  # a faulty policy that two scenarios share is reported once
    notes: dict[str, None] = {}
    checks = [check for path in paths for check in _checks(path, untrusted)]
    for check in checks:
        wrong, named = _checked(check)
        findings.update(dict.fromkeys(wrong))
        notes.update(dict.fromkeys(named))
    for line in findings:
        echo(line)
    for line in notes:
        echo(f"note: {line}")
    if findings:
        return BAD_INPUT
    echo(f"{len(checks)} checked: no findings")
    return 0


def _checks(path: Path, untrusted: UntrustedOptions) -> Iterator[Callable[[], object]]:
    """The loads to do; each raises its findings."""
    if not path.is_dir():
        yield _scenario(path, untrusted) if path.name.endswith(SCENARIO_SUFFIXES) else partial(_load, path)
        return
    files = files_below(path)
    scenarios = [item for item in files if item.name.endswith(SCENARIO_SUFFIXES)]
    yield from (_scenario(item, untrusted, root=path) for item in scenarios)
    if not scenarios:
        yield partial(_load, path, (path, *untrusted.allow_path))
        return
    for item in files:
        if item.name.endswith(SUFFIXES) and not item.name.endswith(SCENARIO_SUFFIXES):
            yield partial(_load, item, (path, *untrusted.allow_path))


def _scenario(path: Path, untrusted: UntrustedOptions, *, root: Path | None = None) -> Callable[[], object]:
    from dossim.scenario.load import load_scenario  # imports Scapy, which only dossim[sim] installs

    return partial(load_scenario, path, root=root, allow=untrusted.allow_path, limits=untrusted.limits)


def _load(path: Path, below: Sequence[Path] = ()) -> object:
    """The resources of a path, which must be ``below`` these directories, unless there are none."""
    if below:
        require_below(path, below)
    return load([path])


def _checked(check: Callable[[], object]) -> tuple[list[str], list[str]]:
    """The findings, and the notes about accepted input without effect."""
    try:
        found = check()
    except EnforcerError as error:
        return [str(finding) for finding in getattr(error, "findings", ())] or [str(error)], []
    return [], [str(note) for note in getattr(getattr(found, "resources", found), "notes", ())]
