"""What a change costs a running agent: ``.venv/bin/python -m bench.bench_change`` (root).

An agent (``enforcer run``, a process of its own) in a separate namespace follows a directory, or an etcd, with SETS
network sets of CIDRS CIDRs in all. Then a network set of ten CIDRs is added, many times. Reported: the CPU time of the
agent, user and system, from the write to the log line that says that it is enforced, and from then until the agent
rests again, which includes the pass a second later that checks the change; the time from the write to the log line;
start, memory, and idling, in brackets that of a process that only wakes up each second. A case without changes also
runs ``dossim validate`` and ``enforcer apply``. Arguments: ``[--changes N] [--idle SECONDS] [--only TEXT] [ENFORCER
...]``; with several ENFORCER (paths of the command, of other versions) the cases alternate between them.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.bench_guard import NODE, namespace
from bench.change_stores import ETCD_ENVIRONMENT, Files, Store, etcd
from bench.cidrs import nets4

IDLE_S = 180.0  # with a pass each 90 s (ipsetsRefreshInterval, xdpRefreshInterval)
_CHECKED_S = 1.3  # after a change, the pass that checks it has begun
_APPLIED = "policy applied"
_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Case:
    name: str
    options: tuple[str, ...]
    cidrs: int
    sets: int
    changes: int
    etcd: bool = False


def cases(changes: int) -> list[Case]:
    native, raw = ("--mode", "native"), ("--mode", "raw")
    ipset, nft = ("--raw-backend", "iptables"), ("--raw-backend", "nftables")
    return [
        Case("XDP, iptables and ipset", (*native, *ipset), 100_000, 50, changes),
        Case("XDP, nftables", (*native, *nft), 100_000, 50, changes),
        Case("iptables and ipset", (*raw, *ipset), 100_000, 50, changes),
        Case("nftables", (*raw, *nft), 100_000, 50, changes),
        Case("etcd, XDP, iptables and ipset", (*native, *ipset), 100_000, 50, changes, etcd=True),
        Case("etcd, XDP, nftables", (*native, *nft), 100_000, 50, changes, etcd=True),
        Case("one file, XDP, iptables and ipset", (*native, *ipset), 1_000_000, 1, 0),
    ]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--idle", type=float, default=IDLE_S, help="for how long it is watched idling, s")
    parser.add_argument("--only", default="", help="the cases with this in their names")
    parser.add_argument("enforcers", nargs="*", default=[str(Path(sys.executable).with_name("enforcer"))])
    given = parser.parse_args(arguments)
    for case in [item for item in cases(given.changes) if given.only in item.name]:
        for command in given.enforcers:
            found = measured(case, command, given.idle)
            print(f"{case.cidrs:,} CIDRs in {case.sets} sets, {case.name}, {command}:\n  {found}", flush=True)


def measured(case: Case, command: str, idle_s: float = IDLE_S) -> str:
    """One line of results."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(namespace())
        store: Store = stack.enter_context(etcd(scratch)) if case.etcd else Files(scratch / "policy")
        _write(store, case)
        state = scratch / "state"
        state.mkdir(mode=0o700)
        results = []
        if not case.changes:
            validate = [str(Path(command).with_name("dossim")), "validate", store.options[-1]]
            apply = [command, "apply", *store.options, "--node", NODE, *case.options]
            results = [f"dossim validate {_process(validate)}", f"enforcer apply {_process(apply)}"]
            subprocess.run([command, "detach"], check=True, stdout=subprocess.DEVNULL)
        words = [command, "run", *store.options, "--state-dir", str(state), "--node", NODE, *case.options]
        since_s = time.monotonic()
        with Agent(words, env=os.environ | ETCD_ENVIRONMENT) as run:
            run.applied()
            start_s, waited_s = run.cpu_s(), time.monotonic() - since_s
            time.sleep(_CHECKED_S)
            run.rest()
            results.append(f"start {start_s:.2f} s of CPU, {waited_s:.2f} s; at most {run.memory_mb():.0f} MB")
            if case.changes:
                results += _changed(run, store, case.changes)
                share, empty = _idle(run, idle_s)
                results.append(f"idle {share:.3f} % ({empty:.3f} %); at most {run.memory_mb():.0f} MB")
        subprocess.run([command, "detach"], check=True, stdout=subprocess.DEVNULL)
    return "; ".join(results)


def _process(words: Sequence[str]) -> str:
    """CPU time, time and memory of a command, from call to end."""
    since_s = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    took_s = time.monotonic() - since_s
    return f"{used.ru_utime + used.ru_stime:.2f} s of CPU, {took_s:.2f} s; at most {used.ru_maxrss / 1024:.0f} MB"


def _changed(run: Agent, store: Store, changes: int) -> Iterator[str]:
    rng = np.random.default_rng(4)
    rows = []
    for number in range(changes):
        listed = rng.integers(1 << 24, 223 << 24, 10).tolist()
        cidrs = [".".join(map(str, value.to_bytes(4, "big"))) + "/32" for value in listed]
        run.forget()
        before_s, since_s = run.cpu_s(), time.monotonic()
        store.put_set(f"new{number:03}", cidrs)
        run.applied()
        enforced_s = run.cpu_s()
        rows.append((enforced_s - before_s, time.monotonic() - since_s))
        time.sleep(_CHECKED_S)
        run.rest()
        rows[-1] += (run.cpu_s() - enforced_s,)
    names = ("CPU until enforced", "time until enforced", "CPU afterwards")
    for name, column in zip(names, np.array(rows).T, strict=True):
        p50, p99 = 1000 * np.quantile(column, [0.5, 0.99])
        yield f"{name}, ms: p50 {p50:.0f}, p99 {p99:.0f}, max {1000 * column.max():.0f}"


def _idle(run: Agent, idle_s: float) -> tuple[float, float]:
    """The share of one CPU in percent, once the passes that check the last change are over; and beside it that of this
    process, which does nothing but wake up each second. A CPU that was halted charges whoever wakes it: on one
    virtual machine 0.04 to 0.28 ms, and at times 6 ms, for nothing.
    """
    time.sleep(5.0)
    before_s, mine_s, since_s = run.cpu_s(), time.process_time(), time.monotonic()
    while time.monotonic() < since_s + idle_s:
        time.sleep(1.0)
    took_s = time.monotonic() - since_s
    return 100 * (run.cpu_s() - before_s) / took_s, 100 * (time.process_time() - mine_s) / took_s


def _write(store: Store, case: Case) -> None:
    store.put_base()
    listed = [str(net) for net in nets4(case.cidrs)]
    order = np.random.default_rng(3).permutation(len(listed))
    for number, part in enumerate(np.array_split(order, case.sets)):
        store.put_set(f"set{number:03}", [listed[at] for at in part.tolist()])


class Agent:
    """A running agent, and what it has taken so far."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
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
        until_s = time.monotonic() + _DEADLINE_S
        while _APPLIED not in self._lines.get(timeout=max(0.0, until_s - time.monotonic())):
            pass

    def forget(self) -> None:
        """Drop the lines of what happened so far."""
        while not self._lines.empty():
            self._lines.get()

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
