"""The figures of bench_xdp as JSON, as plots, and as a table of the goals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
MEBI = 1 << 20
LIVE, RUN = WAYS = ("live", "test runs")
KINDS = ("hit", "addresses", "miss", "hit6", "hit6-clustered", "in-stack")
# CIDRs -> how many times cheaper than in the trie a hit must be.
CHEAPER = {"100": 4, "10000": 4, "100000": 4, "1000000": 8}

Row = tuple[str, str, str, bool | None]  # measurement, goal, result, reached


def write(result: Mapping[str, Any], name: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, name)


def rows(result: Mapping[str, Any]) -> Iterator[Row]:
    """Each goal, and whether it is reached; None if it was not measured."""
    for way in WAYS:
        missed = [above(found, "ours", way) for found in result["miss"].values()]
        worst = max((value for value in missed if value is not None), default=None)
        yield _row(f"miss, above parse-only, the worst of all sizes ({way})", 10, worst, "ns")
    for size, goal in CHEAPER.items():
        for way in WAYS:
            yield _cheaper(result["hit"].get(size), int(size), goal, way)
    yield _row(
        "64 entries with protocols and ports, above one (live)", 25, result["entries"]["above_one_entry_ns"], "ns"
    )
    for size in ("100", "10000", "100000"):
        for kind, name in (("hit6", "anywhere"), ("hit6-clustered", "in one /32")):
            for way in WAYS:
                yield _ratio6(result["hit"].get(size), result[kind].get(size), f"{int(size):,} CIDRs {name}", way)
    load = result["load"]
    if load["cidrs"] >= 1_000_000:
        yield _row(f"load {load['cidrs']:,} CIDRs, call to enforced", 0.5, load["load_s"], "s")
    yield _row(f"add one CIDR to {load['cidrs']:,}, call to enforced", 1, load["add_one_ms"], "ms")
    for family, size in result["memory"].items():
        yield _row(f"memory of 100,000 {family} CIDRs", 16, round(size / MEBI, 1), "MB")
    yield _capacity(result.get("capacity"))


def above(found: Mapping[str, Any] | None, name: str, way: str = LIVE) -> float | None:
    """What a contender costs above the base, in ns per frame."""
    figures = (found or {}).get(name, {})
    value = figures.get("above_ns") if way == LIVE else figures.get("test_run", {}).get("above_ns")
    return float(value) if value is not None else None


def _row(what: str, goal: float, found: float | None, unit: str) -> Row:
    if found is None:
        return what, f"at most {goal} {unit}", "not measured", None
    return what, f"at most {goal} {unit}", f"{found} {unit}", found <= goal


def _cheaper(found: Mapping[str, Any] | None, size: int, goal: int, way: str) -> Row:
    own, trie = above(found, "ours", way), above(found, "lpm-trie", way)
    what = f"hit in {size:,} CIDRs, cheaper than an LPM trie ({way})"
    if own is None or trie is None:
        return what, f"{goal} times", "not measured", None
    ratio = trie / max(own, 0.1)
    return what, f"{goal} times", f"{ratio:.1f} times (+{own:.0f} ns, trie +{trie:.0f} ns)", ratio >= goal


def _ratio6(four: Mapping[str, Any] | None, six: Mapping[str, Any] | None, name: str, way: str) -> Row:
    what = f"IPv6 hit to IPv4 hit, {name} ({way})"
    own, other = above(six, "ours", way), above(four, "ours", way)
    if own is None or other is None:
        return what, "at most 2 times", "not measured", None
    return what, "at most 2 times", f"{own / max(other, 0.1):.1f} times (+{own:.0f} ns)", own <= 2 * other


def _capacity(found: Mapping[str, Any] | None) -> Row:
    if found is None:
        return "capacity", "10,000,000 CIDRs", "not measured (--capacity)", None
    return "capacity", "10,000,000 CIDRs", f"{found['cidrs']:,} in {found['load_s']} s", True


def show(result: Mapping[str, Any]) -> None:
    """All figures, then the goals."""
    console = Console()
    host, pool = result["host"], result["pool"]
    console.print(f"Linux {host['kernel']}, {host['cpu']}; {pool['sources']:,} sources in {pool['bytes4']:,} bytes")
    for kind in KINDS:
        table = Table(
            title=f"{kind}: ns a frame above the first, live | test runs, medians of {result['rounds']} rounds"
        )
        found = result[kind]
        names = list(dict.fromkeys(name for figures in found.values() for name in figures))
        table.add_column("CIDRs", justify="right")
        for name in names:
            table.add_column(name, justify="right")
        for size, figures in found.items():
            table.add_row(f"{int(size):,}", *(_cell(figures.get(name)) for name in names))
        console.print(table)
    goals = Table(title="goals")
    for column in ("what", "goal", "found", ""):
        goals.add_column(column)
    for what, goal, value, reached in rows(result):
        goals.add_row(what, goal, value, {True: "reached", False: "not reached", None: ""}[reached])
    console.print(goals)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    if "unable" in figure:
        return str(figure["unable"])
    ways = [figure, *([figure["test_run"]] if "test_run" in figure else [])]
    return " | ".join(_above(item) for item in ways)


def _above(figure: Mapping[str, Any]) -> str:
    return f"+{figure['above_ns']:.0f} (±{figure['spread_ns']:.0f})" if figure["above_ns"] else f"{figure['ns']:.0f}"


def plot(result: Mapping[str, Any], name: str) -> None:
    """Hits and misses over the size of the list, as PNG and SVG. Without matplotlib, no plots."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
    titles = {"hit": "IPv4 hits", "miss": "IPv4 misses", "hit6": "IPv6 hits"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        for contender, style in (("ours", "o-"), ("lpm-trie", "s--")):
            points = [(int(size), above(found, contender)) for size, found in result[kind].items()]
            points = [(size, value) for size, value in points if value is not None]
            axis.plot(*zip(*points, strict=True), style, label=contender)
        axis.set(title=title, xscale="log", yscale="symlog", xlabel="CIDRs in the list")
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("ns a frame above parse-only")
    axes[0].legend()
    for suffix in ("png", "svg"):
        figure.savefig(RESULTS / f"{name}.{suffix}", dpi=110)
    pyplot.close(figure)
