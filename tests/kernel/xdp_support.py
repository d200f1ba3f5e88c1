"""Shared by the XDP backend's tests: plans, the kernel's state, and whether a frame passes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.state.layout import Pins
from enforcer.backends.xdp.state.read import pinned_program
from enforcer.kernel.bpf.libbpf import libbpf
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.rtnetlink import InterfaceState, interface
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import STAGE_OF_MODE, Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, Plan, PlannedEntry
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import IpSet, RuleTable
from tests.kernel.conftest import NetnsPair
from tests.support.entries import SideMatch, entry_of

SENTINEL_TYPE = 0x88B5  # IEEE 802 local experimental
BURST, NAP_S = 16, 30e-6  # of a flood, which leaves more than half of a CPU to what changes under it


def plan_of(
    *lists: Sequence[str], mode: Mode | None = Mode.NATIVE, interface: str = "eth0", failsafe: tuple[Failsafe, ...] = ()
) -> Plan:
    """A plan with one deny entry for each list of CIDRs, named ``deny0``, ``deny1``."""
    return Plan("jasper", (interface_plan(*lists, mode=mode, interface=interface, failsafe=failsafe),))


def interface_plan(
    *lists: Sequence[str], mode: Mode | None, interface: str, failsafe: tuple[Failsafe, ...] = (), prefix: str = "deny"
) -> InterfacePlan:
    sets = {f"s:{number}": IpSet(f"s:{number}", "", Nets.of(cidrs)) for number, cidrs in enumerate(lists)}
    entries = tuple(
        entry_of(f"{prefix}{number}", Action.DENY, source=SideMatch(ip_set=f"s:{number}"))
        for number in range(len(lists))
    )
    table = RuleTable(interface, "hep", entries, failsafe_inbound=failsafe, sets=sets)
    stage = STAGE_OF_MODE[mode] if mode else Stage.RAW
    planned = tuple(PlannedEntry(entry, stage) for entry in entries)
    return InterfacePlan(table, mode, Backend.IPTABLES, planned, held=len(entries) if mode else 0)


def state_of(name: str = "eth0") -> InterfaceState:
    state = interface(name)
    assert state is not None
    return state


def counts(backend: XdpBackend) -> dict[str, int]:
    return {item.entry: item.packets for item in backend.counters()}


def pinned_ids(pins: Pins) -> dict[str, int]:
    """Ids of the program and the maps pinned for an interface; a changed id shows a new object."""
    ids = {}
    for path in pins.directory.iterdir():
        if path.name == "prog":
            ids["prog"] = pinned_program(LIBBPF, path) or 0
        elif path.name != "link":
            with Map.open_pinned(path) as found:
                ids[path.name] = found.id
    return ids


def exists(kind: str, number: int) -> bool:
    """Whether the kernel still has a program ("prog") or map ("map") of that id."""
    fd = getattr(libbpf(), f"bpf_{kind}_get_fd_by_id")(number)
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what the kernel does in a worker: it takes seconds at most."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def wait_until_gone(ids: dict[str, int]) -> None:
    """The kernel frees after a grace period, in a worker."""
    wait_until(lambda: not any(exists("prog" if name == "prog" else "map", number) for name, number in ids.items()))


def udp_from(source: str, *, dport: int = 9) -> bytes:
    return bytes(
        Ether(src="02:00:00:00:00:02", dst="ff:ff:ff:ff:ff:ff") / IP(src=source, dst="10.0.0.1") / UDP(dport=dport)
    )


@contextmanager
def sniffer(pair: NetnsPair, name: str = "eth0") -> Iterator[socket.socket]:
    """Receives what XDP passes: a packet socket gets frames after generic XDP as well."""
    with pair.host():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind((name, 3))
    with sock:
        sock.settimeout(30)
        yield sock


def passes(pair: NetnsPair, frame: bytes, *, near: str = "eth0", far: str = "wire0") -> bool:
    """Whether a frame passes; a second frame that no entry matches is sent after it and awaited."""
    sentinel = b"\xff" * 6 + b"\x02\0\0\0\0\x02" + SENTINEL_TYPE.to_bytes(2, "big") + bytes(46)
    with sniffer(pair, near) as ears:
        with pair.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind((far, 0))
            mouth.send(frame)
            mouth.send(sentinel)
        seen = False
        while (heard := ears.recv(4096)) != sentinel:
            seen = seen or heard == frame
        return seen


@contextmanager
def flood(pair: NetnsPair, sources: Sequence[str]) -> Iterator[list[int]]:
    """Sends frames from these sources in turn, all the time; the list contains how many were sent."""
    stop, sent = threading.Event(), [0]
    frames = [udp_from(source) for source in sources]

    def send() -> None:
        with pair.peer(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind((pair.PEER_INTERFACE, 0))
            while not stop.is_set():
                for _ in range(BURST):
                    mouth.send(frames[sent[0] % len(frames)])
                    sent[0] += 1
                time.sleep(NAP_S)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
