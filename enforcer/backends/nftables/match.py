"""From one entry to the questions of its rules. Pure.

The order of questions is that of iptables raw, because a packet that is too short for one is dropped there and then
(docs/raw-table.md), and here as well: single nets, protocol, sets of addresses, port numbers, named ports, ICMP type.
nf_tables itself knows no such drop: an expression that cannot load ends the rule, and the packet goes on. So a rule in
front of the entry's own asks for as much as iptables would, and jumps to a chain that drops what cannot be read.

A negated named port holds for a packet without a readable port, which no single rule can say. So what *is* in the set
gets the accept mark first, the entry's rule asks that the mark is not there, and a rule behind it takes it off again.
Nothing else can have set it by then: it is cleared before anything is asked, and what an Allow marks asks no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from enforcer.backends.netfilter import sets as netfilter
from enforcer.backends.netfilter.entries import lets_go
from enforcer.backends.netfilter.names import set_name
from enforcer.backends.nftables import expr
from enforcer.backends.nftables.members import named_members, net_members, port_members
from enforcer.backends.nftables.rules import NAMED_PORTS, NETS, PORTS, Expr, SetSpec
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action, Side
from enforcer.policy.resources import IcmpMatch, PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, PortSet, RuleTable

Exprs = tuple[Expr, ...]

PORTS_OCTETS, ICMP_OCTETS = 4, 8  # what xt_multiport and xt_icmp want to see
NAMED_PORT_OCTETS = {6: 20, 17: 8, 132: 12}  # what ipset wants to see of TCP, UDP and SCTP (ip_set_getport.c)


class SetRegistry(netfilter.SetRegistry[SetSpec]):
    """The sets of one family that the rules rendered so far refer to."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version

    def selector(self, item: IpSet, *, lenient: bool) -> str:
        name = netfilter.selector_name(item, self.version, lenient=lenient)
        return self._add(name, item.nets, lambda: self._nets(name, item.nets, netfilter.selector_origin(item), lenient))

    def named_ports(self, items: Sequence[PortSet], *, lenient: bool) -> str:
        items = netfilter.in_order(items)
        name = netfilter.named_ports_name(items, self.version, lenient=lenient)
        origin = netfilter.named_ports_origin(items)
        return self._add(
            name,
            items,
            lambda: SetSpec(name, NAMED_PORTS[self.version], named_members(items, self.version), origin, lenient),
        )

    def literal(self, nets: Sequence[IPNetwork]) -> str:
        found = Nets.of(nets)
        name = netfilter.literal_name(found, self.version)
        return self._add(name, found, lambda: self._nets(name, found, netfilter.LITERAL_ORIGIN))

    def ports(self, ports: Sequence[PortRange]) -> str:
        """The name of a set with just these port numbers; other numbers are another set."""
        members = port_members(ports)
        name = set_name(self.version, b"ports\n" + members.tobytes())
        return self._add(name, None, lambda: SetSpec(name, PORTS, members, "a list of ports"))

    def _nets(self, name: str, nets: Nets, origin: str, lenient: bool = False) -> SetSpec:
        return SetSpec(name, NETS[self.version], net_members(nets, self.version), origin, lenient)


@dataclass(frozen=True)
class Questions:
    """The matches of an entry, in parts: ``nets`` and ``protocol`` first, then ``sets``; then one of ``alternatives``
    (ports, ICMP). ``marking`` are questions, one of which must *not* hold: see this module's beginning.
    """

    nets: Exprs
    protocol: Exprs
    sets: Exprs
    alternatives: tuple[Exprs, ...]
    marking: tuple[Exprs, ...]
    asks_numbers: bool
    asks_icmp: bool


def questions_of(entry: Entry, table: RuleTable, sets: SetRegistry) -> Questions:
    """All matches of an entry, for one family."""
    sides = ((Side.SOURCE, entry.source), (Side.DESTINATION, entry.destination))
    lenient = lets_go(entry)
    per_side = [_port_alternatives(side, match, entry, table, sets) for side, match in sides]
    icmp = (*_icmp(entry.icmp, inverted=False), *_icmp(entry.not_icmp, inverted=True))
    nets, addresses = zip(
        *(_addresses(side, match, table, sets, lenient=lenient) for side, match in sides), strict=True
    )
    return Questions(
        nets=tuple(item for part in nets for item in part),
        protocol=_protocol(entry),
        sets=tuple(item for part in addresses for item in part),
        alternatives=tuple((*one, *other, *icmp) for one, other in product(*per_side)),
        marking=tuple(
            item
            for side, match in sides
            for item in _named(side, match.not_named_ports, table, sets, lenient=not lenient)
        ),
        asks_numbers=any(match.ports or match.not_ports for _, match in sides),
        asks_icmp=bool(icmp),
    )


def _protocol(entry: Entry) -> Exprs:
    asked: Exprs = ()
    if entry.protocol is not None:
        asked += expr.protocol(entry.protocol)
    if entry.protocol is None and entry.not_protocol is not None:
        asked += expr.protocol(entry.not_protocol, inverted=True)
    return asked


def _addresses(
    side: Side, match: AddressMatch, table: RuleTable, sets: SetRegistry, *, lenient: bool
) -> tuple[Exprs, Exprs]:
    """The questions after single nets, as iptables would have them in its rules, and those after sets."""
    nets = [net for net in match.nets if net.version == sets.version]
    not_nets = [net for net in match.not_nets if net.version == sets.version]
    single: Exprs = ()
    found: Exprs = ()
    if match.ip_set is not None:
        found += expr.address_in(side, sets.version, sets.selector(table.sets[match.ip_set], lenient=lenient))
    if match.not_ip_set is not None:
        # Denying what is not in the set is the other way round: a larger set matches less.
        name = sets.selector(table.sets[match.not_ip_set], lenient=not lenient)
        found += expr.address_in(side, sets.version, name, inverted=True)
    if len(nets) > 1:
        found += expr.address_in(side, sets.version, sets.literal(nets))
    elif nets and nets[0].prefixlen:
        single += expr.net(side, nets[0])
    if len(not_nets) == 1 and len(nets) != 1:
        single += expr.net(side, not_nets[0], inverted=True)
    elif not_nets:
        found += expr.address_in(side, sets.version, sets.literal(not_nets), inverted=True)
    return single, found


def port_numbers(side: Side, ports: Sequence[PortRange], sets: SetRegistry, *, inverted: bool = False) -> Exprs:
    """The port of one side is (not) one of these; no match without ports."""
    if not ports:
        return ()
    readable = expr.transport_has(PORTS_OCTETS)
    if len(ports) == 1:
        return readable + expr.port(side, ports[0], inverted=inverted)
    return readable + expr.port_in(side, sets.ports(ports), inverted=inverted)


def _port_alternatives(
    side: Side, match: AddressMatch, entry: Entry, table: RuleTable, sets: SetRegistry
) -> list[Exprs]:
    """What may hold of the port of one side, never nothing. They may overlap where the first that holds decides; after
    a Log evaluation goes on, so there what is asked by name is none of the numbers.
    """
    unwanted = port_numbers(side, match.not_ports, sets, inverted=True)
    wanted: list[Exprs] = []
    if match.ports:
        wanted.append(port_numbers(side, match.ports, sets))
    others = port_numbers(side, match.ports, sets, inverted=True) if entry.action is Action.LOG else ()
    named = _named(side, match.named_ports, table, sets, lenient=lets_go(entry))
    wanted += [others + names for names in named]
    return [item + unwanted for item in wanted or [()]]


def _named(side: Side, ids: Sequence[str], table: RuleTable, sets: SetRegistry, *, lenient: bool) -> Iterator[Exprs]:
    """For each protocol of these named ports: it is the packet's, its header is there, and the port is in the set."""
    items = [table.port_sets[item] for item in ids]
    for protocol in dict.fromkeys(item.protocol for item in items):
        name = sets.named_ports([item for item in items if item.protocol == protocol], lenient=lenient)
        whole = expr.transport_has(NAMED_PORT_OCTETS[protocol])
        yield (*expr.protocol(protocol), *whole, *expr.named_port_in(side, sets.version, name))


def _icmp(icmp: IcmpMatch | None, *, inverted: bool) -> Exprs:
    if icmp is None or icmp.type is None:
        return ()
    return (*expr.transport_has(ICMP_OCTETS), *expr.icmp(icmp.type, icmp.code, inverted=inverted))
