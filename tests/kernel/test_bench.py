"""The benchmark measures what it claims: every contender drops its hits, and none its misses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import bench_xdp, contenders
from bench.bench_xdp import XDP
from bench.cidrs import misses4, nets4, sources4
from bench.traffic import Traffic, frame4, traffic
from dossim.lab import names
from enforcer.kernel.bpf.programs import test_run as run_once

pytestmark = pytest.mark.needs_root

XDP_DROP, XDP_PASS = 1, 2
ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def wire() -> Iterator[Traffic]:
    with traffic() as found:
        yield found


@pytest.mark.parametrize("name", XDP)
def test_hits_are_dropped_and_misses_pass(wire: Traffic, name: str) -> None:
    nets = nets4(1_000)
    with ExitStack() as stack:
        running = XDP[name](wire, stack, nets, False)
        assert running.program is not None
        for sources, verdict in ((sources4(nets), XDP_DROP), (misses4(nets), XDP_PASS)):
            for source in sources[:200].tolist():
                frame = frame4()[:26] + source.to_bytes(4, "big") + frame4()[30:]
                assert run_once(running.program, frame)[0] == verdict


def test_every_contender_gets_figures(wire: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 2, "RUNS": 2_000}.items():
        monkeypatch.setattr(bench_xdp, name, value)
    nets = nets4(100)
    wire.sources4(sources4(nets))
    found = bench_xdp.measure(wire, XDP, ("parse-only", contenders.parse_only), nets, misses=False, frames=2_000)
    assert found.keys() == {"parse-only", *XDP}
    for figure in found.values():
        assert figure["ns"] > 0
        assert figure["test_run"]["ns"] > 0
    others = bench_xdp.measure(
        wire, bench_xdp.IN_STACK, ("empty stack", contenders.empty_stack), nets, misses=False, frames=2_000
    )
    assert all("ns" in figure or "unable" in figure for figure in others.values())


def started() -> subprocess.Popen[str]:
    """The whole measurement, as ``./run bench`` runs it, on existing interface pairs."""
    words = [sys.executable, "-u", "-m", "bench.bench_xdp", "--quick"]
    bench = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + DEADLINE_S
    while len(left_of(bench)) < 5:
        assert bench.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "it makes no namespaces"
        time.sleep(0.05)
    return bench


def left_of(bench: subprocess.Popen[str]) -> set[str]:
    """Namespaces, pins and temporary files."""
    folders = (names.NETNS_DIR, names.PIN_ROOT, Path(tempfile.gettempdir()))
    return {str(path) for folder in folders for path in folder.glob(f"{names.PREFIX}-{bench.pid}-*")}


def test_it_gives_back_the_cpus() -> None:
    """A process that goes on after it, such as this one, may use all of them again."""
    allowed = os.sched_getaffinity(0)
    with traffic():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == allowed


def test_ended_by_sigterm_it_leaves_nothing() -> None:
    bench = started()
    bench.send_signal(signal.SIGTERM)
    assert bench.wait(timeout=DEADLINE_S) == -signal.SIGTERM
    assert left_of(bench) == set()


def test_what_a_killed_one_left_is_removed_by_the_next() -> None:
    bench = started()
    bench.kill()
    bench.wait()
    assert left_of(bench)
    with traffic():
        assert left_of(bench) == set()
