"""From a Plan to the tables, chains and sets that enforce it. Pure.

There is one table ``enforcer`` in each of the families ``ip`` and ``ip6``, so a packet of one family never meets a rule
of the other, and ``ipv6Support: false`` just omits a table. The layout is that of iptables raw, chain by chain::

    hook prerouting, priority -300: enf-PREROUTING ─┬─ clear the accept mark
                                                    └─ iifname eth0 goto enf-fh-eth0 ─┬─ enf-fsi-eth0
                                                                                      ├─ enf-pi-eth0/default
                                                                                      └─ enf-pi-eth0/...
    hook output, priority -300: enf-OUTPUT ... oifname eth0 goto enf-th-eth0 ─────────┴─ likewise

Deny is drop; Allow goes to ``enf-allow`` (accept mark, notrack, accept); Pass is return; Log is log. Each rule of an
entry has the entry's name as its comment, and a counter. Rules without a name emulate hotdrop (``match``).

Packets that iptables hotdrops are dropped here in ``enf-unread-...``. If a failsafe applies to all addresses, its check
covers all entries after it: with Calico's failsafes no entry needs a check of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from enforcer.backends.netfilter.entries import log_prefix, name_parts, unsupported
from enforcer.backends.netfilter.names import ALLOW_CHAIN, chain_name
from enforcer.backends.netfilter.ports import PORT_PROTOCOLS
from enforcer.backends.netfilter.sets import too_large
from enforcer.backends.netfilter.ways import WAYS, FailsafeGroup, Way, failsafe_groups
from enforcer.backends.nftables import expr
from enforcer.backends.nftables.match import (
    ICMP_BYTES,
    PORTS_BYTES,
    EntryMatch,
    Exprs,
    SetRegistry,
    match_of,
    needs_mark,
    port_numbers,
)
from enforcer.backends.nftables.rules import (
    COMMENT_LENGTH,
    FAMILY_OF,
    Chain,
    Code,
    Expr,
    Hook,
    NftablesSettings,
    Rule,
    Table,
)
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action, Backend, Direction
from enforcer.planning.plan import Plan
from enforcer.policy.ruletable import Entry, RuleTable

RAW_PRIORITY = -300
_HOOKS = {Direction.INGRESS: Hook(0, RAW_PRIORITY), Direction.EGRESS: Hook(3, RAW_PRIORITY)}  # NF_INET_*

NO_PROTOCOL, NO_PORTS, NO_ICMP = "enf-unread-protocol", "enf-unread-ports", "enf-unread-icmp"


def render(plan: Plan, settings: NftablesSettings) -> tuple[Table, ...]:
    """The tables of both families with every interface of the plan whose raw backend is nftables. Empty tables are
    deleted.

    Raises UnsupportedRuleError with every entry that cannot be expressed and every set that is too large.
    """
    tables = [item.table for item in plan.interfaces if item.raw_backend is Backend.NFTABLES]
    entries = [entry for table in tables for entry in (*table.ingress, *table.egress)]
    problems = [
        problem for entry in entries for problem in (*unsupported(entry, Backend.NFTABLES), *_unmarked(entry, settings))
    ]
    if problems:
        raise UnsupportedRuleError("\n".join(dict.fromkeys(problems)))
    found = [_Family(version, settings).table(tables if version == 4 or settings.ipv6 else []) for version in FAMILY_OF]
    _require_small(found, settings.max_set_size)
    return tuple(found)


def _unmarked(entry: Entry, settings: NftablesSettings) -> Iterator[str]:
    if settings.accept_mark:
        return
    if entry.action is Action.ALLOW:
        yield f"nftables cannot enforce {entry.name}: Allow sets a mark, and the mark mask is 0; give it a bit"
    if needs_mark(entry):
        yield f"nftables cannot enforce {entry.name}: a negated named port needs a mark, and the mark mask is 0"


def _require_small(tables: Iterable[Table], limit: int) -> None:
    sizes = (
        (spec.origin, version, len(spec.members))
        for version, table in zip(FAMILY_OF, tables, strict=True)
        for spec in table.sets
    )
    problems = dict.fromkeys(too_large(sizes, limit, backend=Backend.NFTABLES, kind="a set"))
    if problems:
        raise UnsupportedRuleError("\n".join(problems))


@dataclass
class _Family:
    """Renders one family's table. ``helpers``: the chains that interfaces share, by name, created when first needed."""

    version: int
    settings: NftablesSettings
    helpers: dict[str, Chain] = field(default_factory=dict, init=False)
    sets: SetRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.sets = SetRegistry(self.version)

    def table(self, tables: Iterable[RuleTable]) -> Table:
        chains = [chain for way in WAYS for chain in self._way(list(tables), way)]
        return Table(FAMILY_OF[self.version], (*self.helpers.values(), *chains), self.sets.specs())

    def _way(self, tables: Iterable[RuleTable], way: Way) -> list[Chain]:
        """All chains of a direction, the base chain last; empty if no interface has an entry."""
        chains: list[Chain] = []
        dispatch: list[Rule] = []
        for table in tables:
            if way.entries(table):
                own = _Endpoint(self, table, way).chains()
                chains += own
                match = expr.interface(table.interface, received=way.direction is Direction.INGRESS)
                dispatch.append(Rule((*match, expr.verdict(Code.GOTO, own[-1].name))))
        if not dispatch:
            return []
        mark = self.settings.accept_mark
        clear = [Rule(expr.set_mark(mark, on=False))] if mark else []
        return [*chains, Chain(way.base, (*clear, *dispatch), _HOOKS[way.direction])]

    def allow(self) -> Expr:
        """A goto to the chain that marks a packet, makes it untracked and accepts it."""
        done = (*expr.set_mark(self.settings.accept_mark, on=True), expr.NOTRACK, expr.verdict(Code.ACCEPT))
        self.helpers.setdefault(ALLOW_CHAIN, Chain(ALLOW_CHAIN, (Rule(done),)))
        return expr.verdict(Code.GOTO, ALLOW_CHAIN)

    def hotdrop(self, name: str) -> Expr:
        """A jump to the chain that drops packets that are too short for a match, and returns for all others."""
        readable = {
            NO_PROTOCOL: [expr.protocol_is_known()],
            NO_PORTS: [expr.transport_has(PORTS_BYTES), expr.later_fragment(self.version)],
            NO_ICMP: [expr.transport_has(ICMP_BYTES), expr.later_fragment(self.version)],
        }[name]
        rules = [Rule((*match, expr.verdict(Code.RETURN))) for match in readable]
        self.helpers.setdefault(name, Chain(name, (*rules, Rule((expr.verdict(Code.DROP),)))))
        return expr.verdict(Code.JUMP, name)


@dataclass
class _Endpoint:
    """Renders the chains of one interface and direction. ``checked``: the hotdrop checks that every packet has passed
    so far, as (name of the chain that drops, protocol); protocol None: any.
    """

    family: _Family
    interface: RuleTable
    way: Way
    checked: set[tuple[str, int | None]] = field(default_factory=set, init=False)

    def chains(self) -> list[Chain]:
        """All chains, the entry point last."""
        name, way = self.interface.interface, self.way
        failsafes = tuple(self._failsafes())
        tiers: dict[str, list[Rule]] = {}
        for entry in way.entries(self.interface):
            tiers.setdefault(entry.tier, []).extend(self._entry(entry))
        below = [Chain(chain_name(way.failsafe, name), failsafes)] if failsafes else []
        below += [Chain(chain_name(way.tier, name, tier), tuple(rules)) for tier, rules in tiers.items()]
        jumps = tuple(Rule((expr.verdict(Code.JUMP, chain.name),)) for chain in below)
        return [*below, Chain(chain_name(way.endpoint, name), jumps)]

    def _failsafes(self) -> Iterator[Rule]:
        """Accept for the direction's failsafes by destination port, and for replies to the other's by source port."""
        for group in failsafe_groups(self.interface, self.way.direction, self.family.version):
            yield from self._failsafe(group)

    def _failsafe(self, group: FailsafeGroup) -> Iterator[Rule]:
        sample = group.sample
        any_address = sample.net is None or not sample.net.prefixlen
        remote = () if any_address or sample.net is None else expr.net(self.way.remote, sample.net)
        transport = expr.protocol(sample.protocol)
        yield from self._hotdrop(NO_PROTOCOL, None, remote)
        yield from self._hotdrop(NO_PORTS, sample.protocol, remote + transport)
        if any_address:
            self.checked |= {(NO_PROTOCOL, None), (NO_PORTS, sample.protocol)}
        number = port_numbers(group.side, group.ports, self.family.sets)
        yield Rule((*remote, *transport, *number, expr.verdict(Code.ACCEPT)))

    def _hotdrop(self, chain: str, protocol: int | None, earlier: Exprs) -> Iterator[Rule]:
        """A rule that drops too short packets; none if an earlier rule has checked all packets, or none can occur."""
        never_fails = chain == NO_PROTOCOL and self.family.version == 4
        if not never_fails and (chain, protocol) not in self.checked:
            yield Rule((*earlier, self.family.hotdrop(chain)))

    def _entry(self, entry: Entry) -> Iterator[Rule]:
        """The entry's rules in this family; none if the entry is for the other family or can match no packet."""
        if self.family.version not in entry.families:
            return
        found = match_of(entry, self.interface, self.family.sets)
        yield from self._hotdrops(found)
        yield from entry_rules(entry.name, found, self._statements(entry), self.family.settings.accept_mark)

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

    def _statements(self, entry: Entry) -> Exprs:
        match entry.action:
            case Action.DENY:
                return (expr.COUNTER, expr.verdict(Code.DROP))
            case Action.ALLOW:
                return (expr.COUNTER, self.family.allow())
            case Action.PASS:
                return (expr.COUNTER, expr.verdict(Code.RETURN))
            case Action.LOG:
                rate = self.family.settings.log_limit
                # The limit comes last, so that only packets that would be logged use it up. Only logged packets count.
                limited = () if rate is None else (expr.limit(rate),)
                return (*limited, expr.COUNTER, expr.log(log_prefix(self.family.settings.log_prefix, entry)))


def entry_rules(name: str, found: EntryMatch, statements: Exprs, mark: int) -> Iterator[Rule]:
    """An entry's rules: they match on every part of its EntryMatch, then execute the statements. Rules before and after
    them set and clear the mark, if it has negated named ports. Raw and netdev ingress share them.
    """
    for unwanted in found.marking:
        yield Rule((*unwanted, *expr.set_mark(mark, on=True)))
    unmarked = expr.marked(mark, inverted=True) if found.marking else ()
    for ports in found.alternatives:
        matches = (*found.nets, *found.transport, *found.sets, *ports, *found.icmp, *unmarked)
        yield from _named(name, (*matches, *statements))
    if found.marking:
        yield Rule((*expr.marked(mark), *expr.set_mark(mark, on=False)))


def _named(name: str, exprs: Exprs) -> Iterator[Rule]:
    """The rule with its entry's name as comment. A name too long for one comment starts in empty rules before it."""
    *front, last = name_parts(name, COMMENT_LENGTH)
    yield from (Rule((), part) for part in front)
    yield Rule(exprs, last)
