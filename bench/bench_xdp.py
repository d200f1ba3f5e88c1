"""The XDP data path compared with its peers: ``./run bench``, or ``.venv/bin/python -m bench.bench_xdp --help``.

Two ways, both from 65,536 sources. *Live frames* go through a veth pair into the contender: the time of a frame
includes generating, sending and handling it. *Test runs* (``BPF_PROG_TEST_RUN``) run the program alone, over one frame
whose source changes each time. The result is the time *above* a program that only parses. Contenders take turns, a
slice at a time; figures are medians over the rounds. For misses, the programs are compiled to drop what they would
pass, so that the time of the network stack is not included.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from bench import contenders, extras, xdp_report
from bench.cidrs import POOL, misses4, nets4, nets6, sources4, sources6
from bench.contenders import Running, Unable
from bench.traffic import Traffic, traffic
from enforcer.model.nets import Nets

SIZES = (1, 100, 1_000, 10_000, 100_000, 1_000_000)
QUICK = (100, 10_000, 100_000)
IN_STACK_MOST = 100_000  # CIDRs for peers that take minutes to load more
# Frames of a slice: a clock that ticks every 4 ms tells nanoseconds apart only over some millions.
ROUNDS, LIVE, RUNS, SLOW = 9, 4_000_000, 4_000_000, 500_000
XDP = {"ours": contenders.ours, "lpm-trie": contenders.calico_shape}
IN_STACK = {
    "nft-netdev": contenders.nft_netdev,
    "nft-raw": contenders.nft_raw,
    "ipset-raw": contenders.ipset_raw,
}
Start = Callable[[Traffic, ExitStack, Nets, bool], Running]
Figures = dict[str, dict[str, Any]]


def measure(
    wire: Traffic,
    starts: Mapping[str, Start],
    base: tuple[str, Start],
    nets: Nets,
    *,
    misses: bool,
    version: int = 4,
    frames: int = LIVE,
) -> Figures:
    """Nanoseconds per frame of each contender, and above the base; or why it was not measured."""
    figures: Figures = {}
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        for name, start in (base, *starts.items()):
            try:
                running[name] = start(wire, stack, nets, misses)
            except (Unable, OSError) as error:
                figures[name] = {"unable": str(error)}
        live: dict[str, list[float]] = {name: [] for name in running}
        runs: dict[str, list[float]] = {name: [] for name, item in running.items() if item.program is not None}
        for _ in range(ROUNDS):
            for name, item in running.items():
                wire.send(item.pair, frames // 20, version=version)  # warms the caches after the previous contender
                live[name].append(wire.send(item.pair, frames, version=version))
            for name in runs:
                program = running[name].program
                assert program is not None
                wire.run(program, RUNS // 20, version=version)
                runs[name].append(wire.run(program, RUNS, version=version))
        for name, item in running.items():
            figures[name] = {**_summary(live[name], live[base[0]]), "load_s": round(item.load_s, 3)}
            if name in runs:
                figures[name]["test_run"] = _summary(runs[name], runs[base[0]])
            if item.memory is not None:
                figures[name]["memory"] = item.memory
    return figures


def _summary(times: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """The median, its difference to the median of the base, and the interquartile range."""
    lower, middle, upper = statistics.quantiles(times, n=4)
    return {
        "ns": round(middle, 1),
        "above_ns": round(middle - statistics.median(base), 1),
        "spread_ns": round(upper - lower, 1),
    }


def hits(wire: Traffic, size: int) -> Figures:
    nets = nets4(size)
    wire.sources4(sources4(nets))
    return measure(wire, XDP, ("parse-only", contenders.parse_only), nets, misses=False)


def hits_of_addresses(wire: Traffic, size: int) -> Figures:
    """Single addresses, because xdp-filter takes nothing else."""
    nets = nets4(4 * size)
    nets = Nets(nets.net4[:size], np.full(size, 32, np.uint8))
    wire.sources4(sources4(nets))
    starts = {**XDP, "xdp-filter": contenders.xdp_filter}
    return measure(wire, starts, ("parse-only", contenders.parse_only), nets, misses=False)


def misses(wire: Traffic, size: int) -> Figures:
    nets = nets4(size)
    wire.sources4(misses4(nets))
    return measure(wire, XDP, ("parse-only", contenders.parse_only), nets, misses=True)


def hits6(wire: Traffic, size: int, *, clustered: bool) -> Figures:
    nets = nets6(size, clustered=clustered)
    wire.sources6(sources6(nets))
    return measure(wire, XDP, ("parse-only", contenders.parse_only), nets, misses=False, version=6)


def in_stack(wire: Traffic, size: int) -> Figures:
    nets = nets4(size)
    wire.sources4(sources4(nets))
    base = ("empty stack", contenders.empty_stack)
    return measure(wire, IN_STACK, base, nets, misses=False, frames=SLOW)


def run(*, quick: bool, capacity: bool) -> dict[str, object]:
    sizes = QUICK if quick else SIZES
    found: dict[str, dict[str, Figures]] = {kind: {} for kind in xdp_report.KINDS}
    with traffic() as wire:
        for size in sizes:
            _say(f"{size:,} CIDRs")
            found["hit"][str(size)] = hits(wire, size)
            if size <= contenders.FILTER_MOST:
                found["addresses"][str(size)] = hits_of_addresses(wire, size)
            found["miss"][str(size)] = misses(wire, size)
            if size >= 100:
                found["hit6"][str(size)] = hits6(wire, size, clustered=False)
                found["hit6-clustered"][str(size)] = hits6(wire, size, clustered=True)
            if size <= (10_000 if quick else IN_STACK_MOST):
                found["in-stack"][str(size)] = in_stack(wire, size)
        more = extras.measure(wire, ROUNDS, LIVE, quick=quick, capacity=capacity)
    return {
        "schema": "dossim/bench-xdp/v1",
        "host": {"kernel": platform.release(), "cpu": _cpu(), "cpus": os.cpu_count()},
        "pool": {"sources": POOL, "bytes4": 4 * POOL, "bytes6": 16 * POOL},
        "rounds": ROUNDS,
        "frames": {"live": LIVE, "test run": RUNS, "in-stack": SLOW},
        **found,
        **more,
    }


def _cpu() -> str:
    with open("/proc/cpuinfo") as lines:
        return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _say(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="The XDP data path compared with its peers.")
    parser.add_argument("--quick", action="store_true", help="three sizes instead of six")
    parser.add_argument("--capacity", action="store_true", help="load 10,000,000 CIDRs as well")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    given = parsed(arguments)
    if os.geteuid() != 0:
        _say("bench_xdp needs root, for namespaces and XDP: left out")
        return
    started = time.monotonic()
    result = run(quick=given.quick, capacity=given.capacity)
    xdp_report.write(result, "xdp-quick" if given.quick else "xdp")
    xdp_report.show(result)
    _say(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
