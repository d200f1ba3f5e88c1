"""The benchmark measures what it says: its hits are dropped by every contender, its misses by none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bench import bench_xdp, contenders
from bench.bench_xdp import XDP
from bench.cidrs import misses4, nets4, sources4
from bench.traffic import Traffic, frame4, traffic
from enforcer.kernel.bpf import test_run as run_once

pytestmark = pytest.mark.needs_root

XDP_DROP, XDP_PASS = 1, 2


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
