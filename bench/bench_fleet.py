"""What a fleet costs etcd: ``.venv/bin/python -m bench.bench_fleet`` (root; etcd).

A real etcd and AGENTS readers of it, each with a connection, a stream and seven watches of its own, in a network
namespace, so that all bytes of its loopback are theirs. etcd holds what a cluster of HOSTS hosts stores: a HostEndpoint
for each, 100,000 CIDRs in 50 sets, one set of 50,000 and one of ten. Measured: all connect and list; nothing happens;
the small set changes; one CIDR of the large set changes; etcd is killed for OUTAGE seconds, once so that the agents go
on where they were, once so that they must list again; the first four again through ``etcd grpc-proxy``.

etcd and its readers share the CPUs, so that times are upper bounds: CPU time and bytes are what to extrapolate from.
Arguments: ``[--agents N] [--processes N] [--hosts N] [--connect-over SECONDS] [--idle SECONDS] [--outage SECONDS]``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyroute2 import IPRoute, netns

from bench.cidrs import nets4
from bench.fleet_agents import Fleet, Said, fleet, local
from bench.fleet_etcd import CLIENTS, PROXY, Server, Writer, member, proxy
from enforcer.datastore.etcd.client import Client, prefix
from enforcer.datastore.etcd.keys import RESOURCES
from enforcer.kernel.netns import entered
from enforcer.model.nets import Nets
from enforcer.system.signals import unwinding

SETS, CIDRS, LARGE, SMALL = 50, 100_000, 50_000, 10
SMALL_CHANGES, LARGE_CHANGES = 20, 5
SETTLE_S = 10.0  # after agents have connected
_ELSEWHERE = 2579  # the port of an etcd that the agents do not reach


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--connect-over", type=float, default=60.0, help="seconds within which the agents connect")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds in which nothing happens")
    parser.add_argument("--outage", type=float, default=20.0, help="seconds")
    given = parser.parse_args(arguments)
    with unwinding(), tempfile.TemporaryDirectory() as scratch, loopback(), member(Path(scratch)) as server:
        _fill(given.hosts)
        print(f"{given.agents} agents in {given.processes} processes, {given.hosts:,} HostEndpoints", flush=True)
        with fleet(given.agents, given.processes, CLIENTS) as agents:
            _usual(agents, {"etcd": server}, given.connect_over, given.idle)
            _outage(agents, server, given.outage)
            _outage_and_list(agents, server, Path(scratch), given.outage)
        with proxy(Path(scratch)) as between, fleet(given.agents, given.processes, PROXY) as agents:
            print("through etcd grpc-proxy", flush=True)
            _usual(agents, {"etcd": server, "proxy": between}, given.connect_over, given.idle)


# -- what is stored ----------------------------------------------------------------------------------------------------


def _fill(hosts: int) -> None:
    listed = _texts(nets4(CIDRS))
    parts = [listed[at::SETS] for at in range(SETS)]
    with Writer() as writer:
        writer.put(*(_set(f"list-{number}", part) for number, part in enumerate(parts)))
        writer.put(_large(0), _small(0), _policy(), *map(_endpoint, range(hosts)))


def _texts(nets: Nets) -> list[str]:
    rows = zip(nets.net4.tolist(), nets.len4.tolist(), strict=True)
    return [f"{'.'.join(map(str, net.to_bytes(4, 'big')))}/{length}" for net, length in rows]


def _small(number: int) -> tuple[str, str]:
    """The small set; each number has another CIDR in it."""
    return _set("small", [f"192.0.2.{at}/32" for at in range(SMALL - 1)] + [f"198.51.100.{number % 256}/32"])


def _large(number: int, listed: Sequence[str] = tuple(_texts(nets4(LARGE - 1, 2)))) -> tuple[str, str]:
    return _set("large", [*listed, f"198.51.100.{number % 256}/32"])


def _set(name: str, cidrs: Sequence[str]) -> tuple[str, str]:
    return _object("GlobalNetworkSet", "globalnetworksets", name, {"deny": "all"}, {"nets": cidrs})


def _policy() -> tuple[str, str]:
    rule = {"action": "Deny", "source": {"selector": "deny == 'all'"}}
    spec = {"selector": "role == 'edge'", "doNotTrack": True, "applyOnForward": True, "types": ["Ingress"]}
    return _object("GlobalNetworkPolicy", "globalnetworkpolicies", "dos", {}, spec | {"ingress": [rule]})


def _endpoint(number: int) -> tuple[str, str]:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    spec = {"node": f"host-{number}", "interfaceName": "eth0", "expectedIPs": [address]}
    return _object("HostEndpoint", "hostendpoints", f"host-{number}-eth0", {"role": "edge"}, spec)


def _object(kind: str, plural: str, name: str, labels: dict[str, str], spec: dict[str, object]) -> tuple[str, str]:
    """Key and value as Calico's client writes them."""
    uid = "7f0c6ab4-8a5a-4b0e-9f63-3f1a0d2c5e11"
    metadata = {"name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels}
    made = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec}
    return f"{RESOURCES}{plural}/{name}", json.dumps(made, separators=(",", ":"))


# -- what is measured --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """CPU time in seconds of each server and of the agents, and bytes on loopback, both ways with all headers."""

    servers: dict[str, float]
    agents: float
    wire: int

    def __sub__(self, before: Spent) -> Spent:
        servers = {name: value - before.servers[name] for name, value in self.servers.items()}
        return Spent(servers, self.agents - before.agents, self.wire - before.wire)

    def __str__(self) -> str:
        parts = [*self.servers.items(), ("agents", self.agents)]
        return ", ".join([*(f"{name} {value:.2f} s of CPU" for name, value in parts), f"{self.wire / 1e6:,.1f} MB"])


def _spent(agents: Fleet, servers: dict[str, Server]) -> Spent:
    lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
    fields = next(line.split() for line in lines if line.lstrip().startswith("lo:"))
    return Spent({name: each.cpu_s() for name, each in servers.items()}, agents.cpu_s(), int(fields[9]))


def _usual(agents: Fleet, servers: dict[str, Server], connect_over_s: float, idle_s: float) -> None:
    """Connect, rest, and change both sets."""
    _say("before", servers)
    before, begun = _spent(agents, servers), {}
    agents.begin(connect_over_s)

    def watches(said: Said) -> bool:
        if said.what == "Began":
            begun[said.agent] = said.at_s
        return said.what == "Contact"

    watching = agents.until(watches)
    print(f"  watching after {_times([said.at_s - begun[said.agent] for said in watching])}")
    print(f"    {_spent(agents, servers) - before}")
    _say("then", servers)
    agents.during(min(idle_s, SETTLE_S))
    before = _spent(agents, servers)
    lost = sum(said.what == "Lost" for said in agents.during(idle_s))
    print(f"  idle for {idle_s:.0f} s: {_spent(agents, servers) - before}; lost: {lost}", flush=True)
    for name, make, number in (("small", _small, SMALL_CHANGES), ("large", _large, LARGE_CHANGES)):
        before, times = _spent(agents, servers), []
        with Writer() as writer:
            for change in range(1, number + 1):
                key, value = make(change)
                put_s = time.monotonic()
                writer.put((key, value))
                times += [said.at_s - put_s for said in agents.until(_is("Changed", put_s))]
        print(f"  {number} changes of the {name} set ({len(value):,} B): event after {_times(times)}")
        print(f"    {_spent(agents, servers) - before}")
    _say("then", servers)


def _outage(agents: Fleet, server: Server, seconds: float) -> None:
    """etcd is killed, and comes back as it was."""
    before = _spent(agents, {"etcd": server})
    server.kill()
    agents.during(seconds)
    back_s = server.start()
    back = agents.until(_since(back_s))
    print(f"  {seconds:.0f} s away: followed again after {_times(_when(back), back_s)}")
    print(f"    lists: {sum(said.what == 'Listed' for said in back)}; {_spent(agents, {'etcd': server}) - before}")
    agents.during(min(seconds, SETTLE_S))
    _say("then", {"etcd": server})


def _outage_and_list(agents: Fleet, server: Server, folder: Path, seconds: float) -> None:
    """etcd is killed, and comes back without its history."""
    before = _spent(agents, {"etcd": server})
    server.kill()
    agents.during(seconds)
    with member(folder, _ELSEWHERE), Writer(_ELSEWHERE) as writer:
        writer.put(*map(_small, range(100, 110)), at_once=1)
        writer.compact(_revision(_ELSEWHERE))
    back_s = server.start()
    back = agents.until(lambda said: said.what == "Listed" and said.at_s > back_s)
    print(f"  {seconds:.0f} s away and compacted: listed again after {_times(_when(back), back_s)}")
    print(f"    {_spent(agents, {'etcd': server}) - before}")
    _say("then", {"etcd": server})


def _revision(port: int) -> int:
    config = local(port)
    with Client(config.endpoints[0], config, threading.Event()) as client:
        return client.range(prefix(RESOURCES), limit=1, keys_only=True).header.revision


def _is(what: str, since_s: float) -> Callable[[Said], bool]:
    return lambda said: said.what == what and said.at_s > since_s


def _since(since_s: float) -> Callable[[Said], bool]:
    """Of an agent that has contact again."""
    return lambda said: said.what != "Lost" and said.at_s > since_s


def _when(said: Sequence[Said]) -> list[float]:
    return [each.at_s for each in said]


def _times(values: Iterable[float], since_s: float = 0.0) -> str:
    p50, p99, last = (float(np.quantile(np.array(list(values)) - since_s, share)) for share in (0.5, 0.99, 1.0))
    return f"p50 {p50:.3f} s, p99 {p99:.3f} s, last {last:.3f} s"


def _say(when: str, servers: dict[str, Server]) -> None:
    print(f"  {when}: " + ", ".join(f"{name} {each.memory_mb():.0f} MB" for name, each in servers.items()), flush=True)


@contextmanager
def loopback() -> Iterator[None]:
    """A network namespace with its loopback up for the calling thread and its children; then removed."""
    name = f"bench-fleet-{os.getpid()}"
    netns.create(name)
    try:
        with entered(Path("/run/netns") / name):
            with IPRoute() as ip:
                ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
            yield
    finally:
        netns.remove(name)


if __name__ == "__main__":
    main(sys.argv[1:])
