"""The rules of failsafes and entries, in raw and after conntrack, and what the chains of a family share. Pure.

Each rule of an entry has the entry's name as its comment, and a counter. Rules without a name emulate hotdrop
(``match``): packets that iptables hotdrops are dropped in ``enf-unread-...``. If a failsafe applies to all addresses,
its check covers all entries after it: with Calico's failsafes no entry needs a check of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from enforcer.backends.netfilter.entries import log_prefix, name_parts
from enforcer.backends.netfilter.names import ALLOW_CHAIN
from enforcer.backends.netfilter.ports import PORT_PROTOCOLS
from enforcer.backends.netfilter.tracked import DENY_CHAIN, DISCOVERY_TYPES
from enforcer.backends.netfilter.ways import FailsafeGroup
from enforcer.backends.nftables import expr
from enforcer.backends.nftables.match import (
    ICMP_BYTES,
    PORTS_BYTES,
    EntryMatch,
    Exprs,
    SetRegistry,
    match_of,
    port_numbers,
)
from enforcer.backends.nftables.rules import COMMENT_LENGTH, Chain, Code, Expr, NftablesSettings, Rule
from enforcer.model.vocabulary import Side
from enforcer.policy.ruletable import Entry, NamedSets

NO_PROTOCOL, NO_PORTS, NO_ICMP = "enf-unread-protocol", "enf-unread-ports", "enf-unread-icmp"
_DISCOVERY_CHAIN = "enf-discovery"


@dataclass
class Shared:
    """What the chains of one family share: ``sets``, and ``helpers``, chains by name, created when first needed."""

    version: int
    settings: NftablesSettings
    helpers: dict[str, Chain] = field(default_factory=dict, init=False)
    sets: SetRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.sets = SetRegistry(self.version)

    def allow(self) -> Expr:
        """A goto to the chain that marks a packet, makes it untracked and accepts it."""
        done = (*expr.set_mark(self.settings.accept_mark, on=True), expr.NOTRACK, expr.verdict(Code.ACCEPT))
        return self._to(Code.GOTO, ALLOW_CHAIN, Rule(done))

    def deny(self) -> Expr:
        """A goto to the chain that sets the drop mark and drops."""
        done = (*expr.set_mark(self.settings.drop_mark, on=True), expr.verdict(Code.DROP))
        return self._to(Code.GOTO, DENY_CHAIN, Rule(done))

    def discovery(self) -> Expr:
        """A jump to the chain that accepts ICMPv6 of a type of neighbour discovery or MLD, and returns for others."""
        whole, accept = expr.transport_has(ICMP_BYTES), expr.verdict(Code.ACCEPT)
        rules = (Rule((*whole, *expr.icmp(kind, None), accept)) for kind in DISCOVERY_TYPES)
        return self._to(Code.JUMP, _DISCOVERY_CHAIN, *rules)

    def hotdrop(self, name: str) -> Expr:
        """A jump to the chain that drops packets that are too short for a match, and returns for all others."""
        readable = {
            NO_PROTOCOL: [expr.protocol_is_known()],
            NO_PORTS: [expr.transport_has(PORTS_BYTES), expr.later_fragment(self.version)],
            NO_ICMP: [expr.transport_has(ICMP_BYTES), expr.later_fragment(self.version)],
        }[name]
        rules = [Rule((*match, expr.verdict(Code.RETURN))) for match in readable]
        return self._to(Code.JUMP, name, *rules, Rule((expr.verdict(Code.DROP),)))

    def log(self, entry: Entry) -> Exprs:
        """The statements of a Log entry."""
        rate = self.settings.log_limit
        # The limit comes last, so that only packets that would be logged use it up. Only logged packets count.
        limited = () if rate is None else (expr.limit(rate),)
        return (*limited, expr.COUNTER, expr.log(log_prefix(self.settings.log_prefix, entry)))

    def _to(self, code: Code, name: str, *rules: Rule) -> Expr:
        self.helpers.setdefault(name, Chain(name, rules))
        return expr.verdict(code, name)


@dataclass
class EntryRules:
    """Renders failsafes and entries of one interface at one hook, in evaluation order. ``checked``: the hotdrop checks
    that every packet has passed so far, as (name of the chain that drops, protocol); protocol None: any.
    """

    shared: Shared
    table: NamedSets
    checked: set[tuple[str, int | None]] = field(default_factory=set, init=False)

    def failsafe(self, group: FailsafeGroup, remote: Side) -> Iterator[Rule]:
        """Accept. ``remote``: the side that the group's net is on."""
        protocol = group.sample.protocol
        address = () if group.net is None else expr.net(remote, group.net)
        transport = expr.protocol(protocol)
        yield from self._hotdrop(NO_PROTOCOL, None, address)
        yield from self._hotdrop(NO_PORTS, protocol, address + transport)
        if group.net is None:
            self.checked |= {(NO_PROTOCOL, None), (NO_PORTS, protocol)}
        number = port_numbers(group.side, group.ports, self.shared.sets)
        yield Rule((*address, *transport, *number, expr.verdict(Code.ACCEPT)))

    def entry(self, entry: Entry, statements: Callable[[Entry], Exprs]) -> Iterator[Rule]:
        """The entry's rules in this family; none if the entry is for the other family or can match no packet.

        ``statements``: what the entry does with the packets that it matches.
        """
        if self.shared.version not in entry.families:
            return
        found = match_of(entry, self.table, self.shared.sets)
        yield from self._hotdrops(found)
        yield from entry_rules(entry.name, found, statements(entry), self.shared.settings.accept_mark)

    def _hotdrops(self, found: EntryMatch) -> Iterator[Rule]:
        """The rules before an entry's own: they drop the packets that iptables would hotdrop when evaluating it."""
        protocol = found.protocol.number if found.protocol and not found.protocol.negated else None
        if found.protocol:
            yield from self._hotdrop(NO_PROTOCOL, None, found.nets)
        earlier = found.nets + found.transport + found.sets
        if found.numbers and protocol in PORT_PROTOCOLS:
            yield from self._hotdrop(NO_PORTS, protocol, earlier)
        if found.icmp:
            yield from self._hotdrop(NO_ICMP, protocol, earlier)

    def _hotdrop(self, chain: str, protocol: int | None, earlier: Exprs) -> Iterator[Rule]:
        """A rule that drops too short packets; none if an earlier rule has checked all packets, or none can occur."""
        never_fails = chain == NO_PROTOCOL and self.shared.version == 4
        if not never_fails and (chain, protocol) not in self.checked:
            yield Rule((*earlier, self.shared.hotdrop(chain)))


def entry_rules(name: str, found: EntryMatch, statements: Exprs, mark: int) -> Iterator[Rule]:
    """An entry's rules: they match on every part of its EntryMatch, then execute the statements. Rules before and after
    them set and clear the mark, if it has negated named ports. Raw and netdev ingress share them.
    """
    for unwanted in found.marking:
        yield Rule((*unwanted, *expr.set_mark(mark, on=True)))
    unmarked = expr.marked(mark, inverted=True) if found.marking else ()
    for ports in found.alternatives:
        matches = (*found.nets, *found.transport, *found.sets, *ports, *found.icmp, *unmarked)
        yield from named(name, (*matches, *statements))
    if found.marking:
        yield Rule((*expr.marked(mark), *expr.set_mark(mark, on=False)))


def named(name: str, exprs: Exprs) -> Iterator[Rule]:
    """The rule with its entry's name as comment. A name too long for one comment starts in empty rules before it."""
    *front, last = name_parts(name, COMMENT_LENGTH)
    yield from (Rule((), part) for part in front)
    yield Rule(exprs, last)
