"""From an emergency deny to the packet that is dropped: ``.venv/bin/python -m bench.bench_emergency`` (root; etcd).

Three hosts and one more, each a network namespace, on one bridge. The one has etcd (one member, with fsync) and floods
each host with RATE packets per second from an address that no list has. Each host runs an agent (``enforcer run``) that
follows etcd, with CIDRS CIDRs in SETS sets. Then ``enforcer deny`` denies the address. Measured for each of ROUNDS
addresses: how long the command takes, and from its return until the last packet that arrived at any of the three.

All of it shares the CPUs, so that times are upper bounds. Arguments: ``[--rounds N] [--cidrs N] [--rate N]``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from itertools import islice
from pathlib import Path

import numpy as np
from pyroute2 import IPRoute, netns

from bench.bench_change import Agent
from bench.cidrs import nets4
from bench.fleet_etcd import CLIENTS, PEERS, Server, Writer
from enforcer.datastore.etcd.keys import RESOURCES
from enforcer.kernel.netns import entered
from enforcer.model.nets import Nets
from enforcer.system.signals import unwinding

HOSTS, SETS = 3, 50
CENTRE = "10.9.0.1"
PORT = 9
QUIET_S = 1.5  # without a packet: the flood is denied
_DEADLINE_S = 60.0
_ENFORCER = [sys.executable, "-m", "enforcer.cli"]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cidrs", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=1000, help="packets per second to each host")
    given = parser.parse_args(arguments)
    with unwinding(), tempfile.TemporaryDirectory() as scratch, bridge() as hosts, etcd(Path(scratch)):
        listed = nets4(given.cidrs)
        _fill(listed)
        with ExitStack() as stack:
            receivers = [stack.enter_context(Receiver(host)) for host in hosts]
            for number, host in enumerate(hosts):
                stack.enter_context(agent(host, number, Path(scratch)))
            flood = stack.enter_context(Flood(given.rate))
            rows = [_round(flood, receivers, source) for source in islice(_others(listed), given.rounds)]
    print(f"{HOSTS} hosts, {given.cidrs:,} CIDRs in {SETS} sets, {given.rounds} addresses, denied one after the other")
    for name, column in zip(("the command", "from its return to the last packet"), np.array(rows).T, strict=True):
        p50, p99, most = (float(np.quantile(column, share)) for share in (0.5, 0.99, 1.0))
        print(f"  {name}: p50 {p50:.3f} s, p99 {p99:.3f} s, most {most:.3f} s", flush=True)


def _round(flood: Flood, receivers: Sequence[Receiver], source: str) -> tuple[float, float]:
    """The duration of the command, and from its return to the last packet; negative ones count as 0."""
    flood.source = source
    for each in receivers:
        each.expect(source)
    begun_s = time.monotonic()
    words = [*_ENFORCER, "deny", source, "--datastore", "etcd", "--for", "10m", "--reason", "bench"]
    done = subprocess.run(words, env=_environment(), capture_output=True, text=True, check=False)
    returned_s = time.monotonic()
    if done.returncode:
        raise RuntimeError(f"enforcer deny: {done.stderr}")
    last_s = max(each.last_of(source) for each in receivers)
    return returned_s - begun_s, max(0.0, last_s - returned_s)


# -- the hosts -------------------------------------------------------------------------------------------------------


@contextmanager
def bridge() -> Iterator[list[str]]:
    """The namespaces of the hosts; the calling thread is in that of the centre, with the bridge. Then removed."""
    centre = f"bench-emergency-{os.getpid()}"
    hosts = [f"{centre}-{number}" for number in range(1, HOSTS + 1)]
    made: list[str] = []
    try:
        for name in (centre, *hosts):
            netns.create(name)
            made.append(name)
        with entered(Path("/run/netns") / centre):
            with IPRoute() as ip:
                ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
                ip.link("add", ifname="br0", kind="bridge")
                (bridge_index,) = ip.link_lookup(ifname="br0")
                ip.addr("add", index=bridge_index, address=CENTRE, prefixlen=24)
                ip.link("set", index=bridge_index, state="up")
                for number, host in enumerate(hosts):
                    ip.link("add", ifname=f"port{number}", kind="veth", peer={"ifname": "eth0", "net_ns_fd": host})
                    (port,) = ip.link_lookup(ifname=f"port{number}")
                    ip.link("set", index=port, master=bridge_index, state="up")
                    _set_up(host, number)
            yield hosts
    finally:
        for name in made:
            netns.remove(name)


def _set_up(host: str, number: int) -> None:
    with entered(Path("/run/netns") / host):
        with IPRoute() as ip:
            (index,) = ip.link_lookup(ifname="eth0")
            ip.addr("add", index=index, address=_address(number), prefixlen=24)
            for name in ("lo", "eth0"):
                ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
        for name in ("all", "eth0"):
            Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0", encoding="ascii")


def _address(number: int) -> str:
    return f"10.9.0.{11 + number}"


def etcd(folder: Path) -> Server:
    url, peer = f"http://{CENTRE}:{CLIENTS}", f"http://127.0.0.1:{PEERS}"
    words = ["etcd", "--name", "m", "--data-dir", str(folder / "data"), "--logger", "zap", "--log-level", "error"]
    words += ["--listen-client-urls", f"{url},http://127.0.0.1:{CLIENTS}", "--advertise-client-urls", url]
    words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"m={peer}"]
    return Server(words, CLIENTS, folder / "etcd.log")


def _environment() -> dict[str, str]:
    return {**os.environ, "ETCD_ENDPOINTS": f"http://{CENTRE}:{CLIENTS}"}


@contextmanager
def agent(host: str, number: int, folder: Path) -> Iterator[None]:
    """An agent in the host's namespace that has enforced its policy; it removes it at the end."""
    enter = ["nsenter", f"--net=/run/netns/{host}"]
    words = ["run", "--datastore", "etcd", "--node", f"host{number}", "--state-dir", str(folder / f"state{number}")]
    with Agent([*enter, *_ENFORCER, *words, "--detach-on-exit"], env=_environment()) as running:
        running.applied()
        yield


def _others(listed: Nets) -> Iterator[str]:
    """Addresses that no list has."""
    for number in range(1 << 16):
        address = IPv4Address("198.51.0.0") + number
        if not listed.contains(address):
            yield str(address)


def _fill(nets: Nets) -> None:
    listed = [str(net) for net in nets]
    rule = {"action": "Deny", "source": {"selector": "deny == 'all'"}}
    spec = {"selector": "role == 'edge'", "doNotTrack": True, "applyOnForward": True, "types": ["Ingress"]}
    with Writer() as writer:
        for number in range(SETS):
            part = {"nets": listed[number::SETS]}
            writer.put(_object("GlobalNetworkSet", "globalnetworksets", f"list-{number}", {"deny": "all"}, part))
        for number in range(HOSTS):
            host = {"node": f"host{number}", "interfaceName": "eth0", "expectedIPs": [_address(number)]}
            writer.put(_object("HostEndpoint", "hostendpoints", f"host{number}", {"role": "edge"}, host))
        writer.put(_object("GlobalNetworkPolicy", "globalnetworkpolicies", "dos", {}, {**spec, "ingress": [rule]}))


def _object(kind: str, plural: str, name: str, labels: dict[str, str], spec: object) -> tuple[str, str]:
    made = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name, "labels": labels}}
    return f"{RESOURCES}{plural}/{name}", json.dumps({**made, "spec": spec})


# -- the packets -----------------------------------------------------------------------------------------------------


class Flood:
    """Sends from ``source`` to each host; a context manager."""

    def __init__(self, rate: int) -> None:
        self.source = ""
        self._each_s = 1 / rate
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._sockets: dict[str, socket.socket] = {}

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for each in self._sockets.values():
            each.close()

    def _send(self) -> None:
        with entered_centre():
            while not self._over.wait(self._each_s):
                if self.source:
                    sender = self._from(self.source)
                    for number in range(HOSTS):
                        sender.sendto(b"flood", (_address(number), PORT))

    def _from(self, source: str) -> socket.socket:
        if source not in self._sockets:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
            made.bind((source, 0))
            self._sockets[source] = made
        return self._sockets[source]


_IP_TRANSPARENT = 19


@contextmanager
def entered_centre() -> Iterator[None]:
    """A new thread begins in the namespace of the process's first one, not of the one that started it."""
    with entered(Path("/run/netns") / f"bench-emergency-{os.getpid()}"):
        yield


class Receiver:
    """When the last packet of each source arrived at a host; a context manager."""

    def __init__(self, host: str) -> None:
        with entered(Path("/run/netns") / host):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("0.0.0.0", PORT))
        self._socket.settimeout(0.1)
        self._last_s: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                _, (source, _port) = self._socket.recvfrom(64)
            except TimeoutError:
                continue
            self._last_s[source] = time.monotonic()

    def expect(self, source: str) -> None:
        """Wait until packets of this source arrive."""
        until_s = time.monotonic() + _DEADLINE_S
        while source not in self._last_s:
            if time.monotonic() > until_s:
                raise RuntimeError(f"no packet of {source} arrives")
            time.sleep(0.01)

    def last_of(self, source: str) -> float:
        """When the last packet of this source arrived, once none has for a while."""
        until_s = time.monotonic() + _DEADLINE_S
        while time.monotonic() < (last_s := self._last_s[source]) + QUIET_S:
            if last_s > until_s:
                raise RuntimeError(f"packets of {source} still arrive")
            time.sleep(0.05)
        return self._last_s[source]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(sys.argv[1:])
