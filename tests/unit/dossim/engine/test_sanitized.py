"""Tests of what the engine does, with a build that stops at the first bad access or undefined operation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dossim.engine.library import ANOTHER, LIBRARY
from tests.support import checked_engine
from tests.support.examples import PROFILE

ROOT = Path(__file__).parents[4]
SANITIZED = LIBRARY.with_name("libengine.sanitize.so")
# Those that call the engine most; at night all of them.
FEW = (
    *("capture_fuzz", "cover", "cut_packets", "following", "fragments"),
    *("ordinary", "streamed", "sweep", "usual"),
)
PROPERTIES = (
    *(f"tests/property/test_{name}.py" for name in FEW),
    # The rows of this file do not call the engine.
    "tests/property/test_host_xdp.py::test_it_drops_what_is_predicted_also_of_mutated_frames",
)
TESTS = ("tests/unit/dossim/predict", *(["tests/property"] if PROFILE == "nightly" else PROPERTIES))


@pytest.mark.slow
def test_nothing_is_accessed_that_must_not_be() -> None:
    environment = {
        **os.environ,
        "LD_PRELOAD": str(checked_engine.make("sanitize")),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
        "HYPOTHESIS_PROFILE": "nightly" if PROFILE == "nightly" else "quick",
        ANOTHER: str(SANITIZED),
    }
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
