"""The offload program, loaded on this host, and a model of what it should do with a frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.backends.xdp.offload import load_offload, render_offload
from enforcer.kernel.bpf import programs
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.offload import PROGRAM
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Backend, Mode, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.planning.xdp_run import XdpRun
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, IpSet, RuleTable
from tests.bpf.xdp_frames import (
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    IPV4,
    IPV6,
    OWN,
    QINQ,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    VLAN,
)
from tests.support.entries import SideMatch, entry_of, said_by

XDP_DROP, XDP_PASS = 1, 2
COUNT = struct.Struct("=QQ")
PORTED = {TCP: 20, UDP: 8, SCTP: 12}
EXTENSIONS = {HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION}


RECEIVER = Receiver(OWN)


@dataclass(frozen=True)
class Program:
    """The loaded program with its counters."""

    fd: int
    counters: Map

    def run(self, frame: bytes) -> int:
        """The verdict on a replayed frame; the destination of a unicast frame is this host."""
        return self.run_as_it_is(frame if frame[0] & 1 else OWN + frame[6:])

    def run_as_it_is(self, frame: bytes) -> int:
        """The verdict; the program must not change the frame."""
        verdict, out, _ = programs.test_run(self.fd, frame)
        assert out == frame
        return verdict

    def counts(self) -> list[tuple[int, int]]:
        """(packets, bytes) of each entry."""
        values = (self.counters.lookup(struct.pack("=I", at)) for at in range(self.counters.max_entries))
        return [COUNT.unpack(value or b"") for value in values]

    def dropped_by(self, frame: bytes) -> int | None:
        """The number of the entry that drops it, None if it passes; the counters must agree."""
        before = self.counts()
        verdict = self.run(frame)
        counted = [at for at, (old, new) in enumerate(zip(before, self.counts(), strict=True)) if old != new]
        assert verdict == (XDP_DROP if counted else XDP_PASS)
        assert len(counted) <= 1
        return counted[0] if counted else None


def plan_of(table: RuleTable) -> InterfacePlan:
    """The plan in offload mode: the entries from the first that a device holds."""
    run = XdpRun(table).held(Mode.OFFLOAD)
    planned = tuple(PlannedEntry(entry, Stage.NIC_OFFLOAD) for entry in table.ingress[:run])
    return InterfacePlan(table, Mode.OFFLOAD, Backend.IPTABLES, planned, held=run)


def deny_lists(
    *lists: Sequence[str],
    inbound: tuple[Failsafe, ...] = (Failsafe(TCP, 22),),
    outbound: tuple[Failsafe, ...] = (Failsafe(UDP, 53),),
) -> RuleTable:
    sets = {f"s:{number}": IpSet(f"s:{number}", "", Nets.of(nets)) for number, nets in enumerate(lists)}
    entries = tuple(entry_of(name, Action.DENY, source=SideMatch(ip_set=name)) for name in sets)
    return RuleTable("eth0", "hep", entries, failsafe_inbound=inbound, failsafe_outbound=outbound, sets=sets)


@contextmanager
def loaded(table: RuleTable) -> Iterator[Program]:
    rendered = render_offload(plan_of(table), receiver=RECEIVER)
    with load_offload(LIBBPF, rendered, None) as obj, obj.map("entry_counters") as counters:
        yield Program(obj.program(PROGRAM).fd, counters)


def expected(table: RuleTable, frame: bytes) -> int | None:
    """Which entry drops a frame, by walking headers and entries; None if it passes."""
    kind, packet = _after_tags(frame)
    read = {IPV4: _read4, IPV6: _read6}.get(kind)
    found = read(packet) if read else None
    if found is None:
        return None
    source, protocol, ports = found
    if _may_be_failsafe(table, protocol, ports):
        return None
    return next((at for at, entry in enumerate(plan_of(table).xdp_entries) if _lists(table, entry, source)), None)


Transport = tuple[IPv4Address | IPv6Address, "int | None", "tuple[int, int] | None"]


def _after_tags(frame: bytes) -> tuple[int, bytes]:
    """Ethertype and packet; type 0 for a frame that the program ignores."""
    at = 12
    for _ in range(2):
        kind = int.from_bytes(frame[at : at + 2], "big")
        if kind not in (VLAN, QINQ):
            break
        if len(frame) < at + 6 or int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF:
            return 0, b""
        at += 4
    return int.from_bytes(frame[at : at + 2], "big"), frame[at + 2 :]


def _read4(packet: bytes) -> Transport | None:
    """Source, protocol and ports of a well-formed packet; None for those that are unknown."""
    if len(packet) < 20:
        return None
    header, total = packet[0] % 16 * 4, int.from_bytes(packet[2:4], "big")
    if packet[0] >> 4 != 4 or header < 20 or header > total or header > len(packet):
        return None
    fragment = int.from_bytes(packet[6:8], "big")
    if fragment & 0x2000:
        total -= (total - header) % 8
    ports = None if fragment & 0x1FFF else _ports(packet[9], packet[header:total])
    return ip_address(packet[12:16]), packet[9] or None, ports


def _read6(packet: bytes) -> Transport | None:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    source, following = ip_address(packet[8:24]), packet[6]
    if following in EXTENSIONS:
        return source, None, None
    return source, following, _ports(following, packet[40 : 40 + int.from_bytes(packet[4:6], "big")])


def _ports(protocol: int, payload: bytes) -> tuple[int, int] | None:
    if protocol not in PORTED or len(payload) < PORTED[protocol]:
        return None
    return int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")


def _may_be_failsafe(table: RuleTable, protocol: int | None, ports: tuple[int, int] | None) -> bool:
    failsafes = [*((item, 1) for item in table.failsafe_inbound), *((item, 0) for item in table.failsafe_outbound)]
    return any(
        protocol is None or (item.protocol == protocol and (ports is None or ports[side] == item.port))
        for item, side in failsafes
    )


def _lists(table: RuleTable, entry: Entry, source: IPv4Address | IPv6Address) -> bool:
    if source.version not in entry.families:
        return False
    match = said_by(entry).source
    if match.ip_set is not None:
        return table.sets[match.ip_set].nets.contains(source)
    return not match.nets or any(source in net for net in match.nets)
