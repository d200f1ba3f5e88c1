"""What metrics cost an idle agent: ``.venv/bin/python -m bench.bench_monitor`` (root).

A separate namespace has one interface and one deny list of CIDRS CIDRs, and an agent with its checks each second. The
benchmark measures the agent's CPU time, user and system, over SECONDS seconds, and its memory: without metrics, with
metrics that nobody reads and with the textfile. Then it scrapes the same agent every two seconds for as long: what
that takes more is the cost of a scrape.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from bench.bench_guard import CIDRS, NODE, namespace, policy_file

SECONDS = 60
EVERY_S = 2.0
SETTLES_S = 20.0
ADDRESS = "127.0.0.1:9091"

SERVED = "metrics, nobody asks"
WAYS = {
    "no metrics": (),
    SERVED: ("--metrics-addr", ADDRESS, "--health-addr", "127.0.0.1:9099"),
    "the textfile": ("--metrics-textfile", "{folder}/enforcer.prom"),
}


def main() -> None:
    for mode in ("native", "raw"):
        for name, words in WAYS.items():
            with namespace(), _loopback(), running(mode, words) as pid:
                if name == SERVED:
                    _scrape()  # the first one imports
                share = used_s(pid) / SECONDS
                print(f"{mode}, {CIDRS:,} CIDRs, {name}: {100 * share:.3f} % of one CPU, {_memory_mib(pid):.0f} MiB")
                if name == SERVED:
                    scrapes_s = used_s(pid, every_s=EVERY_S) - share * SECONDS
                    print(f"{mode}, {CIDRS:,} CIDRs: a scrape takes {1000 * scrapes_s / (SECONDS / EVERY_S):.1f} ms")
            sys.stdout.flush()


def used_s(pid: int, *, every_s: float = 0.0) -> float:
    """The CPU time that the process takes in SECONDS seconds, with a scrape each ``every_s``."""
    started_s, before_s = time.monotonic(), _cpu_s(pid)
    while (left_s := started_s + SECONDS - time.monotonic()) > 0:
        time.sleep(min(left_s, every_s or left_s))
        if every_s:
            _scrape()
    return _cpu_s(pid) - before_s


def _cpu_s(pid: int) -> float:
    """CPU time of a process, with threads that have ended (CPUCLOCK_SCHED of clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def _memory_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)


def _scrape() -> None:
    with urllib.request.urlopen(f"http://{ADDRESS}/metrics", timeout=10) as answer:
        answer.read()


@contextmanager
def running(mode: str, words: tuple[str, ...]) -> Iterator[int]:
    """The pid of an agent that has settled."""
    with tempfile.TemporaryDirectory() as folder:
        policy_file(Path(folder) / "policy.yaml")
        of_mode = [word.format(folder=folder) for word in words]
        command = [sys.executable, "-m", "enforcer.cli", "run", "-f", f"{folder}/policy.yaml", "--node", NODE]
        command += ["--mode", mode, "--state-dir", f"{folder}/state", *of_mode]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        try:
            while "policy applied" not in (line := process.stderr.readline()):
                assert line, "the agent has ended"
            time.sleep(SETTLES_S)  # the passes that check whether changes persist
            yield process.pid
        finally:
            process.terminate()
            process.wait()
            process.stderr.close()
            subprocess.run([sys.executable, "-m", "enforcer.cli", "detach"], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _loopback() -> Iterator[None]:
    with IPRoute() as ip:
        ip.link("set", index=1, state="up")
    yield


if __name__ == "__main__":
    main()
