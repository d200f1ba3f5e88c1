"""The loaded XDP program with a policy in its maps, and the check that every test row runs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from enforcer.backends.xdp.addresses import make_tables
from enforcer.backends.xdp.compile.contents import contents_of
from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.compile.rows import atoms, render
from enforcer.backends.xdp.state import generation
from enforcer.backends.xdp.tables.classes import classify
from enforcer.kernel.bpf import programs
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.maps import Map
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Backend, Mode, Stage, Toolchain
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import IpSet, RuleTable
from tests.bpf.xdp_frames import OWN, TCP, UDP
from tests.support.entries import SideMatch, entry_of

XDP_DROP, XDP_PASS = 1, 2
COUNT = struct.Struct("=QQ")


@dataclass(frozen=True)
class Program:
    """The loaded program with its counters. ``names`` are the entries of the bits, "" for failsafes."""

    fd: int
    counters: Map
    names: tuple[str, ...]

    def run(self, frame: bytes) -> int:
        """The verdict on a replayed frame; the destination of a unicast frame is this host (``scapy_sender``)."""
        return self.run_as_it_is(frame if frame[0] & 1 else OWN + frame[6:])

    def run_as_it_is(self, frame: bytes) -> int:
        """The verdict; the program must not change the frame."""
        verdict, out, _ = programs.test_run(self.fd, frame)
        assert out == frame
        return verdict

    def counts(self) -> list[tuple[int, int]]:
        """(packets, bytes) of each entry, summed over the CPUs; without failsafes, which never count."""
        found = []
        for index, name in enumerate(self.names):
            values = [COUNT.unpack(value) for value in self.counters.lookup_percpu(struct.pack("=I", index))]
            count = (sum(packets for packets, _ in values), sum(size for _, size in values))
            if name:
                found.append(count)
            else:
                assert count == (0, 0)
        return found


RECEIVER = Receiver(OWN)
LISTS = (["203.0.113.0/24", "2001:db8:bad::/48"], ["203.0.113.128/25", "198.51.100.0/24"])
INBOUND, OUTBOUND = (Failsafe(TCP, 22),), (Failsafe(UDP, 53),)


def table_of(
    *lists: list[str], inbound: tuple[Failsafe, ...] = INBOUND, outbound: tuple[Failsafe, ...] = OUTBOUND
) -> InterfacePlan:
    sets = {f"s:{number}": IpSet(f"s:{number}", "", Nets.of(nets)) for number, nets in enumerate(lists)}
    entries = tuple(entry_of(name, Action.DENY, source=SideMatch(ip_set=name)) for name in sets)
    return plan_for(RuleTable("eth0", "hep", entries, failsafe_inbound=inbound, failsafe_outbound=outbound, sets=sets))


def plan_for(table: RuleTable) -> InterfacePlan:
    """A plan in which native XDP holds all entries of a table."""
    planned = tuple(PlannedEntry(entry, Stage.DRIVER) for entry in table.ingress)
    return InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, planned, held=len(table.ingress))


@contextmanager
def program_for(
    plan: InterfacePlan, *, receiver: Receiver = RECEIVER, toolchain: Toolchain = Toolchain.LIBBPF
) -> Iterator[Program]:
    """The program as the backend loads it for a plan, attached to nothing."""
    rows = render(plan)
    classified = classify(atoms(plan))
    with make_tables(LIBBPF, classified) as tables:
        capacity = tables.manifest.capacity
        contents = contents_of(plan, rows, classified.members, capacity, receiver=receiver, ipv6=True)
        loaded = generation.load(LIBBPF, contents, tables.maps, toolchain)
        with loaded.obj as obj, obj.map("entry_counters") as counters:
            yield Program(obj.program(loaded.program).fd, counters, rows.names)


def loaded(table: InterfacePlan) -> Iterator[Program]:
    with program_for(table) as program:
        yield program


def check(program: Program, frame: bytes, *, dropped_by: int | None) -> None:
    """Check the verdict, and that only the entry that caused it counted: one packet, its bytes without Ethernet."""
    assert program.run(frame) == (XDP_PASS if dropped_by is None else XDP_DROP)
    counts = program.counts()
    for index, (packets, size) in enumerate(counts):
        assert packets == (index == dropped_by)
        assert bool(size) == (index == dropped_by)


def row(name: str, frame: bytes, *, dropped: bool) -> object:
    return pytest.param(frame, 0 if dropped else None, id=f"{name}: {'dropped' if dropped else 'passes'}")
