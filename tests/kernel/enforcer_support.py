"""Policy, traffic and a running agent for tests of the whole enforcer."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.kernel.conftest import NODE, NetnsPair
from tests.support import commands
from tests.support.commands import Process

VICTIM = "10.0.0.1"
PORT = 9
DENIED, ALLOWED = "203.0.113.7", "198.51.100.9"
DEADLINE_S = 60.0
APPLIED = 'msg="policy applied"'


def endpoint(interface: str = "eth0", *, node: str = NODE) -> str:
    return (
        "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, "
        f"metadata: {{name: {node}-{interface}, labels: {{role: edge}}}}, "
        f"spec: {{node: {node}, interfaceName: {interface}}}}}"
    )


def deny_list(*cidrs: str) -> str:
    return (
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: bots, labels: {deny: all}}, "
        f"spec: {{nets: [{', '.join(cidrs)}]}}}}"
    )


def felix(**settings: object) -> str:
    spec = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return (
        f"{{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {{name: default}}, spec: {{{spec}}}}}"
    )


DENY_BOTS = "{action: Deny, source: {selector: \"deny == 'all'\"}}"
DENY_UDP = "{action: Deny, protocol: UDP, destination: {ports: [7]}}"


def policy(*rules: str) -> str:
    return (
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: dos}, "
        "spec: {selector: role == 'edge', doNotTrack: true, applyOnForward: true, types: [Ingress], "
        f"ingress: [{', '.join(rules or (DENY_BOTS, DENY_UDP))}]}}}}"
    )


def documents(*parts: str) -> str:
    """YAML of these documents; of the usual ones if none are given."""
    return "\n---\n".join(parts or (endpoint(), deny_list("203.0.113.0/24"), policy())) + "\n"


def frame(source: str) -> bytes:
    layers = (
        Ether(src="02:00:00:00:00:02", dst="ff:ff:ff:ff:ff:ff")
        / IP(src=source, dst=VICTIM)
        / UDP(sport=40000, dport=PORT)
    )
    return bytes(layers / source.encode())


class Traffic:
    """Sends from the peer; packets that are not dropped reach a UDP socket of the host."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        self._sender = sender
        self._receiver = receiver
        self._stop = threading.Event()
        self.sent = 0  # packets of a flood

    def arrivals(self, *sources: str) -> list[str]:
        """The sources whose packets arrive; the last source must be allowed, because its packet marks the end."""
        for source in sources:
            self._sender.send(frame(source))
        found: list[str] = []
        while not found or found[-1] != sources[-1]:
            found.append(self._receiver.recv(2048).decode())
        return found

    @contextmanager
    def flood(self, source: str, *, every_s: float = 0.0005) -> Iterator[None]:
        """A thread that sends packets from one source until the block ends."""
        packet = frame(source)

        def send() -> None:
            while not self._stop.wait(every_s):
                self._sender.send(packet)
                self.sent += 1

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


@contextmanager
def traffic(pair: NetnsPair) -> Iterator[Traffic]:
    """Gives the host's eth0 an address with a listener."""
    with pair.host():
        for name in ("all", "eth0"):
            Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
        with IPRoute() as ip:
            ip.addr("add", index=ip.link_lookup(ifname="eth0")[0], address=VICTIM, prefixlen=24)
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("0.0.0.0", PORT))
        receiver.settimeout(DEADLINE_S)
    with pair.peer():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind(("wire0", 0))
    with receiver, sender:
        yield Traffic(sender, receiver)


class Agent:
    """``enforcer run`` as a separate process, and its output."""

    def __init__(self, process: Process | subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def expect(self, *texts: str, within_s: float = DEADLINE_S) -> str:
        """The next line that contains one of the texts; lines before it are skipped."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no line with {' or '.join(map(repr, texts))} in:\n{''.join(self.lines)}"
            self.lines.append(line)
            if any(text in line for text in texts):
                return line

    def end(self, number: signal.Signals) -> int:
        """Send a signal, read the remaining output, return the exit code."""
        self.process.send_signal(number)
        try:
            code = self.process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler then prints the stack of every thread
            self._thread.join(timeout=DEADLINE_S)
            said = "".join(line or "" for line in iter(self._queue.get, None))
            raise AssertionError(f"still running {DEADLINE_S} s after {number.name}:\n{said}") from None
        self._thread.join(timeout=DEADLINE_S)
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return code

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._queue.put(line)
        self._queue.put(None)


@contextmanager
def agent(
    pair: NetnsPair, pin_root: Path, store: Path, *words: str, through: Sequence[str] = (), **environment: str
) -> Iterator[Agent]:
    """A running agent of files, started through another command (setpriv) if given; killed afterwards if it still
    runs.
    """
    environment = {"STATE_DIRECTORY": f"{store}.state"} | environment
    with agent_of(pair, pin_root, "-f", str(store), *words, through=through, **environment) as running:
        yield running


@contextmanager
def agent_of(
    pair: NetnsPair, pin_root: Path, *words: str, through: Sequence[str] = (), **environment: str
) -> Iterator[Agent]:
    """A running agent of any datastore, which the words and the environment name."""
    words = ("run", "--node", NODE, "--pin-root", str(pin_root), *words)
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", **environment}
    with waiting(start(pair, words, through=through, stderr=subprocess.PIPE, env=environment)) as running:
        yield running


@contextmanager
def waiting(process: Process | subprocess.Popen[str]) -> Iterator[Agent]:
    """A command that runs until it is told to end; killed afterwards if it still runs."""
    try:
        yield Agent(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def start(
    pair: NetnsPair, words: Sequence[str], *, through: Sequence[str] = (), **options: Any
) -> Process | subprocess.Popen[str]:
    """A command of ``enforcer`` in the host's namespace; through another command (setpriv) if given, and then of an
    interpreter of its own.
    """
    if through:
        return subprocess.Popen(_through(pair, through, words), text=True, **options)
    return commands.start(words, namespace=Path("/run/netns") / pair.host_name, **options)


def run(
    pair: NetnsPair, words: Sequence[str], *, through: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """One command of ``enforcer`` in the host's namespace, as :func:`start` starts it."""
    environment = {**os.environ, **environment}
    if not through:
        return commands.run(words, namespace=Path("/run/netns") / pair.host_name, env=environment)
    words = _through(pair, through, words)
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=environment)


def _through(pair: NetnsPair, through: Sequence[str], words: Sequence[str]) -> list[str]:
    """Without 'ip netns exec', which would hide the BPF file system."""
    enter = ["nsenter", f"--net=/run/netns/{pair.host_name}"]
    return [*enter, *through, sys.executable, "-m", "enforcer.cli", *words]
