"""Hypothesis strategies for RuleTables, with more conditions than :mod:`tests.support.strategies` compiles to, and for
packets.

Every condition occurs often, over few addresses, ports and types, so that results differ from packet to packet. Nothing
that validation refuses is generated: port numbers come with TCP, UDP or SCTP, types with ICMP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

from enforcer.model.nets import IPAddress, Nets
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import Failsafe, IcmpMatch, PortRange
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable
from tests.support.entries import SideMatch, entry_of, said_by

ADDRESSES = {
    4: tuple(map(ip_address, ("10.0.0.1", "10.0.0.2", "10.1.0.1", "192.0.2.1", "255.255.255.255"))),
    6: tuple(map(ip_address, ("2001:db8::1", "2001:db8::2", "2001:db8:1::1", "fd00::1"))),
}
NETS = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1/128", "::/0"),
    )
)
PORTS = (0, 1, 22, 53, 54, 255, 256, 65535)
PROTOCOLS = (6, 17, 132, 1, 58, 0, 47, 136, 255)
TYPES = (0, 3, 8, 254, 255)
CODES = (0, 1, 255)
TIERS = ("first", "second", "third")
FAMILY_OF_ICMP = {1: 4, 58: 6}
SETS, NAMES = ("s:a", "s:b", "s:c"), ("n:http", "n:dns", "n:none")


@dataclass(frozen=True)
class Packet:
    """The known fields of a packet; None: unknown. ``ports`` are (source, destination), ``icmp`` (type, code)."""

    source: IPAddress
    destination: IPAddress
    protocol: int | None = None
    ports: tuple[int, int] | None = None
    icmp: tuple[int, int] | None = None

    def __hash__(self) -> int:
        return self._hash

    @property
    def family(self) -> int:
        return self.source.version

    @cached_property
    def _hash(self) -> int:
        return hash((self.source, self.destination, self.protocol, self.ports, self.icmp))


@st.composite
def packets(draw: st.DrawFn, aims: Sequence[Entry] = (entry_of("", Action.DENY),)) -> Packet:
    """Mostly a packet of a kind that one of the entries matches on. Only with IPv6 the protocol can be unknown."""
    aim = draw(st.sampled_from(aims))
    said = said_by(aim)
    usual = FAMILY_OF_ICMP.get(said.protocol or 0)
    only = aim.families[0] if len(aim.families) == 1 else None
    family = draw(st.sampled_from((usual, usual, only))) or draw(st.sampled_from((4, 6)))
    address, port = st.sampled_from(ADDRESSES[family]), st.sampled_from(PORTS)
    protocols = [*PROTOCOLS, *[said.protocol] * 8] if said.protocol is not None else PROTOCOLS
    wanted = [(item.type, code) for item in said.types for code in (item.code or 0, 7)]
    icmp = st.sampled_from([*wanted, *((kind, 0) for kind in TYPES)])
    return Packet(
        draw(address),
        draw(address),
        draw(st.sampled_from(protocols if family == 4 else [*protocols, None, None, None])),
        draw(st.one_of(st.none(), *[st.tuples(port, port)] * 3)),
        draw(st.one_of(st.none(), *[icmp] * 3)),
    )


# How many entries that match nothing come before the others.
IDLE = (0, 0, 0, 0, 58, 63, 64, 122, 128, 300, 505, 512)


@st.composite
def rule_tables(draw: st.DrawFn, idle_counts: Sequence[int] = IDLE, max_size: int = 8) -> RuleTable:
    """Tables of a few entries that use every kind of condition, some after many that match nothing."""
    entries = draw(st.lists(entries_of_any_kind(), min_size=1, max_size=max_size))
    tiers = sorted(draw(st.sampled_from(TIERS)) for _ in entries)
    idle = [entry_of("", Action.DENY, "first", source=SideMatch(nets=(ip_network("192.0.2.255/32"),)))]
    before = idle * draw(st.sampled_from(idle_counts))
    named = [*before, *(replace(entry, tier=tier) for entry, tier in zip(entries, tiers, strict=True))]
    nets = st.lists(st.sampled_from(NETS), max_size=3).map(Nets.of)
    return RuleTable(
        "eth0",
        "endpoint",
        tuple(replace(entry, name=f"entry{at}") for at, entry in enumerate(named)),
        failsafe_inbound=draw(_failsafes()),
        failsafe_outbound=draw(_failsafes()),
        sets={name: IpSet(name, "", draw(nets)) for name in SETS},
        port_sets={name: draw(_port_sets(name)) for name in NAMES},
    )


@st.composite
def entries_of_any_kind(draw: st.DrawFn) -> Entry:
    protocol = draw(st.sampled_from((None, None, 6, 6, 17, 132, 1, 1, 58, 58, 47)))
    icmp = st.none() if protocol not in (1, 58) else st.one_of(st.none(), _icmp())
    numbers, names = protocol in (6, 17, 132), protocol in (None, 6, 17, 132)
    return entry_of(
        "",
        draw(st.sampled_from((*[Action.DENY] * 4, Action.ALLOW, Action.PASS, Action.PASS, Action.LOG))),
        ip_version=draw(st.sampled_from((None, None, None, 4, 6))),
        protocol=protocol,
        not_protocol=draw(st.sampled_from((None, None, None, 6, 17))),
        icmp=draw(icmp),
        not_icmp=draw(icmp),
        source=draw(_sides(numbers=numbers, names=names)),
        destination=draw(_sides(numbers=numbers, names=names)),
    )


@st.composite
def _sides(draw: st.DrawFn, *, numbers: bool, names: bool) -> SideMatch:
    fields = ("nets", "not_nets", "ip_set", "not_ip_set", *_PORT_FIELDS, *_PORT_FIELDS)
    used = draw(st.sets(st.sampled_from(fields), max_size=draw(st.sampled_from((0, 0, 1, 2, 3)))))
    nets = st.lists(st.sampled_from(NETS), min_size=1, max_size=3).map(tuple)
    ranges = st.lists(_ranges(), min_size=1, max_size=3).map(tuple)
    sets = st.sampled_from(SETS)
    some = st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True).map(tuple)
    how: dict[str, st.SearchStrategy[Any]] = {"nets": nets, "not_nets": nets, "ip_set": sets, "not_ip_set": sets}
    if numbers:
        how |= {"ports": ranges, "not_ports": ranges}
    if names:
        how |= {"named_ports": some, "not_named_ports": some}
    return SideMatch(**{field: draw(how[field]) for field in sorted(used & how.keys())})


_PORT_FIELDS = ("ports", "not_ports", "named_ports", "not_named_ports")


def _ranges() -> st.SearchStrategy[PortRange]:
    pairs = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS))
    return pairs.map(lambda pair: PortRange(min(pair), max(pair)))


def _icmp() -> st.SearchStrategy[IcmpMatch]:
    codes = st.sampled_from((None, None, *CODES))
    typed = st.builds(IcmpMatch, st.sampled_from(TYPES), codes)
    return st.one_of(typed, typed, st.just(IcmpMatch()))


def _failsafes() -> st.SearchStrategy[tuple[Failsafe, ...]]:
    one = st.builds(
        Failsafe, st.sampled_from((6, 17, 132)), st.sampled_from(PORTS), st.sampled_from((None, None, *NETS[1:6]))
    )
    return st.one_of(st.just(()), st.lists(one, max_size=3).map(tuple))


def _port_sets(name: str) -> st.SearchStrategy[PortSet]:
    addresses = st.sampled_from(ADDRESSES[4] + ADDRESSES[6])
    members = st.lists(
        st.tuples(addresses, st.sampled_from(PORTS)), max_size=0 if name == "n:none" else 12, unique=True
    )
    return st.builds(PortSet, st.just(name), st.just(name[2:]), st.sampled_from((6, 17, 132)), members.map(tuple))
