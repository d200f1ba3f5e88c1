"""A command imports only what it needs. bench/bench_startup.py measures the time; no test asserts one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.imported import packages_imported

ROOT = Path(__file__).parents[3]
POLICY = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
CAPTURE = str(ROOT / "tests" / "counterexamples" / "fragment-dropped-before-it-overlaps.pcap")
LOADING = {"click", "yaml", "numpy", "re2"}


@pytest.mark.parametrize(
    ("words", "packages"),
    [
        (["--version"], {"click"}),
        (["validate", POLICY], LOADING),
        (["lint", POLICY], LOADING),
        (["plan", "-p", POLICY, "--format", "json"], LOADING | {"rich"}),
        (["predict", CAPTURE, "-p", POLICY], LOADING | {"rich"}),
        (["suggest", CAPTURE, "--all-is-attack"], LOADING | {"rich"}),
    ],
)
def test_what_a_command_of_the_simulator_imports(words: list[str], packages: set[str]) -> None:
    assert packages_imported("dossim.cli", words) <= packages


@pytest.mark.parametrize("words", [["--version"], ["apply", "--help"], ["run", "--help"]])
def test_what_help_of_the_enforcer_imports(words: list[str]) -> None:
    assert packages_imported("enforcer.cli.main", words) <= {"click"}
