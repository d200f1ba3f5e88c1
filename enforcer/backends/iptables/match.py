"""From one side of an entry to what raw rules can match. Pure.

A rule has room for one literal net on each side; more than one, or one beside a negated one, become an ipset named by
its content. Ports come 15 to a multiport match, and all matches of a rule must hold. So a longer list is turned round:
a port is in the list if it is in no part of the list's complement, which any number of negated matches can say.

Named ports are ipsets of address, protocol and port. A port may be wanted by number *or* by name, which no single rule
can say: that side has two alternatives, numbers first. They overlap, and need not be disjoint where the first rule that
matches decides the packet; after a Log evaluation goes on, so there the second excludes what the first matches.

Numbers and names differ for a packet whose port cannot be read. multiport drops it there and then when it is not a
fragment and fewer than four octets of transport are there ("hotdrop"), and never matches a later fragment, negated or
not. A set just does not hold it (TCP below 20 octets, UDP 8, SCTP 12, later fragments), so that a negated set match
holds. Numbers are asked before names in every rule, and the first rule of an entry asks for all numbers the entry has:
so **an entry with any port number drops what is too short for multiport and never matches a later fragment, whatever
names it has besides**; one with names only treats both as packets without a port.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from enforcer.backends.iptables.rules import (
    PORT_SLOTS,
    Match,
    PortMember,
    PortsMatch,
    SetMatch,
    SetSpec,
    SetType,
)
from enforcer.backends.netfilter import sets as netfilter
from enforcer.backends.netfilter.entries import lets_go
from enforcer.backends.netfilter.ports import LAST_PORT, merged_ports
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action, Side
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, PortSet, RuleTable


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


@dataclass(frozen=True)
class SideMatch:
    """What one side of a packet must be: at most one literal net, matches, and one of the port tests."""

    net: IPNetwork | None = None
    inverted: bool = False
    sets: tuple[Match, ...] = ()
    ports: tuple[PortTest, ...] = (PortTest(),)


def side_of(side: Side, entry: Entry, table: RuleTable, version: int, sets: SetRegistry) -> SideMatch:
    """One side of an entry, for one family."""
    match = entry.source if side is Side.SOURCE else entry.destination
    nets, not_nets = _of_family(match.nets, version), _of_family(match.not_nets, version)
    found: list[Match] = []
    literal: IPNetwork | None = None
    lenient = lets_go(entry)
    if match.ip_set is not None:
        found.append(SetMatch(sets.selector(table.sets[match.ip_set], version, lenient=lenient), side))
    if match.not_ip_set is not None:
        # Denying what is not in the set is the other way round: a larger set matches less.
        name = sets.selector(table.sets[match.not_ip_set], version, lenient=not lenient)
        found.append(SetMatch(name, side, inverted=True))
    if len(nets) == 1:
        literal = nets[0]
    elif nets:
        found.append(SetMatch(sets.literal(nets, version), side))
    inverted = literal is None and len(not_nets) == 1
    if inverted:
        literal = not_nets[0]
    elif not_nets:
        found.append(SetMatch(sets.literal(not_nets, version), side, inverted=True))
    if literal is not None and literal.prefixlen == 0:
        literal = None  # every address; a negated one does not get here
    ports = _port_tests(side, match, entry, _NamedPorts(side, table, version, sets))
    return SideMatch(literal, inverted and literal is not None, tuple(found), ports)


@dataclass(frozen=True)
class _NamedPorts:
    """Makes set matches of named ports."""

    side: Side
    table: RuleTable
    version: int
    sets: SetRegistry

    def match(self, ids: Sequence[str], *, lenient: bool, inverted: bool = False) -> tuple[Match, ...]:
        if not ids:
            return ()
        items = [self.table.port_sets[item] for item in ids]
        name = self.sets.named_ports(items, self.version, lenient=lenient)
        return (SetMatch(name, self.side, inverted, port=True),)


def _port_tests(side: Side, match: AddressMatch, entry: Entry, named: _NamedPorts) -> tuple[PortTest, ...]:
    """The alternatives for the port of one side, never none."""
    lenient = lets_go(entry)
    wanted: list[PortTest] = []
    if match.ports:
        wanted.append(PortTest(numbers=port_matches(side, match.ports)))
    if match.named_ports:
        others = _negated_ports(side, match.ports) if entry.action is Action.LOG else ()
        wanted.append(PortTest(others, named.match(match.named_ports, lenient=lenient)))
    unwanted = PortTest(
        _negated_ports(side, match.not_ports), named.match(match.not_named_ports, lenient=not lenient, inverted=True)
    )
    return tuple(item + unwanted for item in wanted or [PortTest()])


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


def _of_family(nets: Iterable[IPNetwork], version: int) -> list[IPNetwork]:
    return [net for net in nets if net.version == version]
