"""Builds of the engine with sanitizers, of objects that they share."""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(target: str) -> Path:
    """Make a target of ``engine/Makefile``; returns the library of the sanitizers, for programs that load such a build.

    Skips without clang or its libraries.
    """
    if shutil.which("clang") is None:
        pytest.skip("no clang")
    runtime = subprocess.run(["clang", "-print-runtime-dir"], capture_output=True, text=True, check=True).stdout.strip()
    if not list(Path(runtime).glob("libclang_rt.fuzzer*")):
        pytest.skip(f"no libFuzzer in {runtime}: of Debian's libclang-rt-dev")
    (ROOT / "engine" / "build").mkdir(exist_ok=True)
    with open(ROOT / "engine" / "build" / ".lock", "wb") as lock:  # the tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--quiet", "--directory", str(ROOT / "engine"), target], check=True)
    return Path(runtime) / f"libclang_rt.asan-{platform.machine()}.so"
