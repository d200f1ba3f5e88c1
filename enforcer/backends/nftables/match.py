"""From one entry to what its rules match on. Pure.

The order of matches is that of iptables raw, because a packet that is too short for one is hotdropped there
(docs/raw-table.md), and here as well: single nets, protocol, sets of addresses, port numbers, named ports, ICMP type.
nf_tables itself has no hotdrop: an expression that cannot load ends the rule, and the packet goes on. So a rule before
the entry's own jumps, for what matches as far as iptables would have looked, to a chain that drops what is too short.

A negated named port holds for a packet without a readable port, which no single rule can say. So what *is* in the set
gets the accept mark first, the entry's rule matches where the mark is not there, and a rule after it takes it off
again. Nothing else can have set it by then: it is cleared before any entry, and what an Allow marks meets no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from enforcer.backends.netfilter import sets as netfilter
from enforcer.backends.netfilter.entries import lets_pass, of_family
from enforcer.backends.netfilter.names import set_name
from enforcer.backends.nftables import expr
from enforcer.backends.nftables.members import named_members, net_members, port_members
from enforcer.backends.nftables.rules import NAMED_PORTS, NETS, PORTS, Expr, SetSpec
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action, Side
from enforcer.policy.conditions import Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable

Exprs = tuple[Expr, ...]

PORTS_BYTES, ICMP_BYTES = 4, 8  # what xt_multiport and xt_icmp want to see
NAMED_PORT_BYTES = {6: 20, 17: 8, 132: 12}  # what ipset wants to see of TCP, UDP and SCTP (ip_set_getport.c)


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


@dataclass
class EntryMatch:
    """What an entry matches on, in parts: ``nets`` and ``transport`` first, then ``sets``; then one of ``alternatives``
    (ports), then ``icmp``. ``marking`` are matches, one of which must *not* hold: see this module's beginning.
    """

    protocol: Protocol | None = None
    nets: Exprs = ()
    sets: Exprs = ()
    alternatives: tuple[Exprs, ...] = ((),)
    icmp: Exprs = ()
    marking: tuple[Exprs, ...] = ()
    numbers: bool = False  # whether it matches on port numbers
    ports: bool = False  # ... or on any ports

    @property
    def transport(self) -> Exprs:
        """The match on the protocol."""
        return expr.protocol(self.protocol.number, inverted=self.protocol.negated) if self.protocol else ()

    def admits(self, protocol: int) -> bool:
        """Whether a packet of this protocol may match."""
        return self.protocol is None or (self.protocol.number == protocol) is not self.protocol.negated


def match_of(entry: Entry, table: RuleTable, sets: SetRegistry) -> EntryMatch:
    """The conditions of an entry, for a family that it is for."""
    found = EntryMatch()
    single: set[Side] = set()  # the sides that have a net in the rule itself, as iptables has room for one
    # Denying what is not in a set is the other way round: a larger set matches less.
    lenient = {negated: lets_pass(entry) is not negated for negated in (False, True)}
    for condition in entry.conditions:
        match condition:
            case Protocol():
                # As in iptables' rules: beside a positive one, a negated one of another number says nothing more.
                if found.protocol is None or found.protocol.negated:
                    found.protocol = condition
            case InSet(side, name, negated):
                set_name = sets.selector(table.sets[name], lenient=lenient[negated])
                found.sets += expr.address_in(side, sets.version, set_name, inverted=negated)
            case InNets(side, nets, negated):
                own = of_family(nets, sets.version)
                if len(own) > 1 or side in single:
                    found.sets += expr.address_in(side, sets.version, sets.literal(own), inverted=negated)
                elif own[0].prefixlen:
                    found.nets += expr.net(side, own[0], inverted=negated)
                single |= {side} if len(own) == 1 else set()
            case Ports(side, ranges, names, negated):
                found.numbers |= bool(ranges)
                found.ports = True
                named = tuple(_named(side, names, table, sets, lenient=lenient[negated]))
                if negated:
                    found.marking += named
                    wanted = [port_numbers(side, ranges, sets, inverted=True)]
                else:
                    wanted = _wanted_ports(side, ranges, named, entry.action, sets)
                found.alternatives = tuple((*one, *other) for one, other in product(found.alternatives, wanted))
            case Icmp(kind, code, negated):
                found.icmp += (*expr.transport_has(ICMP_BYTES), *expr.icmp(kind, code, inverted=negated))
            case _:
                raise unhandled(condition, f"nf_tables cannot enforce {entry.name}: it")
    return found


def needs_mark(entry: Entry) -> bool:
    """Whether the rules of an entry mark packets on their way: those of a negated named port do."""
    return any(isinstance(item, Ports) and item.negated and item.names for item in entry.conditions)


def port_numbers(side: Side, ports: Sequence[PortRange], sets: SetRegistry, *, inverted: bool = False) -> Exprs:
    """The port of one side is (not) one of these; no match without ports."""
    if not ports:
        return ()
    readable = expr.transport_has(PORTS_BYTES)
    if len(ports) == 1:
        return readable + expr.port(side, ports[0], inverted=inverted)
    return readable + expr.port_in(side, sets.ports(ports), inverted=inverted)


def _wanted_ports(
    side: Side, ranges: Sequence[PortRange], named: Sequence[Exprs], action: Action, sets: SetRegistry
) -> list[Exprs]:
    """What may hold of a port that is wanted. The alternatives may overlap where the first that holds decides; after a
    Log evaluation goes on, so there what is wanted by name is none of the numbers.
    """
    by_number = [port_numbers(side, ranges, sets)] if ranges else []
    others = port_numbers(side, ranges, sets, inverted=True) if action is Action.LOG else ()
    return by_number + [others + names for names in named]


def _named(side: Side, ids: Sequence[str], table: RuleTable, sets: SetRegistry, *, lenient: bool) -> Iterator[Exprs]:
    """For each protocol of these named ports: it is the packet's, its header is there, and the port is in the set."""
    items = [table.port_sets[item] for item in ids]
    for protocol in dict.fromkeys(item.protocol for item in items):
        name = sets.named_ports([item for item in items if item.protocol == protocol], lenient=lenient)
        whole = expr.transport_has(NAMED_PORT_BYTES[protocol])
        yield (*expr.protocol(protocol), *whole, *expr.named_port_in(side, sets.version, name))
