"""From one entry to what its rules match on. Pure.

The order of matches is that of iptables raw: single nets, protocol, sets of addresses, port numbers, named ports, ICMP
type. The order matters, because iptables hotdrops a packet that is too short for a match (docs/raw-table.md), and so do
we. nf_tables has no hotdrop: an expression that cannot load ends the rule, and the packet continues. So a rule before
the entry's own jumps to a chain that drops packets that are too short; it matches on what iptables evaluates earlier.

A negated named port also holds for a packet without a readable port, which one rule cannot express. So a first rule
sets the accept mark on packets whose port *is* in the set, the entry's rule matches on packets without the mark, and a
rule after it clears the mark. No other rule can have set the mark: it is cleared before the first entry, and a packet
that an Allow marks is accepted at once.
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
from enforcer.policy.ruletable import Entry, IpSet, NamedSets, PortSet

Exprs = tuple[Expr, ...]

PORTS_BYTES, ICMP_BYTES = 4, 8  # of transport that xt_multiport and xt_icmp need
NAMED_PORT_BYTES = {6: 20, 17: 8, 132: 12}  # that ipset needs of TCP, UDP and SCTP (ip_set_getport.c)


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
        """The name of a set with exactly these port numbers. Different numbers give a different set."""
        members = port_members(ports)
        name = set_name(self.version, b"ports\n" + members.tobytes())
        return self._add(name, None, lambda: SetSpec(name, PORTS, members, "a list of ports"))

    def _nets(self, name: str, nets: Nets, origin: str, lenient: bool = False) -> SetSpec:
        return SetSpec(name, NETS[self.version], net_members(nets, self.version), origin, lenient)


@dataclass
class EntryMatch:
    """What an entry matches on, in order: ``nets``, ``transport``, ``sets``, one of ``alternatives`` (ports), ``icmp``.
    ``marking``: matches for negated named ports, none of which may hold (see the module's docstring).
    """

    protocol: Protocol | None = None
    nets: Exprs = ()
    sets: Exprs = ()
    alternatives: tuple[Exprs, ...] = ((),)
    icmp: Exprs = ()
    marking: tuple[Exprs, ...] = ()
    numbers: bool = False  # whether it matches on port numbers
    ports: bool = False  # whether it matches on ports at all

    @property
    def transport(self) -> Exprs:
        """The match on the protocol."""
        return expr.protocol(self.protocol.number, inverted=self.protocol.negated) if self.protocol else ()

    def admits(self, protocol: int) -> bool:
        """Whether a packet of this protocol may match."""
        return self.protocol is None or (self.protocol.number == protocol) is not self.protocol.negated


def match_of(entry: Entry, table: NamedSets, sets: SetRegistry) -> EntryMatch:
    """The conditions of an entry in the family of ``sets``."""
    found = EntryMatch()
    single: set[Side] = set()  # the sides with a net in the rule itself: one, as in iptables
    # A negated match reverses it: a Deny of what is not in a set matches less if the set is larger.
    lenient = {negated: lets_pass(entry) is not negated for negated in (False, True)}
    for condition in entry.conditions:
        match condition:
            case Protocol():
                # As in iptables' rules: a negated one of another number adds nothing to a positive one.
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
    """Whether the rules of an entry mark packets temporarily: those of a negated named port do."""
    return any(isinstance(item, Ports) and item.negated and item.names for item in entry.conditions)


def port_numbers(side: Side, ports: Sequence[PortRange], sets: SetRegistry, *, inverted: bool = False) -> Exprs:
    """The port of one side is (not) one of these; empty for no ports."""
    if not ports:
        return ()
    readable = expr.transport_has(PORTS_BYTES)
    if len(ports) == 1:
        return readable + expr.port(side, ports[0], inverted=inverted)
    return readable + expr.port_in(side, sets.ports(ports), inverted=inverted)


def _wanted_ports(
    side: Side, ranges: Sequence[PortRange], named: Sequence[Exprs], action: Action, sets: SetRegistry
) -> list[Exprs]:
    """The alternatives of a positive port condition. They may overlap if the first that matches decides; after a Log,
    evaluation continues, so there the match by name excludes the numbers.
    """
    by_number = [port_numbers(side, ranges, sets)] if ranges else []
    others = port_numbers(side, ranges, sets, inverted=True) if action is Action.LOG else ()
    return by_number + [others + names for names in named]


def _named(side: Side, ids: Sequence[str], table: NamedSets, sets: SetRegistry, *, lenient: bool) -> Iterator[Exprs]:
    """One match for each protocol of these named ports: the packet is of the protocol, has its header, and its port is
    in the set.
    """
    items = [table.port_sets[item] for item in ids]
    for protocol in dict.fromkeys(item.protocol for item in items):
        name = sets.named_ports([item for item in items if item.protocol == protocol], lenient=lenient)
        whole = expr.transport_has(NAMED_PORT_BYTES[protocol])
        yield (*expr.protocol(protocol), *whole, *expr.named_port_in(side, sets.version, name))
