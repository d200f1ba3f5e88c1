"""A command imports only what it needs. bench/bench_startup.py measures the time; no test asserts one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imported import imported, packages_imported

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow

POLICY = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
CAPTURE = str(ROOT / "tests" / "counterexamples" / "fragment-dropped-before-it-overlaps.pcap")
LOADING = {"click", "yaml", "numpy", "re2"}
# What takes long to import and answers nothing here: of numpy, of the standard library, of the project.
NEVER = {"numpy.ma", "numpy.random", "numpy.fft", "numpy.polynomial", "asyncio", "ssl", "http", "multiprocessing"}
NEVER |= {"email.utils", "concurrent.futures", "unittest", "xml", "sqlite3", "subprocess"}
# The model of conntrack and of the receive path, which explain walks through: of it predict needs only the sentences.
SENTENCES = {"dossim.pipeline", "dossim.pipeline.cut", "dossim.pipeline.conntrack"}
SENTENCES |= {f"dossim.pipeline.conntrack.{name}" for name in ("sentences", "states", "verdict")}


@pytest.mark.parametrize(
    ("words", "packages"),
    [
        (["--version"], {"click"}),
        (["validate", POLICY], LOADING),
        (["lint", POLICY], LOADING),
        (["plan", "-p", POLICY], LOADING | {"rich"}),
        (["plan", "-p", POLICY, "--format", "json"], LOADING | {"rich"}),
    ],
)
def test_what_a_command_of_the_simulator_imports(words: list[str], packages: set[str]) -> None:
    found = imported("dossim.cli", words)
    assert found.packages <= packages
    assert not found.modules & NEVER


def test_what_suggest_imports() -> None:
    assert packages_imported("dossim.cli", ["suggest", CAPTURE, "--all-is-attack"]) <= LOADING | {"rich"}


@pytest.mark.parametrize("words", [["--version"], ["apply", "--help"], ["run", "--help"]])
def test_what_help_of_the_enforcer_imports(words: list[str]) -> None:
    assert packages_imported("enforcer.cli.main", words) <= {"click"}


def test_predict_does_not_import_the_model_that_explain_walks_through() -> None:
    found = imported("dossim.cli", ["predict", CAPTURE, "-p", POLICY])
    assert found.packages <= LOADING | {"rich"}
    assert not found.modules & NEVER
    assert "dossim.predict.following" in found.modules
    assert {name for name in found.modules if name.startswith("dossim.pipeline")} <= SENTENCES
    assert not {name for name in found.modules if name.startswith(("dossim.lab", "dossim.replay", "dossim.observe"))}


def test_numpy_starts_no_threads_unless_asked_to() -> None:
    """OpenBLAS starts one for each CPU when it is loaded."""
    alone = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    few = imported("dossim.cli", ["validate", POLICY], env=alone)
    assert "numpy" in few.packages
    assert few.threads == 1
    asked = imported("dossim.cli", ["validate", POLICY], env={**alone, "OPENBLAS_NUM_THREADS": "2"})
    assert asked.threads == min(2, len(os.sched_getaffinity(0)))


def test_what_an_agent_imports() -> None:
    """No OpenSSL, HTTP client or child processes before anything asks for them."""
    script = (
        "import json, sys, enforcer.cli.run, enforcer.agent.agent, enforcer.datastore.open, enforcer.monitor.monitor\n"
        "print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    found = set(json.loads(done.stdout))
    assert "enforcer.backends.registry" in found
    assert not found & (NEVER - {"http"} | {"http.client", "rich", "prometheus_client", "grpc", "pyroute2"})
