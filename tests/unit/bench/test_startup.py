"""The start-up bench measures whole processes, and stops if one fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.bench_startup import cpu_s, measured


def test_each_command_gets_a_figure_for_each_run() -> None:
    found = measured("dossim.cli", {"version": ["--version"]}, runs=2)
    (runs_s,) = found.values()
    assert len(runs_s) == 2
    assert all(took_s > 0 for took_s in runs_s)


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        cpu_s([sys.executable, "-c", "raise SystemExit(2)"])


def test_the_time_is_that_of_the_process() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    assert cpu_s([sys.executable, "-c", busy]) >= 0.3
