"""A real etcd on loopback, and ``etcd grpc-proxy`` before it, with what they cost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from enforcer.datastore.etcd.client import grpc  # as the agent has it: with its settings

CLIENTS, PEERS, PROXY, METRICS = 2379, 2380, 2479, 2480  # in a network namespace of our own
_DEADLINE_S = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A process that listens on a port of 127.0.0.1; a context manager, which kills it. ``log``: what it writes."""

    def __init__(self, words: Sequence[str], port: int, log: Path) -> None:
        self._words, self._port, self._log = words, port, log
        self._process: subprocess.Popen[bytes] | None = None
        self._past_s = 0.0  # the CPU time of processes that were killed

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()

    def start(self) -> float:
        """The time (monotonic) since which it accepts connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._words, stdout=log, stderr=log)
        until_s = time.monotonic() + _DEADLINE_S
        while time.monotonic() < until_s and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return time.monotonic()
            time.sleep(0.01)
        raise RuntimeError(f"{self._words[0]} does not start:\n{self._log.read_text(errors='replace')[-2000:]}")

    def kill(self) -> None:
        """With SIGKILL."""
        assert self._process is not None
        self._past_s = self.cpu_s()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def cpu_s(self) -> float:
        """The CPU time so far, user and system."""
        return self._past_s + (cpu_s(self._process.pid) if self._process else 0.0)

    def memory_mb(self) -> float:
        """The resident memory now."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def cpu_s(pid: int) -> float:
    """The CPU time of a process, user and system (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def member(folder: Path, port: int = CLIENTS) -> Server:
    """etcd with its data in ``folder``, with the settings of its package."""
    url, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{PEERS}"
    words = ["etcd", "--name", "m", "--data-dir", str(folder / "data"), "--logger", "zap", "--log-level", "error"]
    words += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
    words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"m={peer}"]
    return Server(words, port, folder / "etcd.log")


def proxy(folder: Path) -> Server:
    """``etcd grpc-proxy`` before :func:`member`."""
    words = ["etcd", "grpc-proxy", "start", "--endpoints", f"127.0.0.1:{CLIENTS}"]
    words += ["--listen-addr", f"127.0.0.1:{PROXY}", "--data-dir", str(folder / "proxy")]
    return Server(words, PROXY, folder / "proxy.log")


class Writer:
    """Stores keys over one connection, as calicoctl does; a context manager."""

    def __init__(self, port: int = CLIENTS) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
        self._put = self._channel.unary_unary("/etcdserverpb.KV/Put")
        self._compact = self._channel.unary_unary("/etcdserverpb.KV/Compact")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def put(self, *items: tuple[str, str], at_once: int = 200) -> None:
        """Keys with their values; up to ``at_once`` requests are under way."""
        under_way: list[Any] = []
        for key, value in items:
            request = _field(1, key.encode()) + _field(2, value.encode())
            under_way.append(self._put.future(request, timeout=_DEADLINE_S, wait_for_ready=True))
            if len(under_way) == at_once:
                _finish(under_way)
                under_way = []
        _finish(under_way)

    def compact(self, revision: int) -> None:
        self._compact(b"\x08" + _varint(revision), timeout=_DEADLINE_S, wait_for_ready=True)


def _finish(calls: Iterable[Any]) -> None:
    for call in calls:
        call.result()


# PutRequest {bytes key = 1; bytes value = 2}, CompactionRequest {int64 revision = 1} of etcd's rpc.proto: no call that
# the enforcer makes.
def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
