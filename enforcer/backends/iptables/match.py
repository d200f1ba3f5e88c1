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
    Side,
)
from enforcer.backends.netfilter.names import set_name
from enforcer.model.errors import InternalError
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, PortSet, RuleTable

ICMP, ICMPV6 = 1, 58
ICMP_OF_FAMILY = {4: ICMP, 6: ICMPV6}
PORT_PROTOCOLS = (6, 17, 33, 132, 136)  # what xt_multiport accepts: TCP, UDP, DCCP, SCTP, UDP-Lite
LAST_PORT = 0xFFFF


class SetRegistry:
    """The sets that the rules rendered so far refer to."""

    def __init__(self) -> None:
        self._specs: dict[str, SetSpec] = {}

    def selector(self, item: IpSet, version: int, *, lenient: bool) -> str:
        """The name of a selector's set. It does not depend on the members, so they may change under a rule."""
        name = set_name(version, set_identity([item.id], lenient=lenient))
        return self._add(SetSpec(name, version, item.nets, lenient, origin=f"selector {item.selector}"))

    def named_ports(self, items: Sequence[PortSet], version: int, *, lenient: bool) -> str:
        """The name of the set of all these named ports together; it does not depend on their members either."""
        by_id = {item.id: item for item in sorted(items, key=lambda item: item.id)}
        members = {
            PortMember(address, item.protocol, port): None for item in by_id.values() for address, port in item.members
        }
        origin = "named ports " + ", ".join(sorted({item.name for item in items}))
        identity = set_identity(list(by_id), lenient=lenient)
        return self._add(
            SetSpec(
                set_name(version, identity),
                version,
                lenient=lenient,
                type=SetType.IP_PORT,
                ports=tuple(members),
                origin=origin,
            )
        )

    def literal(self, nets: Iterable[IPNetwork], version: int) -> str:
        """The name of a set with just these nets. It depends on the nets: other nets are another set."""
        members = Nets.of(nets)
        identity = "literal\n" + "\n".join(str(net) for net in members)
        return self._add(SetSpec(set_name(version, identity.encode()), version, members, origin="a list of nets"))

    def _add(self, spec: SetSpec) -> str:
        known = self._specs.setdefault(spec.name, spec)
        if known != spec:
            raise InternalError(f"one selector has two sets of members ({spec.name}): the tables of a plan disagree")
        return spec.name

    def specs(self) -> tuple[SetSpec, ...]:
        return tuple(self._specs.values())


def set_identity(ids: Sequence[str], *, lenient: bool) -> bytes:
    """What names a set: whose members it has, and which of two sets with these members it is."""
    return "\n".join(["lenient", *ids] if lenient else ids).encode()


@dataclass(frozen=True)
class PortTest:
    """What is asked of a port, numbers first; all of it must hold."""

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


def lets_go(entry: Entry) -> bool:
    return entry.action in (Action.ALLOW, Action.PASS)


def cannot_match(entry: Entry, version: int) -> bool:
    """Whether the entry is not to be rendered for a family (Felix: ``FilterRuleToIPVersion``), or is a contradiction.

    A list of nets, negated or not, that is all of the other family makes the entry one of that family.
    """
    sides = (entry.source, entry.destination)
    lists = [nets for side in sides for nets in (side.nets, side.not_nets) if nets]
    return (
        entry.ip_version not in (None, version)
        or any(not _of_family(nets, version) for nets in lists)
        or any(net.version == version and net.prefixlen == 0 for side in sides for net in side.not_nets)
        or (asks_icmp_type(entry) and entry.protocol != ICMP_OF_FAMILY[version])
        or (entry.protocol is not None and entry.protocol == entry.not_protocol)
    )


def unsupported(entry: Entry) -> Iterator[str]:
    """Why the raw table cannot express an entry, a sentence for each fault. The validator lets no such entry pass."""
    sides = (entry.source, entry.destination)
    has_ports = any(side.ports or side.not_ports for side in sides)
    if has_ports and entry.protocol not in PORT_PROTOCOLS:
        yield f"iptables cannot enforce {entry.name}: it matches ports, but no protocol that has ports; add one"
    if asks_icmp_type(entry) and entry.protocol not in (ICMP, ICMPV6):
        yield f"iptables cannot enforce {entry.name}: it matches an ICMP type without 'protocol: ICMP' or 'ICMPv6'"


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


def merged_ports(ports: Sequence[PortRange]) -> list[PortRange]:
    """The same ports in as few ranges as can be, ascending."""
    merged: list[PortRange] = []
    for item in sorted(ports, key=lambda item: item.first):
        if merged and item.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, item.last))
        else:
            merged.append(item)
    return merged


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


def asks_icmp_type(entry: Entry) -> bool:
    return any(icmp is not None and icmp.type is not None for icmp in (entry.icmp, entry.not_icmp))
