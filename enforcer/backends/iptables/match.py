"""From the conditions of an entry to the matches of its raw rules. Pure.

A rule can match on one literal net on each side. Several nets, or a second condition on the same side, become an ipset
whose name is derived from its content. A multiport match has 15 slots, and all matches of a rule must hold. So a longer
list is expressed through its complement: a port is in the list if it is in no part of the complement, which is any
number of negated multiport matches.

Named ports are ipsets of (address, protocol, port). A port condition may have numbers *or* names, which one rule cannot
express: that side has two alternatives, numbers first. They may overlap if the first rule that matches decides on the
packet. After a Log, evaluation continues, so there the second alternative excludes what the first one matches.

Numbers and names differ for a packet whose port cannot be read. multiport hotdrops it if it is not a fragment and has
fewer than four bytes of transport, and never matches a later fragment, negated or not. A set does not contain it (TCP
below 20 bytes, UDP 8, SCTP 12, later fragments), so a negated set match holds. Every rule matches on numbers before
names, and the first rule of an entry on all its numbers. So **an entry with any port number drops what is too short for
multiport and never matches a later fragment, whatever names it also has**; an entry with names only treats both as
packets without a port.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from enforcer.backends.iptables.rules import (
    PORT_SLOTS,
    IcmpType,
    Match,
    PortMember,
    PortsMatch,
    SetMatch,
    SetSpec,
    SetType,
)
from enforcer.backends.netfilter import sets as netfilter
from enforcer.backends.netfilter.entries import lets_pass, of_family
from enforcer.backends.netfilter.ports import LAST_PORT, merged_ports
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action, Side
from enforcer.policy.conditions import Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import Entry, IpSet, NamedSets, PortSet


class SetRegistry(netfilter.SetRegistry[SetSpec]):
    """The ipsets that the rules rendered so far refer to."""

    def selector(self, item: IpSet, version: int, *, lenient: bool) -> str:
        name = netfilter.selector_name(item, version, lenient=lenient)
        origin = netfilter.selector_origin(item)
        return self._add(name, item.nets, lambda: SetSpec(name, version, item.nets, lenient, origin=origin))

    def named_ports(self, items: Sequence[PortSet], version: int, *, lenient: bool) -> str:
        items = netfilter.in_order(items)
        name = netfilter.named_ports_name(items, version, lenient=lenient)
        members = {PortMember(address, item.protocol, port): None for item in items for address, port in item.members}
        origin = netfilter.named_ports_origin(items)
        ports = tuple(members)
        return self._add(
            name,
            ports,
            lambda: SetSpec(name, version, lenient=lenient, type=SetType.IP_PORT, ports=ports, origin=origin),
        )

    def literal(self, nets: Iterable[IPNetwork], version: int) -> str:
        members = Nets.of(nets)
        name = netfilter.literal_name(members, version)
        return self._add(name, members, lambda: SetSpec(name, version, members, origin=netfilter.LITERAL_ORIGIN))


@dataclass(frozen=True)
class PortTest:
    """The conditions on a port, numbers first; all must hold."""

    numbers: tuple[Match, ...] = ()
    names: tuple[Match, ...] = ()

    def __add__(self, other: PortTest) -> PortTest:
        return PortTest(self.numbers + other.numbers, self.names + other.names)


@dataclass
class EntryMatch:
    """What the rules of an entry match on in one family, in the kernel's order of evaluation. Each of ``ports`` gives
    one rule. ``literals``: (net, negated) of each side.
    """

    literals: dict[Side, tuple[IPNetwork, bool]] = field(default_factory=dict)
    protocol: Protocol | None = None
    sets: list[Match] = field(default_factory=list)
    ports: tuple[PortTest, ...] = (PortTest(),)
    icmp: list[Match] = field(default_factory=list)

    def literal(self, side: Side) -> tuple[IPNetwork | None, bool]:
        """(net, negated) of one side. (None, False) for a net of prefix length 0, which is never negated here."""
        net, negated = self.literals.get(side, (None, False))
        return (net, negated) if net is not None and net.prefixlen else (None, False)


def match_of(entry: Entry, table: NamedSets, version: int, sets: SetRegistry) -> EntryMatch:
    """The conditions of an entry in one of its families."""
    found = EntryMatch()
    # A negated match reverses it: a Deny of what is not in a set matches less if the set is larger.
    lenient = {negated: lets_pass(entry) is not negated for negated in (False, True)}
    for condition in entry.conditions:
        match condition:
            case Protocol():
                # A rule can match on one protocol. A negated one of another number adds nothing to a positive one.
                if found.protocol is None or found.protocol.negated:
                    found.protocol = condition
            case InSet(side, name, negated):
                set_name = sets.selector(table.sets[name], version, lenient=lenient[negated])
                found.sets.append(SetMatch(set_name, side, negated))
            case InNets(side, nets, negated):
                own = of_family(nets, version)
                if len(own) == 1 and side not in found.literals:
                    found.literals[side] = (own[0], negated)
                else:
                    found.sets.append(SetMatch(sets.literal(own, version), side, negated))
            case Ports(side, ranges, names, negated):
                members = _NamedPorts(side, table, version, sets).match(names, lenient[negated], negated)
                tests = _unwanted(side, ranges, members) if negated else _wanted(side, ranges, members, entry.action)
                found.ports = tuple(one + other for one, other in product(found.ports, tests))
            case Icmp(kind, code, negated):
                found.icmp.append(IcmpType(kind, code, negated))
            case _:
                raise unhandled(condition, f"iptables cannot enforce {entry.name}: it")
    return found


@dataclass(frozen=True)
class _NamedPorts:
    """Creates set matches for named ports."""

    side: Side
    table: NamedSets
    version: int
    sets: SetRegistry

    def match(self, ids: Sequence[str], lenient: bool, inverted: bool) -> tuple[Match, ...]:
        if not ids:
            return ()
        items = [self.table.port_sets[item] for item in ids]
        name = self.sets.named_ports(items, self.version, lenient=lenient)
        return (SetMatch(name, self.side, inverted, port=True),)


def _wanted(side: Side, ranges: Sequence[PortRange], names: tuple[Match, ...], action: Action) -> tuple[PortTest, ...]:
    """The alternatives of a positive port condition: by number, by name."""
    by_number = (PortTest(numbers=port_matches(side, ranges)),) if ranges else ()
    others = _negated_ports(side, ranges) if action is Action.LOG else ()
    return (*by_number, PortTest(others, names)) if names else by_number


def _unwanted(side: Side, ranges: Sequence[PortRange], names: tuple[Match, ...]) -> tuple[PortTest, ...]:
    return (PortTest(_negated_ports(side, ranges), names),)


def port_matches(side: Side, ports: Sequence[PortRange]) -> tuple[Match, ...]:
    """Matches that all hold exactly for these ports; empty for no ports."""
    if not ports:
        return ()
    for form in (ports, merged_ports(ports)):
        if sum(map(_slots, form)) <= PORT_SLOTS:
            return (PortsMatch(side, tuple(form)),)
    return _negated_ports(side, _complement(ports))


def _negated_ports(side: Side, ports: Sequence[PortRange]) -> tuple[Match, ...]:
    return tuple(PortsMatch(side, chunk, inverted=True) for chunk in _chunks(ports))


def _chunks(ports: Sequence[PortRange]) -> Iterator[tuple[PortRange, ...]]:
    chunk: list[PortRange] = []
    for item in ports:
        if sum(map(_slots, chunk)) + _slots(item) > PORT_SLOTS:
            yield tuple(chunk)
            chunk = []
        chunk.append(item)
    if chunk:
        yield tuple(chunk)


def _complement(ports: Sequence[PortRange]) -> list[PortRange]:
    """The ports of 0..65535 in none of the ranges, ascending."""
    gaps: list[PortRange] = []
    start = 0
    for item in merged_ports(ports):
        if item.first > start:
            gaps.append(PortRange(start, item.first - 1))
        start = item.last + 1
    return [*gaps, PortRange(start, LAST_PORT)] if start <= LAST_PORT else gaps


def _slots(ports: PortRange) -> int:
    return 1 if ports.first == ports.last else 2
