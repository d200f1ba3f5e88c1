"""A small network of hosts, each a network namespace with its own enforcer.

::

    server 10.65.0.1   client 10.65.0.2   external 10.65.0.9      fd65:: with the same last number
        eth0               eth0                eth0
          └──────────── bridge of the namespace "switch" ─┘

Neighbour entries are permanent and there are no link-local addresses, so that only the tests send packets. Everything
is always removed again.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from dossim.lab.lab import wait_for_address, wait_for_carrier
from dossim.lab.names import make_namespace
from enforcer.enforcement.apply import Applied, Enforcer
from enforcer.kernel.bpf.bpffs import MOUNT_POINT, ensure_bpffs
from enforcer.kernel.netns import entered
from enforcer.kernel.rtnetlink import XdpState, interface
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.vocabulary import Stage
from enforcer.policy.load import load_documents
from tests.conformance.echo import EchoServers

NETNS = Path("/run/netns")
LAN = {"server": 1, "client": 2, "external": 9}
_QUIET = {
    "net/ipv6/conf/default/addr_gen_mode": "1",  # no link-local address, hence no router solicitations
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
}
_numbers = itertools.count()

Document = Mapping[str, Any]
Counts = Counter[tuple[Stage, str]]


@dataclass(frozen=True)
class Host:
    """One host. ``name`` is its node name; ``number`` the last part of its addresses in ``subnet``."""

    name: str
    namespace: str
    pin_root: Path
    number: int
    choice: ModeChoice = ModeChoice.AUTO
    subnet: int = 65
    raw: RawChoice = RawChoice.AUTO
    tracked: TrackedChoice = TrackedChoice.MODEL
    enforcers: dict[ModeChoice, Enforcer] = field(default_factory=dict, compare=False, repr=False)

    def address(self, family: int = 4) -> str:
        return address(self.number, family, self.subnet)

    @property
    def mac(self) -> str:
        return mac(self.number, self.subnet)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread inside this host."""
        with entered(NETNS / self.namespace):
            yield

    def apply(self, documents: Sequence[Document], *, choice: ModeChoice | None = None) -> Applied:
        """One pass of this host's enforcer; the same process for all passes of a mode."""
        wanted = choice or self.choice
        enforcer = self.enforcers.setdefault(
            wanted,
            Enforcer(self.name, pin_root=self.pin_root, choice=wanted, raw=self.raw, tracked=self.tracked),
        )
        resources = load_documents(documents)
        with self.inside():
            return enforcer.apply(resources)

    def counts(self) -> Counts:
        """Packets that each entry matched, by stage, over all interfaces."""
        with self.inside():
            found = Enforcer(self.name, pin_root=self.pin_root).counters()
        counts: Counts = Counter()
        for item in found:
            counts[item.stage, item.entry] += item.packets
        return counts

    def xdp(self, name: str = "eth0") -> tuple[XdpState, ...]:
        """The XDP programs on an interface, foreign ones included."""
        with self.inside():
            state = interface(name)
        assert state is not None
        return state.xdp

    def run(self, *command: str) -> str:
        """A command's output, inside this host."""
        done = self.attempt(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        with self.inside():
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    def sysctl(self, name: str, value: str = "") -> str:
        """Read or write a sysctl of this namespace."""
        path = Path("/proc/sys") / name
        with self.inside():
            if value:
                path.write_text(value)
            return path.read_text().strip()

    def detach(self) -> None:
        with self.inside():
            Enforcer(self.name, pin_root=self.pin_root).detach()


def address(number: int, family: int = 4, subnet: int = 65) -> str:
    return f"10.{subnet}.0.{number}" if family == 4 else f"fd{subnet}::{number}"


def mac(number: int, subnet: int = 65) -> str:
    return f"02:00:00:00:{subnet:02d}:{number:02d}"


class Network:
    """The hosts, wired together. A context manager. Their enforcers have this ``choice``, ``raw`` and ``tracked``."""

    def __init__(
        self,
        choice: ModeChoice = ModeChoice.AUTO,
        raw: RawChoice = RawChoice.AUTO,
        tracked: TrackedChoice = TrackedChoice.MODEL,
    ) -> None:
        self.choice = choice
        self.raw = raw
        self.tracked = tracked
        self.name = f"enfconf-{os.getpid()}-{next(_numbers)}"
        self.pin_root = MOUNT_POINT / self.name
        self.echo = EchoServers()
        self.hosts: dict[str, Host] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Network:
        with ExitStack() as stack:
            ensure_bpffs()
            stack.callback(_remove, self.pin_root)
            self._stack = stack
            self._new_namespace("switch")
            for name, number in LAN.items():
                self._add(name, number)
            self._connect()
            stack.enter_context(self.echo)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def server(self) -> Host:
        return self.hosts["server"]

    @property
    def client(self) -> Host:
        return self.hosts["client"]

    @property
    def external(self) -> Host:
        return self.hosts["external"]

    def add_behind(self, gateway: Host, near: str, name: str) -> Host:
        """A host of its own subnet, 10.66.0.0/24, behind the interface ``near`` of the gateway, which forwards."""
        host = self._add(name, 2, subnet=66)
        families = (4, 6)
        with gateway.inside():
            _ip(
                f"link add {near} address {mac(1, 66)} type veth peer name eth0 netns {host.namespace}",
                *_configured(near, 1, 66),
                *_known(near, {host.address(family): host.mac for family in families}),
            )
        with host.inside():
            _ip(
                "link set lo up",
                *_configured("eth0", host.number, 66),
                *_known("eth0", {address(1, family, 66): mac(1, 66) for family in families}),
                *(
                    f"route add {'::/0' if family == 6 else '0.0.0.0/0'} via {address(1, family, 66)}"
                    for family in families
                ),
            )
        for where, name, number in ((gateway, near, 1), (host, "eth0", host.number)):
            _settle(where, name, number, 66)
        with gateway.inside(), IPRoute() as ip:
            wait_for_carrier(ip, socket.if_nametoindex(near))
        for neighbour in (self.client, self.external):
            with neighbour.inside():
                _ip(f"route add 10.66.0.0/24 via {gateway.address(4)}", f"route add fd66::/64 via {gateway.address(6)}")
        gateway.sysctl("net/ipv4/ip_forward", "1")
        gateway.sysctl("net/ipv6/conf/all/forwarding", "1")
        self.echo.serve(host)
        return host

    def detach(self) -> list[str]:
        """Detach every enforcer; returns what is still pinned, which should be nothing."""
        for host in self.hosts.values():
            host.detach()
        return [str(path) for path in self.pin_root.rglob("*") if not path.is_dir()] if self.pin_root.exists() else []

    def _new_namespace(self, name: str) -> str:
        full = f"{self.name}-{name}"
        make_namespace(full, self._stack)
        with entered(NETNS / full):
            for setting, value in _QUIET.items():
                (Path("/proc/sys") / setting).write_text(value)
        return full

    def _add(self, name: str, number: int, *, subnet: int = 65) -> Host:
        namespace = self._new_namespace(name)
        host = Host(name, namespace, self.pin_root / name, number, self.choice, subnet, self.raw, self.tracked)
        self.hosts[name] = host
        return host

    def _connect(self) -> None:
        """The hosts of the LAN to the switch."""
        hosts = self.hosts.values()
        with entered(NETNS / f"{self.name}-switch"):
            _ip(
                # With snooping the bridge announces itself to 224.0.0.106 (net/bridge/br_multicast.c).
                "link add br0 type bridge mcast_snooping 0",
                "link set br0 up",
                *(f"link add {host.name} type veth peer name eth0 netns {host.namespace}" for host in hosts),
                *(f"link set {host.name} master br0 up" for host in hosts),
            )
        for host in hosts:
            others = [item for item in hosts if item is not host]
            known = {item.address(family): item.mac for item in others for family in (4, 6)}
            with host.inside():
                _ip("link set lo up", *_configured("eth0", host.number, 65), *_known("eth0", known))
            _settle(host, "eth0", host.number, 65)
            self.echo.serve(host)
        with entered(NETNS / f"{self.name}-switch"), IPRoute() as ip:
            for host in hosts:
                wait_for_carrier(ip, socket.if_nametoindex(host.name))


def _ip(*commands: str) -> None:
    """Commands of ip(8), in the namespace of the calling thread: all in one process, which costs less than a message
    of pyroute2 each.
    """
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def _configured(name: str, number: int, subnet: int) -> list[str]:
    """Set it up, with an address of each family."""
    return [
        f"link set {name} address {mac(number, subnet)} up",
        f"addr add {address(number, 4, subnet)}/24 dev {name}",
        f"addr add {address(number, 6, subnet)}/64 dev {name}",
    ]


def _known(name: str, neighbours: Mapping[str, str]) -> list[str]:
    """Permanent neighbour entries."""
    return [f"neigh add {found} lladdr {mac} dev {name} nud permanent" for found, mac in neighbours.items()]


def _settle(host: Host, name: str, number: int, subnet: int) -> None:
    """Wait until the interface has its addresses; it has no reverse path filter."""
    with host.inside(), IPRoute() as ip:
        wait_for_address(ip, IPv6Address(address(number, 6, subnet)))
    for which in ("all", name):
        host.sysctl(f"net/ipv4/conf/{which}/rp_filter", "0")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for item in path.iterdir():
            _remove(item)
        path.rmdir()
    elif path.exists():
        path.unlink()
