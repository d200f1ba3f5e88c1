"""From the conditions of an entry to what raw rules can match. Pure.

A rule has room for one literal net on each side; more than one, or one beside a negated one, become an ipset named by
its content. Ports come 15 to a multiport match, and all matches of a rule must hold. So a longer list is turned round:
a port is in the list if it is in no part of the list's complement, which any number of negated matches can say.

Named ports are ipsets of address, protocol and port. A port may be wanted by number *or* by name, which no single rule
can say: that side has two alternatives, numbers first. They overlap, and need not be disjoint where the first rule that
matches decides the packet; after a Log evaluation goes on, so there the second excludes what the first matches.

Numbers and names differ for a packet whose port cannot be read. multiport hotdrops it (drops it there and then) when it
is not a fragment and fewer than four bytes of transport are there, and never matches a later fragment, negated or not.
A set just does not hold it (TCP below 20 bytes, UDP 8, SCTP 12, later fragments), so that a negated set match holds.
Every rule matches on numbers before names, and the first rule of an entry on all numbers the entry has: so **an entry
with any port number drops what is too short for multiport and never matches a later fragment, whatever names it has
besides**; one with names only treats both as packets without a port.
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
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable


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
    """What the rules of an entry match on in one family, in the order in which a rule of the kernel's does. Each rule
    has one of the ``ports``; a literal net is (net, negated).
    """

    literals: dict[Side, tuple[IPNetwork, bool]] = field(default_factory=dict)
    protocol: Protocol | None = None
    sets: list[Match] = field(default_factory=list)
    ports: tuple[PortTest, ...] = (PortTest(),)
    icmp: list[Match] = field(default_factory=list)

    def literal(self, side: Side) -> tuple[IPNetwork | None, bool]:
        """The net of one side; that of every address is none, and a negated one never gets here."""
        net, negated = self.literals.get(side, (None, False))
        return (net, negated) if net is not None and net.prefixlen else (None, False)


def match_of(entry: Entry, table: RuleTable, version: int, sets: SetRegistry) -> EntryMatch:
    """The conditions of an entry, for a family that it is for."""
    found = EntryMatch()
    # Denying what is not in a set is the other way round: a larger set matches less.
    lenient = {negated: lets_pass(entry) is not negated for negated in (False, True)}
    for condition in entry.conditions:
        match condition:
            case Protocol():
                # There is room for one. Beside a positive one, a negated one of another number says nothing more.
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
    """Makes set matches of named ports."""

    side: Side
    table: RuleTable
    version: int
    sets: SetRegistry

    def match(self, ids: Sequence[str], lenient: bool, inverted: bool) -> tuple[Match, ...]:
        if not ids:
            return ()
        items = [self.table.port_sets[item] for item in ids]
        name = self.sets.named_ports(items, self.version, lenient=lenient)
        return (SetMatch(name, self.side, inverted, port=True),)


def _wanted(side: Side, ranges: Sequence[PortRange], names: tuple[Match, ...], action: Action) -> tuple[PortTest, ...]:
    """The alternatives for a port that is wanted: by number, by name."""
    by_number = (PortTest(numbers=port_matches(side, ranges)),) if ranges else ()
    others = _negated_ports(side, ranges) if action is Action.LOG else ()
    return (*by_number, PortTest(others, names)) if names else by_number


def _unwanted(side: Side, ranges: Sequence[PortRange], names: tuple[Match, ...]) -> tuple[PortTest, ...]:
    return (PortTest(_negated_ports(side, ranges), names),)


def port_matches(side: Side, ports: Sequence[PortRange]) -> tuple[Match, ...]:
    """Matches that hold together exactly for the ports given; none for no ports."""
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
