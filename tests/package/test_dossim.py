"""The wheel, installed as pipx does: in an environment of its own, away from the tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from enforcer import __version__
from tools.package.deb import ROOT


def test_dossim_runs_a_scenario_from_its_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    uv = str(Path(sys.executable).with_name("uv"))
    words = ["tool", "install", "--quiet", "--python", sys.executable, "--constraints", "requirements/sim.txt"]
    subprocess.run([uv, *words, f"dossim[sim] @ {wheel.resolve().as_uri()}"], check=True, cwd=ROOT, env=environment)

    def said(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said(str(tmp_path / "bin/dossim"), "--version") == f"dossim, version {__version__}\n"
    assert said(str(tmp_path / "bin/enforcer"), "--version") == f"enforcer, version {__version__}\n"
    scenario = ROOT / "scenarios/demo.scenario.yaml"
    assert "4,500" in said(str(tmp_path / "bin/dossim"), "run", "--predict-only", str(scenario))
