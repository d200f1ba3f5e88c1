"""Tests in several processes (:mod:`tests.support.workers`): each runs once, and ends as in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CONFTEST = """
import os
import pytest
from tests.support.workers import run_in_workers

def pytest_runtestloop(session):
    run_in_workers(session, 3)
    return True

@pytest.fixture(scope="session")
def worker():
    yield
    note("ended", os.getpid())

@pytest.fixture(autouse=True)
def ran(request, worker):
    note("ran", request.node.name)

def note(*words):
    with open("notes", "a") as file:
        print(*words, file=file)
"""
TESTS = """
import os, signal, warnings
from pathlib import Path
import pytest

def test_that_is_killed():
    os.kill(os.getpid(), signal.SIGKILL)

def test_that_ends_its_process():
    os._exit(0)

@pytest.mark.alone
def test_alone():
    siblings = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text()
    assert siblings.split() == [str(os.getpid())]

@pytest.mark.parametrize("number", range(50))
def test_of_many(number, tmp_path):
    print("never shown")

def test_that_fails():
    print("said before")
    assert [1, 2] == [1, 3]

def test_that_warns():
    warnings.warn("careful", UserWarning)

@pytest.mark.skip(reason="not here")
def test_that_is_skipped(): ...

@pytest.fixture
def broken():
    raise OSError("no fixture")

def test_of_a_broken_fixture(broken): ...
"""


def _run(folder: Path, *words: str) -> str:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = alone\n")
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_each_runs_once_and_ends_as_in_one_process(tmp_path: Path) -> None:
    output = _run(tmp_path)
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    ran = Counter(word for kind, word in notes if kind == "ran")
    assert set(ran.values()) == {1}
    assert len(ran) == 50 + 6, "all but the skipped one"
    # Those that died were replaced, the last of them only if the others had left it a test. Last the process of the
    # test that ran alone.
    assert len({word for kind, word in notes if kind == "ended"}) in (2 + 1, 3 + 1)
    for line in (
        "FAILED test_it.py::test_that_fails - assert [1, 2] == [1, 3]",
        "FAILED test_it.py::test_that_is_killed - the process of this test ended with -9",
        "FAILED test_it.py::test_that_ends_its_process - the process of this test ended with 0",
        "ERROR test_it.py::test_of_a_broken_fixture - OSError: no fixture",
        "UserWarning: careful",
        "SKIPPED [1] test_it.py:",
        "PASSED test_it.py::test_alone",
        "3 failed, 52 passed, 1 skipped, 1 warning, 1 error in",
    ):
        assert line in output
    assert output.count("UserWarning: careful") == 1
    assert output.count("test session starts") == 1, "what was not written yet when they were forked"


@pytest.mark.slow
def test_no_test_is_handed_out_after_the_first_failure(tmp_path: Path) -> None:
    output = _run(tmp_path, "--exitfirst", "--deselect", "test_it.py::test_of_many")
    assert "stopping after" in output
    assert "test_alone" not in (tmp_path / "notes").read_text()
