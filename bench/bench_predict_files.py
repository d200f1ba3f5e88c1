"""What whole commands take to read a capture: ``.venv/bin/python -m bench.bench_predict_files [--help]``.

``dossim predict``, and what others take for the same files: a filter on nets, copying, counting. Each command runs with
a small and with a large file of each kind, all in turn, several times. The marginal rate is that of the packets which
the large file has more, by the least CPU time of each: what a command costs once it has started.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from bench.flood import U32, kinds, lengthened, listed, policy_text, syn_flood, write
from dossim.packet.capture import Capture

RESULTS = Path(__file__).parent / "results"
_FEW = 1000
_PATIENCE_S = 15  # a command that takes longer for the small file does not get the large one
_FEWER = {"1,500 bytes": 10}  # packets of a kind are so many times fewer
_SLOW = {"tshark -Y": 25}  # files of a command are so many times smaller
_NETS = [str(ip_network((number * 0x9E3779B1 % 126 + 1 << 24 | number << 9, 24))) for number in range(20)]

Command = tuple[str, ...]  # with CAPTURE in the place of the file
Figures = dict[str, float]


@dataclass(frozen=True)
class Wanted:
    """What is measured: packets of the small and the large file; kinds and commands with one of these in the name."""

    packets: tuple[int, int] = (1_000_000, 8_000_000)
    runs: int = 3
    kinds: Sequence[str] = ("",)
    commands: Sequence[str] = ("",)


def commands(policy: Path) -> dict[str, Command]:
    """By name."""
    dossim = str(Path(sys.executable).with_name("dossim"))
    return {
        "dossim predict": (dossim, "predict", "CAPTURE", "-p", str(policy)),
        "dossim predict --tracked enforce": (dossim, "predict", "CAPTURE", "-p", str(policy), "--tracked", "enforce"),
        "tcpdump --count, a net": ("tcpdump", "--count", "-r", "CAPTURE", _sources(1)),
        "tcpdump --count, five nets": ("tcpdump", "--count", "-r", "CAPTURE", _sources(5)),
        "tcpdump --count, twenty nets": ("tcpdump", "--count", "-r", "CAPTURE", _sources(20)),
        "tcpdump -w": ("tcpdump", "-w", "/dev/null", "-r", "CAPTURE"),
        "capinfos -c": ("capinfos", "-c", "CAPTURE"),
        "tshark -Y": ("tshark", "-r", "CAPTURE", "-Y", f"ip.src == {_NETS[0]}"),
    }


def _sources(nets: int) -> str:
    """A filter as of a deny list of so many networks."""
    return " or ".join(f"src net {net}" for net in _NETS[:nets])


def _is_one(name: str, wanted: Sequence[str]) -> bool:
    return any(part in name for part in wanted)


def captures(packets: int, sources: U32) -> Iterator[tuple[str, Capture, bool]]:
    """Name, packets, and whether the file is pcapng."""
    yield "all from the list", syn_flood(packets, sources, others=False), False
    flood = syn_flood(packets, sources)
    yield "half from the list", flood, False
    yield "the same as pcapng", flood, True
    for name, capture in kinds(flood).items():
        yield name, capture, False
    yield "1,500 bytes", lengthened(syn_flood(packets // _FEWER["1,500 bytes"], sources)), False


def spent_s(command: Command, path: Path) -> tuple[float, float]:
    """CPU time, user and system, and the time until it ends."""
    words = [str(path) if word == "CAPTURE" else word for word in command]
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return used.ru_utime + used.ru_stime, time.monotonic() - started


def measured(
    files: Mapping[str, tuple[int, int, Path, Path]], names: Mapping[str, Command], runs: int
) -> dict[str, Any]:
    """By kind of file and command. ``files``: packets of the small and the large file, and both."""
    least: dict[tuple[str, str, int], list[float]] = {}
    for _ in range(runs):
        for kind, (_, _, *paths) in files.items():
            for name, command in names.items():
                for which, path in enumerate(paths):
                    if which and least[kind, name, 0][0] > _PATIENCE_S:
                        continue
                    found = spent_s(command, path)
                    before = least.setdefault((kind, name, which), [float("inf")] * 2)
                    least[kind, name, which] = [min(pair) for pair in zip(before, found, strict=True)]
    return {
        kind: {name: figures(small, large, *(least.get((kind, name, which)) for which in (0, 1))) for name in names}
        for kind, (small, large, *_) in files.items()
    }


def figures(small: int, large: int, of_small: list[float] | None, of_large: list[float] | None) -> Figures:
    """Packets a second: marginal by CPU time and by time, and of the whole command with the large file; in millions.
    Without a large file, and where the machine was too busy for a difference: of the whole command with the small one.
    """
    assert of_small is not None, "it is measured first"
    if of_large is None:
        small, large, of_small, of_large = 0, small, [0.0, 0.0], of_small
    rates = []
    for before, after in zip(of_small, of_large, strict=True):
        rates.append((large - small) / (after - before) if after > before else large / after)
    found = dict(zip(("marginal", "marginal_wall", "whole"), [*rates, large / of_large[0]], strict=True))
    return {name: round(rate / 1e6, 3) for name, rate in found.items()}


def written(folder: Path, sources: U32, wanted: Wanted, fewer: int = 1) -> dict[str, tuple[int, int, Path, Path]]:
    """The files of each kind."""
    found: dict[str, tuple[int, int, Path, Path]] = {}
    sizes: dict[str, list[int]] = {}
    for which, packets in enumerate(wanted.packets):
        for number, (kind, capture, pcapng) in enumerate(captures(packets // fewer, sources)):
            if not _is_one(kind, wanted.kinds):
                continue
            write(capture, folder / f"{number}-{which}-{fewer}", pcapng=pcapng)
            sizes.setdefault(kind, []).append(len(capture))
            if which:
                paths = [folder / f"{number}-{each}-{fewer}" for each in (0, 1)]
                found[kind] = (sizes[kind][0], sizes[kind][1], paths[0], paths[1])
    return found


def measure(wanted: Wanted) -> dict[str, Any]:
    sources = listed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policy.yaml").write_text(policy_text(sources))
        known = commands(folder / "policy.yaml")
        known = {
            name: command
            for name, command in known.items()
            if shutil.which(command[0]) and _is_one(name, wanted.commands)
        }
        if not known or not any(_is_one(kind, wanted.kinds) for kind, *_ in captures(_FEW, sources)):
            raise SystemExit("nothing to measure: no kind, or no command that is installed, has such a name")
        fast = {name: command for name, command in known.items() if name not in _SLOW}
        found = measured(written(folder, sources, wanted), fast, wanted.runs)
        for name, fewer in _SLOW.items():
            if name in known:
                few = written(folder, sources, wanted, fewer)
                for kind, slow in measured(few, {name: known[name]}, wanted.runs).items():
                    found[kind] |= slow
    return {"kernel": platform.release(), "load": os.getloadavg()[0], "packets": wanted.packets, "rates": found}


def show(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=200)
    for figure, title in (
        ("marginal", "marginal, M packets a second of CPU"),
        ("marginal_wall", "marginal, M packets a second"),
        ("whole", "whole command with the large file, M packets a second of CPU"),
    ):
        table = Table(title=title)
        names = list(next(iter(result["rates"].values())))
        table.add_column("")
        for name in names:
            table.add_column(name, justify="right")
        for kind, rates in result["rates"].items():
            table.add_row(kind, *(f"{rates[name][figure]:.3g}" for name in names))
        console.print(table)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The marginal rates, as PNG and SVG. Without matplotlib, no plots."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = result["rates"]
    names = list(next(iter(rates.values())))
    figure, axis = pyplot.subplots(figsize=(13, 4.6), layout="constrained")
    width = 0.9 / len(names)
    for number, name in enumerate(names):
        places = [at + (number - len(names) / 2) * width for at in range(len(rates))]
        axis.bar(places, [rates[kind][name]["marginal"] for kind in rates], width, label=name)
    axis.set_xticks(range(len(rates)), list(rates), rotation=15)
    axis.set(ylabel="M packets a second of CPU, marginal", yscale="log")
    axis.grid(visible=True, axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small", ncols=4)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=110)
    pyplot.close(figure)


def parsed(arguments: list[str] | None) -> tuple[Wanted, str | None]:
    """What is measured, and the name of the files that have it."""
    parser = argparse.ArgumentParser(prog="bench.bench_predict_files")
    parser.add_argument(
        "-o", "--output", metavar="NAME", help="write NAME.json, NAME.png and NAME.svg in bench/results"
    )
    parser.add_argument(
        "--kind", action="append", help="only kinds of packets with this in their name; may be repeated"
    )
    parser.add_argument("--command", action="append", help="only commands with this in their name; may be repeated")
    parser.add_argument("--packets", nargs=2, type=int, metavar=("SMALL", "LARGE"), default=Wanted.packets)
    parser.add_argument("--runs", type=int, default=Wanted.runs)
    parser.add_argument("--one-cpu", action="store_true", help="each command on one CPU")
    found = parser.parse_args(arguments)
    small, large = found.packets
    if not _FEW <= small < large:
        parser.error(f"--packets: at least {_FEW}, and more in the large file")
    if found.runs < 1:
        parser.error("--runs: at least 1")
    if found.one_cpu:
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    return Wanted(
        (small, large), found.runs, found.kind or Wanted.kinds, found.command or Wanted.commands
    ), found.output


def main(arguments: list[str] | None = None) -> None:
    wanted, output = parsed(arguments)
    result = measure(wanted)
    show(result)
    if output:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{output}.json").write_text(json.dumps(result, indent=1) + "\n")
        plot(result, RESULTS / output)


if __name__ == "__main__":
    main()
