"""Scenario files as pytest items, run in a separate pytest. Drills are replaced, so no kernel is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

pytestmark = pytest.mark.slow  # each runs pytest in a process of its own

ROOT = Path(__file__).parents[3]
SCENARIO = """\
name: attackers stay outside
policy: [{policy}]
traffic: [{{generate: syn-flood, count: 20, sources: 203.0.113.0/24, label: attack}}]
modes: [native, raw]
expect: [{{label: attack, fate: {fate}}}]
slow: true
"""
# Stand-ins for the kernel: one fails, one does as predicted, one delivers packet 3.
REFUSE = """
import dossim.scenario.run as run
from enforcer.model.errors import PrivilegeError
def refuse(*args, **options):
    raise PrivilegeError("creating a network namespace needs CAP_SYS_ADMIN")
run.drill_capture = refuse
"""
AGREE = """
import dossim.scenario.run as run
from dossim.drill.run import predict_capture
from tests.unit.dossim.fabricated import drilled
run.drill_capture = lambda capture, situation, **options: drilled(predict_capture(capture, situation), {otherwise})
"""
SHOW_MARKERS = """
def pytest_collection_modifyitems(items):
    for item in items:
        print(f"{item.name}:", *sorted(mark.name for mark in item.iter_markers()))
"""
DELIVERED = "{3: (__import__('dossim.model.disposition').model.disposition.Fate.DELIVERED, None)}"

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the scenario above against a stand-in for the kernel."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*options: str, kernel: str = AGREE, otherwise: str = "{}", fate: str = "dropped") -> pytest.RunResult:
        pytester.makeconftest(kernel.replace("{otherwise}", otherwise))
        policy = ROOT / "scenarios" / "policies" / "how-to.yaml"
        pytester.path.joinpath("it.scenario.yaml").write_text(SCENARIO.format(policy=policy, fate=fate))
        return pytester.runpytest_subprocess("-p", "dossim", "-ra", f"--dossim-allow-path={policy.parent}", *options)

    return run


def test_each_mode_is_an_item_with_a_name_and_markers_to_choose_it_by(run: Run) -> None:
    result = run("--collect-only", "-q", "--strict-markers", kernel=SHOW_MARKERS)
    result.stdout.fnmatch_lines([
        "native: needs_root needs_xdp_native slow",
        "raw: needs_root slow",
        "it.scenario.yaml::native",
        "it.scenario.yaml::raw",
    ])  # fmt: skip


def test_a_drill_that_agrees_passes_and_its_numbers_reach_junit(run: Run, pytester: pytest.Pytester) -> None:
    run("it.scenario.yaml::raw", "--junitxml=out.xml").assert_outcomes(passed=1)
    text = (pytester.path / "out.xml").read_text()
    assert '<property name="half" value="drill"' in text
    assert '<property name="matched" value="20"' in text


def test_a_mismatch_fails_and_shows_the_packet_not_our_frames(run: Run) -> None:
    result = run(otherwise=DELIVERED)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([
        "*attackers stay outside [[]native]*",
        "20 packets: predicted != observed: 1 mismatched",
        "expected predicted == observed; found 19 of 20 packets; 1 mismatched*",
        "it.scenario.yaml:5: expected attack: all dropped; found 19 of 20 packets (packets that ended otherwise: 3)",
        "packet 3: a packet <3>",
        "  predicted dropped at driver by gnp/dos-mitigation ingress[[]0]",
        "  observed  delivered: *",
    ])  # fmt: skip
    assert "pytest_plugin.py" not in result.stdout.str().split("short test summary")[0]


def test_without_privilege_a_held_prediction_is_a_skip_never_a_pass(run: Run) -> None:
    result = run(kernel=REFUSE)
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*prediction half held; drill needs root: *CAP_SYS_ADMIN*"])


def test_without_privilege_a_failed_prediction_fails(run: Run) -> None:
    result = run(kernel=REFUSE, fate="delivered")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*expected attack: all delivered; found 0 of 20 packets*"])


def test_a_file_that_is_no_scenario_is_an_error_with_every_finding(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("it.scenario.yaml").write_text("name: x\ncolour: red\n")
    result = pytester.runpytest_subprocess("-p", "dossim")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["it.scenario.yaml:2:1: colour: unknown field*"])
    assert "Traceback" not in result.stdout.str()


def test_nothing_heavy_is_loaded_until_there_is_a_scenario() -> None:
    heavy = ("numpy", "scapy", "jsonschema", "rich")
    code = f"import sys, dossim.pytest_plugin; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
