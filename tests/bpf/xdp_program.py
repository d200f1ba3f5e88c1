"""The loaded XDP program with a policy in its maps, and the check that every row of its tests makes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from enforcer.backends.xdp.generation import OBJECT, XDP_PROGRAM, fill
from enforcer.backends.xdp.render import XdpTable, render
from enforcer.kernel import bpf
from enforcer.kernel.bpf import BpfObject
from enforcer.kernel.maps import Map
from enforcer.plan import InterfacePlan, PlannedEntry
from enforcer.policy.nets import Nets
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, RuleTable
from enforcer.words import Action, Backend, Mode, Stage
from tests.bpf.xdp_frames import (
    TCP,
    UDP,
)

XDP_DROP, XDP_PASS = 1, 2
COUNT = struct.Struct("=QQ")


@dataclass(frozen=True)
class Program:
    """The loaded program with its counters."""

    fd: int
    counters: Map

    def run(self, frame: bytes) -> int:
        """The verdict; the frame must come out as it went in."""
        verdict, out, _ = bpf.test_run(self.fd, frame)
        assert out == frame
        return verdict

    def counts(self) -> list[tuple[int, int]]:
        """(packets, bytes) of each entry, summed over the CPUs."""
        found = []
        for index in range(self.counters.max_entries):
            values = [COUNT.unpack(value) for value in self.counters.lookup_percpu(struct.pack("=I", index))]
            found.append((sum(packets for packets, _ in values), sum(size for _, size in values)))
        return found


LISTS = (["203.0.113.0/24", "2001:db8:bad::/48"], ["203.0.113.128/25", "198.51.100.0/24"])
INBOUND, OUTBOUND = (Failsafe(TCP, 22),), (Failsafe(UDP, 53),)


def table_of(
    *lists: list[str], inbound: tuple[Failsafe, ...] = INBOUND, outbound: tuple[Failsafe, ...] = OUTBOUND
) -> XdpTable:
    sets = {f"s:{number}": IpSet(f"s:{number}", "", Nets.of(nets)) for number, nets in enumerate(lists)}
    entries = tuple(Entry(name, Action.DENY, source=AddressMatch(ip_set=name)) for name in sets)
    table = RuleTable("eth0", "hep", entries, failsafe_inbound=inbound, failsafe_outbound=outbound, sets=sets)
    planned = tuple(PlannedEntry(entry, Stage.DRIVER) for entry in entries)
    return render(InterfacePlan(table, Mode.NATIVE, Backend.IPTABLES, planned))


def loaded(table: XdpTable, *, pass_tagged: bool = False) -> Iterator[Program]:
    with BpfObject(OBJECT) as obj:
        obj.set_const("multi_buffer", 1)
        obj.set_const("pass_tagged", int(pass_tagged))
        obj.resize_map("entry_counters", len(table.entries))
        obj.load()
        for name, content in (("deny4", table.deny4), ("deny6", table.deny6), ("failsafe", table.failsafe)):
            with obj.map(name) as target:
                fill(target, content)
        with obj.map("entry_counters") as counters:
            yield Program(obj.program(XDP_PROGRAM).fd, counters)


def check(program: Program, frame: bytes, *, dropped_by: int | None) -> None:
    """The verdict, and that nothing but the entry that caused it has counted: one packet, the bytes of IP."""
    assert program.run(frame) == (XDP_PASS if dropped_by is None else XDP_DROP)
    counts = program.counts()
    for index, (packets, size) in enumerate(counts):
        assert packets == (index == dropped_by)
        assert bool(size) == (index == dropped_by)


def row(name: str, frame: bytes, *, dropped: bool) -> object:
    return pytest.param(frame, 0 if dropped else None, id=f"{name}: {'dropped' if dropped else 'passes'}")
