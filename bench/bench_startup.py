"""What a command costs from start to end: ``.venv/bin/python -m bench.bench_startup`` (root for the enforcer's).

CPU time of the whole process, user and system, as the kernel accounts it to the parent, so including interpreter and
imports. Each command runs RUNS times, the commands taking turns; one run before compiles the bytecode. On a shared
machine, read the minimum. The policy is scenarios/policies/how-to.yaml: one interface, two CIDRs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench.bench_guard import namespace

ROOT = Path(__file__).parents[1]
POLICY = str(ROOT / "scenarios" / "policies" / "how-to.yaml")
RUNS = 20

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


def main() -> None:
    show(measured("dossim.cli", DOSSIM))
    if os.geteuid() == 0:
        with namespace():
            show(measured("enforcer.cli", ENFORCER))
    else:
        print("enforcer: not measured, which needs root")


def measured(module: str, commands: dict[str, list[str]], runs: int = RUNS) -> dict[str, list[float]]:
    """CPU seconds of each run of each command. Raises CalledProcessError if one fails."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, words in commands.items():
            took_s = cpu_s([sys.executable, "-m", module, *words])
            if run > 0:
                found[name].append(took_s)
    return found


def cpu_s(command: list[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime


def show(figures: dict[str, list[float]]) -> None:
    for name, runs_s in figures.items():
        print(f"{name:<34} {min(runs_s):.2f} s of CPU at least, median {statistics.median(runs_s):.2f} s")


if __name__ == "__main__":
    main()
