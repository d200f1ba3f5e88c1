"""Network namespaces for kernel tests: created for each test, and always removed."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from dossim.lab.lab import wait_for_carrier
from dossim.lab.names import make_namespace
from enforcer.backends.nftables import netdev
from enforcer.enforcement.apply import Enforcer
from enforcer.kernel.bpf.bpffs import MOUNT_POINT, ensure_bpffs
from enforcer.kernel.netns import entered

NODE = "jasper"

_numbers = itertools.count()


@dataclass(frozen=True)
class NetnsPair:
    """Two namespaces and a veth pair: ``eth0`` in the host's, ``wire0`` in the peer's. Nothing else is in them."""

    name: str

    HOST_INTERFACE = "eth0"
    PEER_INTERFACE = "wire0"

    @property
    def host_name(self) -> str:
        return f"{self.name}-host"

    @property
    def peer_name(self) -> str:
        return f"{self.name}-peer"

    @contextmanager
    def host(self) -> Iterator[None]:
        """The calling thread inside the host's namespace."""
        with entered(Path("/run/netns") / self.host_name):
            yield

    @contextmanager
    def peer(self) -> Iterator[None]:
        """The calling thread inside the peer's namespace."""
        with entered(Path("/run/netns") / self.peer_name):
            yield

    def make_veth(self, near: str, far: str, *, mtu: int = 1500) -> None:
        """Another veth pair, from the host (``near``) to the peer (``far``), both ends up."""
        with self.host(), IPRoute() as ip:
            ip.link(
                "add", ifname=near, kind="veth", mtu=mtu, peer={"ifname": far, "net_ns_fd": self.peer_name, "mtu": mtu}
            )
            ip.link("set", index=socket.if_nametoindex(near), state="up")
            with self.peer(), IPRoute() as other:
                other.link("set", index=socket.if_nametoindex(far), state="up")
            wait_for_carrier(ip, socket.if_nametoindex(near))

    def remove_link(self, name: str) -> None:
        """Delete an interface of the host, and with it its peer."""
        with self.host(), IPRoute() as ip:
            ip.link("del", index=socket.if_nametoindex(name))


@pytest.fixture
def netns_pair() -> Iterator[NetnsPair]:
    """A :class:`NetnsPair` with a unique name; IPv6 is off, so that the kernel sends nothing by itself."""
    pair = NetnsPair(f"enftest-{os.getpid()}-{next(_numbers)}")
    with ExitStack() as stack:
        for name, enter in ((pair.host_name, pair.host), (pair.peer_name, pair.peer)):
            make_namespace(name, stack)
            with enter():
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        pair.make_veth(pair.HOST_INTERFACE, pair.PEER_INTERFACE)
        yield pair


@pytest.fixture
def pin_root() -> Iterator[Path]:
    """A directory to pin in, on a BPF file system; the test must leave it empty or remove it."""
    ensure_bpffs()
    path = MOUNT_POINT / f"enftest-{os.getpid()}-{next(_numbers)}"
    yield path
    left = sorted(str(item.relative_to(path)) for item in path.rglob("*")) if path.exists() else []
    _remove(path)
    assert not left, f"left behind: {left}"


@pytest.fixture
def host(netns_pair: NetnsPair, pin_root: Path) -> Iterator[NetnsPair]:
    """The pair; afterwards everything is detached, and none of our tables is left."""
    yield netns_pair
    with netns_pair.host():
        Enforcer(NODE, pin_root=pin_root).detach()
        assert not netdev.is_installed()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for item in path.iterdir():
            _remove(item)
        path.rmdir()
    elif path.exists():
        path.unlink()


@pytest.fixture
def inside(host: NetnsPair) -> Iterator[NetnsPair]:
    """The test's own thread in the host's namespace, whose loopback is up: a datastore is there."""
    with host.host():
        with IPRoute() as ip:
            ip.link("set", index=socket.if_nametoindex("lo"), state="up")
        yield host
