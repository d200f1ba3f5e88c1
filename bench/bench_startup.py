"""What a command costs from start to end: ``.venv/bin/python -m bench.bench_startup [CHECKOUT ...]`` (root for the
enforcer's).

CPU time of the whole process, user and system, as the kernel accounts it to the parent, so including interpreter and
imports. Each command runs RUNS times, the commands taking turns; one run before compiles the bytecode. On a shared
machine, read the minimum. The policy is scenarios/policies/how-to.yaml: one interface, two CIDRs; of ``predict`` also
LISTED sources as /32 and as /128, and a capture of PACKETS packets. An agent is measured until it logs that the policy
is enforced, with CIDRS CIDRs in SETS files. With several CHECKOUTs (folders with an engine that is built), their
commands take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.bench_change import Agent
from bench.bench_guard import NODE, namespace
from bench.change_stores import Files
from bench.cidrs import nets4
from bench.flood import SOURCES as LISTED
from bench.flood import listed, policy_text, syn_flood, write

ROOT = Path(__file__).parents[1]
POLICY = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
RUNS, STARTS = 20, 6
PACKETS = 100
CIDRS, SETS = 100_000, 50

DOSSIM = {
    "dossim --version": ["--version"],
    "dossim validate": ["validate", POLICY],
    "dossim lint": ["lint", POLICY],
    "dossim plan": ["plan", "-p", POLICY],
}
# In this order: apply a policy, apply it again, show its status, detach it.
ENFORCER = {
    "enforcer apply, the first": ["apply", "-f", POLICY, "--node", "jasper"],
    "enforcer apply, nothing to change": ["apply", "-f", POLICY, "--node", "jasper"],
    "enforcer status": ["status"],
    "enforcer detach": ["detach"],
}
AGENTS = {
    "XDP, iptables and ipset": ["--mode", "native", "--raw-backend", "iptables"],
    "XDP, nftables": ["--mode", "native", "--raw-backend", "nftables"],
}


def main(checkouts: Sequence[str] = ()) -> None:
    roots = [Path(name).resolve() for name in checkouts] or [ROOT]
    with predictions() as commands:
        show(measured("dossim.cli", DOSSIM | commands, roots=roots))
    if os.geteuid() == 0:
        with namespace():
            show(measured("enforcer.cli", ENFORCER, roots=roots))
        show(agents(roots))
    else:
        print("enforcer: not measured, which needs root")


@contextmanager
def predictions() -> Iterator[dict[str, list[str]]]:
    """Commands that predict a short capture, with a short and a long list."""
    with tempfile.TemporaryDirectory() as folder:
        capture, policy = Path(folder, "flood.pcap"), Path(folder, "policy.yaml")
        sources = listed()
        write(syn_flood(PACKETS, sources), capture)
        policy.write_text(policy_text(sources))
        yield {
            "dossim predict": ["predict", str(capture), "-p", POLICY],
            f"dossim predict, {2 * LISTED:,} listed": ["predict", str(capture), "-p", str(policy)],
        }


def measured(
    module: str, commands: Mapping[str, list[str]], runs: int = RUNS, roots: Sequence[Path] = (ROOT,)
) -> dict[str, list[float]]:
    """CPU seconds of each run of each command. Raises CalledProcessError if one fails."""
    found: dict[str, list[float]] = {}
    for run in range(runs + 1):
        for root in roots:
            for name, words in commands.items():
                took_s = cpu_s([sys.executable, "-m", module, *words], root)
                if run > 0:
                    found.setdefault(_named(name, root), []).append(took_s)
    return found


def cpu_s(command: list[str], root: Path = ROOT) -> float:
    process = subprocess.Popen(
        command, cwd=root, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime


def agents(roots: Sequence[Path], runs: int = STARTS) -> dict[str, list[float]]:
    """CPU seconds of agents until the policy is enforced for the first time."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Files(Path(folder, "policy"))
        store.put_base()
        texts = np.array([str(net) for net in nets4(CIDRS)])
        for number, part in enumerate(np.array_split(np.random.default_rng(3).permutation(texts), SETS)):
            store.put_set(f"set{number:03}", part.tolist())
        for run in range(runs + 1):
            for root in roots:
                for name, options in AGENTS.items():
                    with tempfile.TemporaryDirectory() as state:
                        took_s = _until_applied(root, [*store.options, "--state-dir", state, *options])
                    if run > 0:
                        found.setdefault(_named(f"enforcer run, {CIDRS:,} CIDRs, {name}", root), []).append(took_s)
    return found


def _until_applied(root: Path, options: Sequence[str]) -> float:
    enforcer = ["env", "-C", str(root), sys.executable, "-m", "enforcer.cli"]  # env(1) becomes the agent
    with namespace():
        with Agent([*enforcer, "run", "--node", NODE, *options], env=_environment()) as agent:
            agent.applied()
            took_s = agent.cpu_s()
        subprocess.run([*enforcer, "detach"], check=True, env=_environment(), stdout=subprocess.DEVNULL)
    return took_s


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _named(name: str, root: Path) -> str:
    return name if root == ROOT else f"{name}, {root}"


def show(figures: Mapping[str, list[float]]) -> None:
    for name, runs_s in figures.items():
        print(f"{name:<60} {min(runs_s):.2f} s of CPU at least, median {statistics.median(runs_s):.2f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
