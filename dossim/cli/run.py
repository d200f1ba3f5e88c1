"""``dossim run``: scenario files, each in each of its modes; the same items that pytest collects."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dossim.cli.options import EXISTING, UntrustedOptions, output_file, untrusted_options
from dossim.cli.outputs import takes_stdout, write
from dossim.cli.progress import progress
from enforcer.cli.console import console_for
from enforcer.cli.support import echo, emit, output_option, verbose_option, warn
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import PrivilegeError, UsageError
from enforcer.model.printable import printable

if TYPE_CHECKING:
    from dossim.report.view import View
    from dossim.scenario.budget import Limits
    from dossim.scenario.model import Scenario
    from dossim.scenario.run import ScenarioResult, ScenarioRunner
    from enforcer.model.errors import Finding

FINDINGS, LACKING = 1, 3


@click.command()
@click.argument("paths", nargs=-1, required=True, type=EXISTING, metavar="PATH...")
@click.option(
    "--mode",
    "modes",
    type=click.Choice([str(choice) for choice in ModeChoice]),
    multiple=True,
    help="Run only these of the scenario's modes. May be repeated.",
)
@click.option("--predict-only", is_flag=True, help="Only predict. Needs no root.")
@untrusted_options
@output_file("json", "Write the results as JSON")
@output_file("junit", "Write the results as JUnit XML")
@output_file("html", "Write a report for a browser")
@output_option
@verbose_option
def run(
    paths: tuple[Path, ...],
    modes: tuple[str, ...],
    predict_only: bool,
    untrusted: UntrustedOptions,
    json_file: str | None,
    junit_file: str | None,
    html_file: str | None,
    output: str,
) -> int:
    """Run scenario files, or all *.scenario.yaml files of directories. Each scenario is drilled in each of its modes.

    A scenario can name files below its own directory or below PATH, and describe at most 1,000,000 packets and 256 MiB.

    Without root only the predictions run, with a warning, and the command exits with 3 unless --predict-only is given.

    \b
    Example:
      sudo dossim run scenarios/ --html report.html
      dossim run scenarios/syn-flood.scenario.yaml --predict-only
    """
    from dossim.report.html import html
    from dossim.report.json import dumps, run_as_dict
    from dossim.report.junit import junit
    from dossim.scenario.find import rooted_scenarios

    alone = takes_stdout([json_file, junit_file, html_file], [path for path, _ in rooted_scenarios(paths)])
    scenarios = _load_all(paths, untrusted)
    quiet = alone or output != "table"
    session = Session(drills=not predict_only, quiet=quiet, limits=untrusted.limits)
    items = [item for scenario in scenarios for item in session.run(scenario, modes)]
    if not items:
        raise UsageError(f"no scenario has the mode {' or '.join(modes)}")
    if not alone and quiet:
        emit(run_as_dict(items), output, lambda console: None)
    if json_file:
        write(json_file, dumps(run_as_dict(items)))
    if junit_file:
        write(junit_file, junit(items))
    if html_file:
        title = scenarios[0].name if len(scenarios) == 1 else f"{len(scenarios)} scenarios"
        write(html_file, html([view for _, view in items], title=title))
    _say_where([json_file, junit_file, html_file], items, quiet=quiet)
    failed = [view for _, view in items if not view.holds]
    if failed:
        return LACKING if all(view.is_lack_of_time for view in failed) else FINDINGS
    return LACKING if session.lacking else 0


class Session:
    """Runs scenarios one after the other, printing each result; ``lacking`` states why drills were not possible."""

    def __init__(self, *, drills: bool, quiet: bool, limits: Limits) -> None:
        self.lacking = ""
        self._drills = drills
        self._quiet = quiet
        self._limits = limits

    def run(self, scenario: Scenario, modes: Sequence[str]) -> Iterator[tuple[str, View]]:
        """(path, view) for each selected mode of the scenario."""
        from dossim.report.terminal import print_view
        from dossim.report.view import view_of_scenario
        from dossim.scenario.run import ScenarioRunner

        runner = ScenarioRunner(scenario, limits=self._limits)
        for choice in scenario.modes:
            if modes and str(choice) not in modes:
                continue
            view = view_of_scenario(self._run_one(runner, choice))
            if not self._quiet:
                print_view(view, console_for(sys.stdout))
            yield str(scenario.path), view

    def _run_one(self, runner: ScenarioRunner, choice: ModeChoice) -> ScenarioResult:
        if self._drills and not self.lacking:
            try:
                with progress(f"{runner.scenario.path.name} [{choice}]") as tell:
                    return runner.drill(choice, progress=tell)
            except PrivilegeError as error:
                self.lacking = str(error)
                warn(f"predicting only, without enforcement, replay and observation: {error}")
        return runner.predict(choice)


def _load_all(paths: Sequence[Path], untrusted: UntrustedOptions) -> list[Scenario]:
    """All scenarios. Raises InvalidScenario with the findings of all files."""
    from dossim.scenario.find import rooted_scenarios
    from dossim.scenario.findings import InvalidScenario
    from dossim.scenario.load import load_scenario

    scenarios: list[Scenario] = []
    findings: list[Finding] = []
    for path, root in rooted_scenarios(paths):
        try:
            scenarios.append(load_scenario(path, root=root, allow=untrusted.allow_path, limits=untrusted.limits))
        except InvalidScenario as error:
            findings.extend(error.findings)
    if findings:
        raise InvalidScenario(list(dict.fromkeys(findings)))
    return scenarios


def _say_where(files: Sequence[str | None], items: Sequence[tuple[str, View]], *, quiet: bool) -> None:
    if quiet:
        return
    if len(items) > 1:
        held = sum(view.holds for _, view in items)
        drilled = sum(view.drilled for _, view in items)
        echo(f"{len(items)} items: {held} held, {len(items) - held} failed; {drilled} drilled")
    for path in files:
        if path:
            echo(printable(f"report: {Path(path).resolve()}"))
