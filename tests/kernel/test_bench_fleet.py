"""The benchmark of a fleet measures what it claims, and leaves nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_root, pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).parents[2]


def test_each_part_has_figures() -> None:
    if shutil.which("etcd") is None:
        pytest.skip("no etcd; as root, './run setup' installs etcd-server")
    words = [
        "--agents",
        "6",
        "--processes",
        "2",
        "--hosts",
        "6",
        "--connect-over",
        "0.5",
        "--idle",
        "1",
        "--outage",
        "1",
    ]
    command = [sys.executable, "-m", "bench.bench_fleet", *words]
    bench = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text, _ = bench.communicate(timeout=600)
    assert bench.returncode == 0, text
    for part in ("watching after", "idle for 1 s", "changes of the small set", "changes of the large set"):
        assert text.count(part) == 2, f"{part}: with and without the proxy\n{text}"
    changed = re.findall(r"changes of the large set .*\n.* ([0-9.]+) MB", text)
    assert all(5 * 6 * 0.9 < float(size) < 200 for size in changed), "each change is sent to each agent"
    assert "lists: 0;" in text, "agents go on where they were"
    assert "1 s away and compacted: listed again after" in text
    assert not Path(f"/run/netns/bench-fleet-{bench.pid}").exists()
