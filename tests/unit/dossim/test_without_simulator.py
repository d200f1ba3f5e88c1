"""An installation without ``dossim[sim]``: what still works, and one-line errors that name the missing package."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dossim.model.errors import SIMULATOR

pytestmark = pytest.mark.slow  # each runs a command in a process of its own

ROOT = Path(__file__).parents[3]
POLICY = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
SCENARIO = str(ROOT / "scenarios" / "demo.scenario.yaml")
CAPTURE = str(ROOT / "tests" / "counterexamples" / "fragment-dropped-before-it-overlaps.pcap")
WITHOUT = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(SIMULATOR)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
DOSSIM = WITHOUT + "from dossim.cli import main\nmain(sys.argv[1:], prog_name='dossim')"
PYTEST = WITHOUT + "import pytest\nsys.exit(pytest.main(sys.argv[1:]))"


def run(script: str, *words: str, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False, cwd=where, timeout=120
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["validate", POLICY],
        ["lint", POLICY],
        ["plan", "-p", POLICY],
        ["selector", "a == 'b'", "a=b"],
        ["predict", CAPTURE, "-p", POLICY],
        ["suggest", CAPTURE, "--all-is-attack"],
    ],
    ids=lambda words: words[0],
)
def test_what_needs_no_simulator(words: list[str]) -> None:
    done = run(DOSSIM, *words)
    assert done.returncode == 0, done.stderr
    assert "simulator" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["validate", SCENARIO],
        ["plan", "-p", POLICY, "--format", "dot"],
        ["explain", "-p", POLICY, "IP()/TCP()"],
        ["drill", CAPTURE, "-p", POLICY],
        ["run", SCENARIO],
        ["suggest", CAPTURE, "--all-is-attack", "--html", "-"],
    ],
    ids=lambda words: words[0],
)
def test_what_needs_the_simulator_says_so_in_one_line(words: list[str]) -> None:
    done = run(DOSSIM, *words)
    assert (done.returncode, done.stdout) == (3, "")
    *notes, error = done.stderr.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    assert error.startswith(f"error: 'dossim {words[0]}' needs the simulator (")
    assert error.endswith(" is missing): pip install 'dossim[sim]'")


def test_a_module_that_is_not_the_simulators_is_a_bug() -> None:
    done = run(DOSSIM.replace(repr(set(SIMULATOR)), "{'re2'}"), "validate", POLICY)
    assert done.returncode == 4
    assert "this is a bug" in done.stderr


def test_pytest_runs_and_says_of_scenarios_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    words = ["-p", "no:cacheprovider", "-q", "--rootdir", str(tmp_path)]
    assert run(PYTEST, *words, "test_other.py", where=tmp_path).returncode == 0
    done = run(PYTEST, *words, SCENARIO, where=tmp_path)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "demo.scenario.yaml needs the simulator (" in done.stdout


def test_the_extra_sim_is_what_is_called_the_simulator() -> None:
    wanted = [Requirement(line) for line in requires("dossim") or ()]
    extra = {item.name for item in wanted if item.marker and item.marker.evaluate({"extra": "sim"})}
    always = {item.name for item in wanted if not item.marker or item.marker.evaluate({"extra": ""})}
    extra -= always
    names = {name.lower() for name in extra}
    modules = {
        module
        for module, owners in packages_distributions().items()
        if {owner.lower() for owner in owners} & names and not module.startswith("lib")
    }
    assert modules == SIMULATOR
