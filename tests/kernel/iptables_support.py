"""Two namespaces and a veth pair, for tests of the raw table: packets enter at one end, and rule counters show what
matched them.

In the victim's namespace, foreign counting rules distinguish the three ends of a packet: ``tail`` (raw, after our hook)
counts what no entry decided, ``untracked`` and ``mangle`` what passed raw with and without our accept mark.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from pyroute2.netns import setns
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from dossim.lab.lab import wait_for_carrier
from dossim.lab.names import make_namespace
from enforcer.backends.iptables.rules import TABLES

INTERFACE = "eth0"
VICTIM, PEER = {4: "10.10.10.10", 6: "2001:db8:1::10"}, {4: "10.10.10.1", 6: "2001:db8:1::1"}
VICTIM_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
DEADLINE_S = 60.0
# Of a type that the host takes for nothing: only a packet socket gets it, no table.
SENTINEL_TYPE = 0x88B5  # IEEE 802 local experimental
SAVE = {4: "iptables-legacy-save", 6: "ip6tables-legacy-save"}
RESTORE = {4: "iptables-legacy-restore", 6: "ip6tables-legacy-restore"}
IPTABLES = {4: "iptables-legacy", 6: "ip6tables-legacy"}
IFA_F_NODAD = 0x02  # linux/if_addr.h
# The kernel reports the groups of each IPv6 address, twice within two seconds: rules that deny all would count that.
SILENT = "table ip6 silent { chain output { type filter hook output priority 0; icmpv6 type 143 drop; }; }"


def run(*command: str, text: str = "") -> str:
    """The command's output, in the namespace of the calling thread."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Wire:
    """The victim's ``eth0``, and the peer that sends to it."""

    victim: str
    peer: str

    def address(self) -> None:
        """Both ends get addresses and neighbour entries for each other."""
        for space, device, own, other, mac in (
            (self.victim, INTERFACE, VICTIM, PEER, PEER_MAC),
            (self.peer, "peer0", PEER, VICTIM, VICTIM_MAC),
        ):
            with entered(space), IPRoute() as ip:
                index = socket.if_nametoindex(device)
                for version, length in ((4, 24), (6, 64)):
                    nodad = {"flags": IFA_F_NODAD} if version == 6 else {}
                    ip.addr("add", index=index, address=own[version], prefixlen=length, **nodad)
                    ip.neigh("add", ifindex=index, dst=other[version], lladdr=mac, state="permanent")

    @contextmanager
    def inside(self, name: str = "") -> Iterator[None]:
        """Inside the block, the calling thread is in the victim's namespace (or the named one)."""
        with entered(name or self.victim):
            yield

    def send(self, frames: Sequence[bytes]) -> None:
        """Sends to the victim, and returns when the victim has handled them all."""
        sentinel = _address(VICTIM_MAC) + _address(PEER_MAC) + SENTINEL_TYPE.to_bytes(2, "big") + bytes(46)
        with self.inside():
            ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with ears:
            ears.settimeout(DEADLINE_S)
            ears.bind((INTERFACE, SENTINEL_TYPE))
            self._send([*frames, sentinel])
            # One CPU handles its packets in order: those before the sentinel have been handled.
            assert ears.recv(len(sentinel)) == sentinel

    def _send(self, frames: Sequence[bytes]) -> None:
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(processors)})
        with entered(self.peer):
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        try:
            sender.bind(("peer0", 0))
            for frame in frames:
                sender.send(frame)
        finally:
            sender.close()
            os.sched_setaffinity(0, processors)

    def count(self, version: int, table: str, comment: str) -> int:
        """Packets counted by the rules with this comment."""
        with self.inside():
            lines = run(SAVE[version], "-c", "-t", table).splitlines()
        wanted = re.compile(rf"--comment \"?{re.escape(comment)}\"?(?: -|$)")
        return sum(int(line[1:].split(":")[0]) for line in lines if wanted.search(line))

    def await_count(self, version: int, table: str, comment: str, expected: int) -> int:
        """The count once it is as expected, or the count at the deadline."""
        deadline = time.monotonic() + DEADLINE_S
        while (found := self.count(version, table, comment)) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        return found


@contextmanager
def entered(name: str) -> Iterator[None]:
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set_namespace(Path("/run/netns") / name)
        yield
    finally:
        _set_namespace(Path(f"/proc/self/fd/{home}"))
        os.close(home)


def _address(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _set_namespace(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def namespace() -> Iterator[str]:
    """A fresh network namespace, removed afterwards."""
    name = f"enf-test-{uuid.uuid4().hex[:10]}"
    with ExitStack() as stack:
        make_namespace(name, stack)
        yield name


@contextmanager
def wire() -> Iterator[Wire]:
    """A fresh pair of namespaces, in which the kernel sends nothing by itself."""
    with namespace() as victim, namespace() as peer:
        for name in (victim, peer):
            with entered(name):
                Path("/proc/sys/net/ipv6/conf/default/addr_gen_mode").write_text("1")
        with entered(peer), IPRoute() as ip:
            far = {"ifname": INTERFACE, "address": VICTIM_MAC, "net_ns_fd": victim}
            ip.link("add", ifname="peer0", kind="veth", address=PEER_MAC, peer=far)
            ip.link("set", index=socket.if_nametoindex("peer0"), state="up")
            with entered(victim), IPRoute() as other:
                other.link("set", index=socket.if_nametoindex(INTERFACE), state="up")
            run("nft", "-f", "-", text=SILENT)
            wait_for_carrier(ip, socket.if_nametoindex("peer0"))
        yield Wire(victim, peer)


@pytest.fixture(name="cable")
def cable_fixture() -> Iterator[Wire]:
    """A :class:`Wire` for one test."""
    with wire() as found:
        yield found


@pytest.fixture(name="inside")
def inside_fixture() -> Iterator[str]:
    """The test runs in a fresh namespace."""
    with namespace() as name, entered(name):
        yield name


def saved(version: int, *options: str, table: str = "raw") -> list[str]:
    """The output of iptables-save for a table, without dates. The command creates the table."""
    lines = run(SAVE[version], "-t", table, *options).splitlines()
    return [line for line in lines if not line.startswith("#")]


def all_tables() -> list[str]:
    """The output of iptables-save for all existing tables; it creates none."""
    lines = [line for version in (4, 6) for line in run(SAVE[version]).splitlines()]
    return [line for line in lines if not line.startswith("#")]


def everything() -> list[str]:
    """All tables that can hold rules of ours, created if they were absent, and all sets."""
    for item in TABLES:
        saved(item.version, table=item.name)
    sets = [line for line in run("ipset", "save").splitlines() if line]
    creates = [line.split(" hashsize")[0] for line in sets if line.startswith("create")]
    return [*all_tables(), *sorted(creates), *sorted(line for line in sets if line.startswith("add"))]


def add_counting_rules(*, conntrack: bool = False) -> None:
    """Foreign counting rules, in raw after our hook and in mangle before it, where an allowed packet is accepted.

    ``conntrack`` adds one for untracked packets, which turns connection tracking on.
    """
    untracked = "-I PREROUTING -i {} -m conntrack --ctstate UNTRACKED -m comment --comment untracked"
    rules = [
        "*raw",
        "-A PREROUTING -i {} -m comment --comment tail",
        "COMMIT",
        "*mangle",
        "-I PREROUTING -i {} -m comment --comment mangle",
        "-I PREROUTING -i {} -m mark --mark 0x10000/0x10000 -m comment --comment accepted",
        *([untracked] if conntrack else []),
        "COMMIT",
    ]
    for version in (4, 6):
        run(RESTORE[version], "-w", "--noflush", text="\n".join(rules).format(*[INTERFACE] * len(rules)) + "\n")


# --- packets ------------------------------------------------------------------------------------------

LISTED, OTHER, LISTED6, OTHER6 = "203.0.113.5", "192.0.2.5", "2001:db8:bad::5", "2001:db8::5"


def v4(src: str, *layers: Packet, **fields: object) -> list[Packet]:
    return [_stack(IP(src=src, dst="10.10.10.10", **fields), layers)]


def v6(src: str, *layers: Packet) -> list[Packet]:
    return [_stack(IPv6(src=src, dst="2001:db8:1::10"), layers)]


def _stack(packet: Packet, layers: tuple[Packet, ...]) -> Packet:
    for layer in layers:
        packet = packet / layer
    return packet


def tcp(port: int, sport: int = 40000) -> TCP:
    return TCP(sport=sport, dport=port)


def udp(port: int, sport: int = 40000) -> UDP:
    return UDP(sport=sport, dport=port)


def pieces(src: str, port: int) -> list[Packet]:
    return list(fragment(IP(src=src, dst="10.10.10.10", id=7) / udp(port) / Raw(b"x" * 2000), fragsize=1000))


def frames(packets: list[Packet]) -> list[bytes]:
    return [bytes(Ether(src=PEER_MAC, dst=VICTIM_MAC) / packet) for packet in packets]
