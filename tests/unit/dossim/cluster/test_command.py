"""What ``dossim predict --scheduler`` refuses before it asks a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dossim.cli import main

ROOT = Path(__file__).parents[4]
POLICY = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
CAPTURE = str(ROOT / "tests" / "counterexamples" / "fragment-dropped-before-it-overlaps.pcap")
HERE = ["--scheduler", "tcp://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        pytest.param(["-", *HERE], "the workers cannot read the standard input", id="stdin"),
        pytest.param(["s3://some/x.pcap"], "URLs are read with --scheduler", id="a URL without a cluster"),
        pytest.param([CAPTURE, *HERE, "--sample", "5"], "--sample: not with --scheduler", id="a sample"),
        pytest.param([CAPTURE, *HERE, "--progress"], "--progress: not with --scheduler", id="progress"),
        pytest.param([CAPTURE, *HERE, "--shard-size", "x"], "'x' is not a size", id="a size that is none"),
        pytest.param([CAPTURE, "--scheduler", ""], "empty value", id="no address"),
    ],
)
def test_what_is_refused(words: list[str], error: str) -> None:
    done = CliRunner().invoke(main, ["predict", *words, "-p", POLICY])
    assert (done.exit_code, done.stdout) == (2, "")
    assert error in done.stderr
