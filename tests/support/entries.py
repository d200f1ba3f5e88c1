"""Short forms of entries for tests: one keyword for each field that a rule can match on; and the inverse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Direction, Mode, Side
from enforcer.planning.xdp_capability import XDP, obstacles
from enforcer.policy.conditions import Condition, Icmp, InNets, InSet, Ports, Protocol, families_of, unhandled
from enforcer.policy.resources import NOWHERE, IcmpMatch, PortRange
from enforcer.policy.ruletable import Entry, RuleTable


@dataclass
class SideMatch:
    """What one side of a packet must be. An empty field is no condition."""

    nets: tuple[IPNetwork, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    ip_set: str | None = None
    not_ip_set: str | None = None
    ports: tuple[PortRange, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    named_ports: tuple[str, ...] = ()
    not_named_ports: tuple[str, ...] = ()

    def conditions(self, side: Side) -> Iterator[Condition]:
        """The same as conditions, in the compiler's order."""
        if self.ip_set is not None:
            yield InSet(side, self.ip_set)
        if self.not_ip_set is not None:
            yield InSet(side, self.not_ip_set, negated=True)
        if self.nets:
            yield InNets(side, self.nets)
        if self.not_nets:
            yield InNets(side, self.not_nets, negated=True)
        if self.ports or self.named_ports:
            yield Ports(side, self.ports, self.named_ports)
        if self.not_ports or self.not_named_ports:
            yield Ports(side, self.not_ports, self.not_named_ports, negated=True)


def entry_of(
    name: str,
    action: Action,
    tier: str = "default",
    *,
    policy: str = "",
    direction: Direction = Direction.INGRESS,
    index: int = 0,
    ip_version: int | None = None,
    protocol: int | None = None,
    not_protocol: int | None = None,
    icmp: IcmpMatch | None = None,
    not_icmp: IcmpMatch | None = None,
    source: SideMatch | None = None,
    destination: SideMatch | None = None,
) -> Entry:
    """The entry that the compiler creates from a rule with these fields."""
    conditions: list[Condition] = [Protocol(protocol)] if protocol is not None else []
    conditions += [Protocol(not_protocol, negated=True)] if not_protocol is not None else []
    conditions += (source or SideMatch()).conditions(Side.SOURCE)
    conditions += (destination or SideMatch()).conditions(Side.DESTINATION)
    for match, negated in ((icmp, False), (not_icmp, True)):
        if match is not None and match.type is not None:
            conditions.append(Icmp(match.type, match.code, negated))
    families = families_of(ip_version, conditions)
    return Entry(name, action, tier, policy, direction, index, families, tuple(conditions), NOWHERE)


@dataclass
class Said:
    """An entry's conditions, as keywords of :func:`entry_of`."""

    protocol: int | None = None
    not_protocol: int | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    source: SideMatch = field(default_factory=SideMatch)
    destination: SideMatch = field(default_factory=SideMatch)

    @property
    def sides(self) -> tuple[SideMatch, SideMatch]:
        return self.source, self.destination

    @property
    def types(self) -> list[Icmp]:
        """The ICMP types of the condition, negated or not."""
        return [icmp for icmp in (self.icmp, self.not_icmp) if icmp is not None]


def said_by(entry: Entry) -> Said:
    """What an entry matches on."""
    found = Said()
    sides = {Side.SOURCE: found.source, Side.DESTINATION: found.destination}
    for condition in entry.conditions:
        match condition:
            case Protocol(number, negated):
                setattr(found, "not_protocol" if negated else "protocol", number)
            case InNets(side, nets, negated):
                setattr(sides[side], "not_nets" if negated else "nets", nets)
            case InSet(side, name, negated):
                setattr(sides[side], "not_ip_set" if negated else "ip_set", name)
            case Ports(side, ranges, names, negated):
                prefix = "not_" if negated else ""
                setattr(sides[side], f"{prefix}ports", ranges)
                setattr(sides[side], f"{prefix}named_ports", names)
            case Icmp(negated=negated):
                setattr(found, "not_icmp" if negated else "icmp", condition)
            case _:
                raise unhandled(condition, f"a test's {entry.name}")
    return found


def names_of(match: SideMatch) -> Sequence[str]:
    """The named ports of one side, negated or not."""
    return (*match.named_ports, *match.not_named_ports)


def obstacle_sentences(table: RuleTable, mode: Mode | None = None, holder: str = XDP) -> list[str]:
    """For each ingress entry, why the early stage does not hold it; "" if it does."""
    return [found.sentence(holder) if found else "" for found in obstacles(table, mode)]
