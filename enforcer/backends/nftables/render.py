"""From a Plan to the tables, chains and sets that enforce it. Pure.

There is one table ``enforcer`` in each of the families ``ip`` and ``ip6``, so a packet of one family never meets a rule
of the other, and ``ipv6Support: false`` just omits a table. The layout is that of iptables raw, chain by chain::

    hook prerouting, priority -300: enf-PREROUTING ─┬─ clear the accept mark
                                                    └─ iifname eth0 goto enf-fh-eth0 ─┬─ enf-fsi-eth0
                                                                                      ├─ enf-pi-eth0/default
                                                                                      └─ enf-pi-eth0/...
    hook output, priority -300: enf-OUTPUT ... oifname eth0 goto enf-th-eth0 ─────────┴─ likewise

Deny is drop; Allow goes to ``enf-allow`` (accept mark, notrack, accept); Pass is return; Log is log. The rules of an
entry: :mod:`enforcer.backends.nftables.entry_rules`. The same tables have the chains after conntrack:
:mod:`enforcer.backends.nftables.tracked`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from enforcer.backends.netfilter.entries import unsupported
from enforcer.backends.netfilter.names import chain_name
from enforcer.backends.netfilter.sets import too_large
from enforcer.backends.netfilter.tracked import unsupported_tracked
from enforcer.backends.netfilter.ways import WAYS, Way, failsafe_groups
from enforcer.backends.nftables import expr
from enforcer.backends.nftables.bases import RAW_IN, RAW_OUT
from enforcer.backends.nftables.entry_rules import EntryRules, Shared
from enforcer.backends.nftables.match import Exprs, needs_mark
from enforcer.backends.nftables.rules import FAMILY_OF, Chain, Code, NftablesSettings, Rule, Table
from enforcer.backends.nftables.tracked import tracked_chains
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action, Backend, Direction
from enforcer.planning.plan import Plan
from enforcer.policy.ruletable import Entry, RuleTable
from enforcer.policy.tracked import TrackedTable

_BASES = {Direction.INGRESS: RAW_IN, Direction.EGRESS: RAW_OUT}


def render(plan: Plan, settings: NftablesSettings) -> tuple[Table, ...]:
    """The tables of both families with every interface of the plan whose raw backend is nftables. Empty tables are
    deleted.

    Raises UnsupportedRuleError with every entry that cannot be expressed and every set that is too large.
    """
    tables = [item.table for item in plan.interfaces if item.raw_backend is Backend.NFTABLES]
    tracked = plan.tracked_by(Backend.NFTABLES)
    entries = [entry for table in tables for entry in (*table.ingress, *table.egress)]
    problems = [
        problem for entry in entries for problem in (*unsupported(entry, Backend.NFTABLES), *_unmarked(entry, settings))
    ]
    problems += unsupported_tracked(tracked, settings.mark_mask, Backend.NFTABLES)
    if problems:
        raise UnsupportedRuleError("\n".join(dict.fromkeys(problems)))
    found = [
        _Family(Shared(version, settings)).table(tables, tracked) if version == 4 or settings.ipv6 else Table(family)
        for version, family in FAMILY_OF.items()
    ]
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
    """Renders one family's table. ``allowing``: the directions in which raw has an Allow."""

    shared: Shared
    allowing: set[Direction] = field(default_factory=set, init=False)

    def table(self, tables: Sequence[RuleTable], tracked: Sequence[TrackedTable]) -> Table:
        chains = [chain for way in WAYS for chain in self._way(tables, way)]
        chains += tracked_chains(tracked, self.shared, self.allowing)
        found = (*self.shared.helpers.values(), *chains)
        return Table(FAMILY_OF[self.shared.version], found, self.shared.sets.specs())

    def _way(self, tables: Iterable[RuleTable], way: Way) -> list[Chain]:
        """All chains of a direction, the base chain last; empty if no interface has an entry."""
        chains: list[Chain] = []
        dispatch: list[Rule] = []
        for table in tables:
            if way.entries(table):
                own = self._endpoint(table, way)
                chains += own
                match = expr.interface(table.interface, received=way.direction is Direction.INGRESS)
                dispatch.append(Rule((*match, expr.verdict(Code.GOTO, own[-1].name))))
        if not dispatch:
            return []
        mark, base = self.shared.settings.accept_mark, _BASES[way.direction]
        clear = [Rule(expr.set_mark(mark, on=False))] if mark else []
        return [*chains, Chain(base.name, (*clear, *dispatch), base.hook)]

    def _endpoint(self, table: RuleTable, way: Way) -> list[Chain]:
        """The chains of one interface and direction, the entry point last."""
        name, rules = table.interface, EntryRules(self.shared, table)
        # Accept for the direction's failsafes by destination port, and for replies to the other's by source port.
        groups = failsafe_groups(table, way.direction, self.shared.version)
        failsafes = tuple(rule for group in groups for rule in rules.failsafe(group, way.remote))
        tiers: dict[str, list[Rule]] = {}
        for entry in way.entries(table):
            tiers.setdefault(entry.tier, []).extend(rules.entry(entry, self._statements))
        below = [Chain(chain_name(way.failsafe, name), failsafes)] if failsafes else []
        below += [Chain(chain_name(way.tier, name, tier), tuple(found)) for tier, found in tiers.items()]
        jumps = tuple(Rule((expr.verdict(Code.JUMP, chain.name),)) for chain in below)
        return [*below, Chain(chain_name(way.endpoint, name), jumps)]

    def _statements(self, entry: Entry) -> Exprs:
        match entry.action:
            case Action.DENY:
                return (expr.COUNTER, expr.verdict(Code.DROP))
            case Action.ALLOW:
                self.allowing.add(entry.direction)
                return (expr.COUNTER, self.shared.allow())
            case Action.PASS:
                return (expr.COUNTER, expr.verdict(Code.RETURN))
            case Action.LOG:
                return self.shared.log(entry)
