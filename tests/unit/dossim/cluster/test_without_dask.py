"""An installation without ``dossim[dask]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
POLICY = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
CAPTURE = str(ROOT / "tests" / "counterexamples" / "fragment-dropped-before-it-overlaps.pcap")
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("distributed", "dask", "fsspec"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from dossim.cli import main
main(sys.argv[1:], prog_name="dossim")
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT, *words], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_says_what_is_missing() -> None:
    done = run("predict", CAPTURE, "-p", POLICY, "--scheduler", "tcp://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: --scheduler needs Dask (distributed is missing): pip install 'dossim[dask]'\n"
    assert run("predict", CAPTURE, "-p", POLICY).returncode == 0
