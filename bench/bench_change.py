"""What a change costs a running agent: ``.venv/bin/python -m bench.bench_change`` (root).

An agent (``enforcer run``, a process of its own) in a separate namespace follows a directory with SETS network sets of
CIDRS CIDRs in all. Then a file with a network set of ten CIDRs is added, many times. Reported: the CPU time of the
agent, user and system, from the write to the log line that says that it is enforced, and until the agent rests again;
the time from write to log line; start, memory, and idling. Arguments:
``[--changes N] [--only TEXT] [ENFORCER ...]``; with several ENFORCER (paths of the command, of other versions) the
cases alternate between them.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.bench_guard import NODE, namespace
from bench.cidrs import nets4

IDLE_S = 30.0
_APPLIED = "policy applied"
_DEADLINE_S = 120.0
_BASE = f"""apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: e, labels: {{role: edge}}}}
spec: {{node: {NODE}, interfaceName: eth0}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: dos}}
spec:
  selector: role == 'edge'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress: [{{action: Deny, source: {{selector: "deny == 'all'"}}}}]
"""


@dataclass(frozen=True)
class Case:
    name: str
    options: tuple[str, ...]
    cidrs: int
    sets: int
    changes: int


def cases(changes: int) -> list[Case]:
    native, raw = ("--mode", "native"), ("--mode", "raw")
    ipset, nft = ("--raw-backend", "iptables"), ("--raw-backend", "nftables")
    return [
        Case("XDP, iptables and ipset", (*native, *ipset), 100_000, 50, changes),
        Case("XDP, nftables", (*native, *nft), 100_000, 50, changes),
        Case("iptables and ipset", (*raw, *ipset), 100_000, 50, changes),
        Case("nftables", (*raw, *nft), 100_000, 50, changes),
        Case("one file, XDP, iptables and ipset", (*native, *ipset), 1_000_000, 1, 0),
    ]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--only", default="", help="the cases with this in their names")
    parser.add_argument("enforcers", nargs="*", default=[str(Path(sys.executable).with_name("enforcer"))])
    given = parser.parse_args(arguments)
    for case in [item for item in cases(given.changes) if given.only in item.name]:
        for command in given.enforcers:
            print(
                f"{case.cidrs:,} CIDRs in {case.sets} sets, {case.name}, {command}:\n  {measured(case, command)}",
                flush=True,
            )


def measured(case: Case, command: str) -> str:
    """One line of results."""
    with tempfile.TemporaryDirectory() as scratch, namespace():
        folder = Path(scratch, "policy")
        folder.mkdir()
        _write(folder, case)
        state = Path(scratch, "state")
        state.mkdir(mode=0o700)
        with Agent(
            [command, "run", "-f", str(folder), "--state-dir", str(state), "--node", NODE, *case.options]
        ) as run:
            run.applied()
            start_s = run.cpu_s()
            run.rest()
            results = [f"start {start_s:.2f} s of CPU, at most {run.memory_mb():.0f} MB"]
            if case.changes:
                results += _changed(run, folder, case.changes)
                results.append(f"idle {_idle(run):.3f} %; at most {run.memory_mb():.0f} MB")
        subprocess.run([command, "detach"], check=True, stdout=subprocess.DEVNULL)
    return "; ".join(results)


def _changed(run: Agent, folder: Path, changes: int) -> Iterator[str]:
    rng = np.random.default_rng(4)
    rows = []
    for number in range(changes):
        listed = rng.integers(1 << 24, 223 << 24, 10).tolist()
        cidrs = [".".join(map(str, value.to_bytes(4, "big"))) + "/32" for value in listed]
        before_s, since_s = run.cpu_s(), time.monotonic()
        _put(folder / f"new{number:03}.yaml", _set(f"new{number:03}", cidrs))
        run.applied()
        rows.append((run.cpu_s() - before_s, time.monotonic() - since_s))
        run.rest()
        rows[-1] += (run.cpu_s() - before_s,)
    for name, column in zip(("CPU until enforced", "time until enforced", "CPU in all"), np.array(rows).T, strict=True):
        yield f"{name}, ms: p50 {1000 * np.median(column):.0f}, p99 {1000 * np.quantile(column, 0.99):.0f}"


def _idle(run: Agent) -> float:
    """The share of one CPU in percent, once the passes that check the last change are over."""
    time.sleep(5.0)
    before_s = run.cpu_s()
    time.sleep(IDLE_S)
    return 100 * (run.cpu_s() - before_s) / IDLE_S


def _write(folder: Path, case: Case) -> None:
    _put(folder / "base.yaml", _BASE)
    listed = [str(net) for net in nets4(case.cidrs)]
    order = np.random.default_rng(3).permutation(len(listed))
    for number, part in enumerate(np.array_split(order, case.sets)):
        _put(folder / f"set{number:03}.yaml", _set(f"set{number:03}", [listed[at] for at in part.tolist()]))


def _set(name: str, cidrs: Sequence[str]) -> str:
    head = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\n"
    named = f"metadata:\n  name: {name}\n  labels:\n    deny: all\nspec:\n  nets:\n"
    return head + named + "".join(f"  - {cidr}\n" for cidr in cidrs)


def _put(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


class Agent:
    """A running agent, and what it has taken so far."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_DEADLINE_S)
        self._reader.join()

    def applied(self) -> None:
        """Wait until the next policy is enforced."""
        while _APPLIED not in self._lines.get(timeout=_DEADLINE_S):
            pass

    def rest(self) -> None:
        """Wait until it does nothing."""
        before_s = -1.0
        while before_s != (now_s := self.cpu_s()):
            before_s = now_s
            time.sleep(0.06)

    def cpu_s(self) -> float:
        """The CPU time so far, user and system (the process's CPU clock, clock_getcpuclockid(3))."""
        return time.clock_gettime(~self._process.pid << 3 | 2)

    def memory_mb(self) -> float:
        """The most memory so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.put(line)


if __name__ == "__main__":
    main(sys.argv[1:])
