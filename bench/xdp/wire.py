"""Veth pairs from one sending namespace, each to a receiving namespace of its own; nothing stays behind.

Namespaces are named after the process, and the next run removes what a killed one left.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute, netns

from bench.xdp.objects import PROGRAMS, compiled
from enforcer.kernel.bpf import BpfObject, attach_xdp
from enforcer.kernel.bpffs import MOUNT_POINT, ensure_bpffs
from enforcer.kernel.netns import entered
from enforcer.words import Mode

NETNS = Path("/run/netns")
PREFIX = "enfbench"
FAR = "eth0"

# No frame may appear that the generator did not send.
_QUIET = {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1}


@dataclass(frozen=True)
class Pair:
    """A veth pair: ``near`` (an index in the sending namespace) sends, ``eth0`` in ``namespace`` receives."""

    number: int
    near: int
    far: int
    namespace: Path
    sender: Path
    pin_root: Path

    @contextmanager
    def receiver(self) -> Iterator[None]:
        """The calling thread in the receiving namespace."""
        with entered(self.namespace):
            yield

    def received(self) -> int:
        """Frames that the receiving end has taken from its ring, dropped by XDP or not."""
        with self.receiver(), IPRoute() as ip:
            return int(ip.get_links(self.far)[0].get("stats64")["rx_packets"])

    def delivered(self) -> int:
        """IPv4 packets that got past raw (or died of their header before it)."""
        with self.receiver():
            names, values = (line.split()[1:] for line in _snmp() if line.startswith("Ip:"))
        counts = dict(zip(names, map(int, values), strict=True))
        return sum(counts[name] for name in ("InHdrErrors", "InAddrErrors", "InDelivers", "ForwDatagrams", "OutNoRoutes"))


class Wire:
    """A context manager that makes pairs and takes them down again. ``directory`` is for objects, gone behind it."""

    def __enter__(self) -> Wire:
        reap()
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
            self._name = f"{PREFIX}-{os.getpid()}"
            self._numbers = itertools.count()
            ensure_bpffs()
            self._pins = MOUNT_POINT / self._name
            stack.callback(shutil.rmtree, self._pins, ignore_errors=True)
            self.sender = self._namespace(stack, "near")
            baseline = stack.enter_context(BpfObject(compiled(PROGRAMS / "baseline.bpf.c", self.directory)))
            baseline.load()
            self._pass = baseline.program("pass").fd
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def pair(self) -> Iterator[Pair]:
        """A new pair, both ends up; the near end has a program, without which it would not send frames."""
        number = next(self._numbers)
        with ExitStack() as stack:
            far_namespace = self._namespace(stack, f"far{number}")
            name = f"near{number}"
            with entered(self.sender), IPRoute() as ip:
                far_end = {"ifname": FAR, "net_ns_fd": far_namespace.name}
                ip.link("add", ifname=name, kind="veth", peer=far_end)
                near = int(ip.link_lookup(ifname=name)[0])
                stack.callback(self._remove, name)
                ip.link("set", index=near, state="up")
                stack.enter_context(attach_xdp(self._pass, near, Mode.NATIVE))
            with entered(far_namespace), IPRoute() as ip:
                far = int(ip.link_lookup(ifname=FAR)[0])
                ip.link("set", index=far, state="up")
            yield Pair(number, near, far, far_namespace, self.sender, self._pins / str(number))

    def _remove(self, name: str) -> None:
        with entered(self.sender), IPRoute() as ip, suppress(Exception):
            ip.link("del", ifname=name)

    def _namespace(self, stack: ExitStack, suffix: str) -> Path:
        name = f"{self._name}-{suffix}"
        netns.create(name)
        stack.callback(netns.remove, name)
        path = NETNS / name
        with entered(path):
            for setting, value in _QUIET.items():
                Path("/proc/sys/net", setting).write_text(str(value))
        return path


def reap() -> None:
    """Remove namespaces and pins of runs that were killed."""
    for directory in (NETNS, MOUNT_POINT):
        for path in directory.glob(f"{PREFIX}-*") if directory.is_dir() else ():
            pid = path.name.split("-")[1]
            if pid.isdigit() and not Path("/proc", pid).exists():
                if directory == NETNS:
                    with suppress(OSError):
                        netns.remove(path.name)
                else:
                    shutil.rmtree(path, ignore_errors=True)


def _snmp() -> list[str]:
    return Path("/proc/thread-self/net/snmp").read_text().splitlines()
