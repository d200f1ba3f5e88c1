"""The benchmark of an emergency deny measures what it claims, and leaves nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def test_it_has_figures() -> None:
    if shutil.which("etcd") is None:
        pytest.skip("no etcd; as root, './run setup' installs etcd-server")
    words = ["--rounds", "1", "--cidrs", "1000", "--rate", "100"]
    command = [sys.executable, "-m", "bench.bench_emergency", *words]
    bench = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text, _ = bench.communicate(timeout=300)
    assert bench.returncode == 0, text
    assert len(re.findall(r"p50 \d+\.\d{3} s, p99 \d+\.\d{3} s, most \d+\.\d{3} s", text)) == 2, text
    assert not list(Path("/run/netns").glob(f"bench-emergency-{bench.pid}*"))
