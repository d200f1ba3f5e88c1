"""Short forms of plans for tests of the raw table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from enforcer.backends.iptables import IptablesBackend, IptablesSettings
from enforcer.backends.iptables.render import render
from enforcer.backends.iptables.rules import Chain, TableId, TableName
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action, Backend, Direction
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.policy.resources import (
    DEFAULT_FAILSAFE_INBOUND,
    DEFAULT_FAILSAFE_OUTBOUND,
    Failsafe,
    IcmpMatch,
    PortRange,
)
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable
from tests.support.entries import SideMatch, entry_of


def entry(
    index: int, action: Action, *, policy: str = "edge", direction: Direction = Direction.INGRESS, **match: Any
) -> Entry:
    return entry_of(
        f"gnp/{policy} {direction}[{index}]", action, policy=policy, direction=direction, index=index, **match
    )


def nets(*cidrs: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(cidr) for cidr in cidrs)


def ports(*numbers: int | tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(PortRange(item, item) if isinstance(item, int) else PortRange(*item) for item in numbers)


def source(*cidrs: str) -> SideMatch:
    return SideMatch(nets=nets(*cidrs))


def dport(*numbers: int | tuple[int, int]) -> SideMatch:
    return SideMatch(ports=ports(*numbers))


def ip_set(set_id: str, members: Sequence[str] | Nets) -> IpSet:
    return IpSet(set_id, f"{set_id} == 'true'", members if isinstance(members, Nets) else Nets.of(members))


def port_set(name: str, *members: tuple[str, int], protocol: int = 6) -> PortSet:
    return PortSet(f"n:{name}", name, protocol, tuple((ip_address(address), port) for address, port in members))


def table(
    *ingress: Entry,
    interface: str = "eth0",
    egress: tuple[Entry, ...] = (),
    inbound: tuple[Failsafe, ...] = (),
    outbound: tuple[Failsafe, ...] = (),
    sets: Sequence[IpSet] = (),
    port_sets: Sequence[PortSet] = (),
) -> RuleTable:
    return RuleTable(
        interface,
        "hep",
        ingress,
        egress,
        inbound,
        outbound,
        {item.id: item for item in sets},
        {item.id: item for item in port_sets},
    )


def plan(*tables: RuleTable) -> Plan:
    return Plan("node", tuple(InterfacePlan(item, None, Backend.IPTABLES, ()) for item in tables))


def rendered(wanted: Plan, settings: IptablesSettings | None = None) -> Mapping[TableId, tuple[Chain, ...]]:
    return render(wanted, settings or IptablesSettings()).chains


RAW4, RAW6 = (TableId(version, TableName.RAW) for version in (4, 6))
ALLOW, DENY, LOG, PASS = Action.ALLOW, Action.DENY, Action.LOG, Action.PASS
BACKEND = IptablesBackend()

DENY_LIST = ip_set("s:deny", ["203.0.113.0/24", "198.51.100.7", "2001:db8:bad::/48"])
FROM_LIST = SideMatch(ip_set="s:deny")
FAILSAFES: dict[str, Any] = {"inbound": DEFAULT_FAILSAFE_INBOUND, "outbound": DEFAULT_FAILSAFE_OUTBOUND}

# Every kind of condition and action, once.
RICH = table(
    entry(0, LOG, tier="security", protocol=17),
    entry(1, PASS, tier="security", source=source("192.0.2.0/24")),
    entry(2, DENY, tier="security", source=FROM_LIST),
    entry(3, DENY, tier="security", protocol=6, destination=dport(80, (8000, 8080))),
    entry(4, DENY, tier="security", protocol=17, destination=SideMatch(not_ports=ports(*range(1, 60, 2)))),
    entry(5, DENY, tier="security", protocol=132, source=dport(*range(1, 60, 2))),
    entry(0, ALLOW, source=SideMatch(nets=nets("10.0.0.0/8"), not_nets=nets("10.1.0.0/16"))),
    entry(1, DENY, source=source("10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0")),
    entry(2, DENY, not_protocol=6, destination=SideMatch(not_nets=nets("10.0.0.0/8"))),
    entry(3, DENY, not_protocol=6, destination=SideMatch(not_nets=nets("2001:db8::/32"))),
    entry(4, DENY, protocol=253),
    entry(5, DENY, protocol=1, icmp=IcmpMatch(8, 0)),
    entry(6, DENY, protocol=58, not_icmp=IcmpMatch(128)),
    entry(7, DENY, protocol=136, policy="quo'te\"d-" + "x" * 250),
    egress=(entry(0, DENY, direction=Direction.EGRESS, destination=FROM_LIST),),
    sets=[DENY_LIST],
    **FAILSAFES,
)
