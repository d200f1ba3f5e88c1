"""From a Plan to the chains and sets that enforce it. Pure.

Every entry of every interface is rendered, whatever XDP does with it. Layout, in each family's raw table::

    PREROUTING ── enf-PREROUTING ─┬─ clear the accept mark
                                  └─ -i eth0 -g enf-fh-eth0 ─┬─ enf-fsi-eth0         failsafes: ACCEPT
                                                             ├─ enf-pi-eth0/default  one chain for each tier
                                                             └─ enf-pi-eth0/...
    OUTPUT     ── enf-OUTPUT ... -o eth0 -g enf-th-eth0 ─────┴─ the same with enf-fso- and enf-po-

**An entry is one rule**, or several with the same comment if a port may match by number or by name. A packet is counted
in only one of them, so the entry's count is the sum of their counters. Deny is DROP; Allow goes to ``enf-allow``
(accept mark, CT --notrack, ACCEPT); Pass is RETURN, which leaves the tier's chain and so skips the rest of the tier;
Log is LOG. A packet that reaches the end of ``enf-fh-eth0`` continues with the next rule of PREROUTING and is tracked.
An interface without entries in a direction has no chains for it. Of Calico's mark bits only *accept* is needed, because
tiers are chains.

If there is an Allow, the tables after raw accept its mark: see :mod:`enforcer.backends.iptables.accept`. The mark is
cleared for every packet of every interface, because a decapsulated packet keeps the mark of the outer packet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from enforcer.backends.iptables.entry_rules import entry_rules
from enforcer.backends.iptables.match import (
    SetRegistry,
    port_matches,
)
from enforcer.backends.iptables.rules import (
    FAMILIES,
    Chain,
    Jump,
    Log,
    NoTrack,
    Rule,
    SetMark,
    SetSpec,
    TableId,
    TableName,
    Target,
    Verdict,
)
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.backends.iptables.tracked import tracked_chains
from enforcer.backends.netfilter.entries import log_prefix, unsupported
from enforcer.backends.netfilter.names import ALLOW_CHAIN, chain_name
from enforcer.backends.netfilter.sets import too_large
from enforcer.backends.netfilter.tracked import unsupported_tracked
from enforcer.backends.netfilter.ways import WAYS, Way, failsafe_groups
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action, Backend, Direction, Side
from enforcer.planning.plan import Plan
from enforcer.policy.ruletable import Entry, RuleTable


@dataclass(frozen=True)
class Rendering:
    """The desired state: the chains of each table that has any, in an order in which a chain comes after those that it
    jumps to; and the sets they refer to.
    """

    chains: dict[TableId, tuple[Chain, ...]]
    sets: tuple[SetSpec, ...]


def render(plan: Plan, settings: IptablesSettings) -> Rendering:
    """The state that enforces every interface of the plan whose raw backend is iptables.

    Raises UnsupportedRuleError with every entry that raw cannot express and every set that is too large.
    """
    tables = [item.table for item in plan.interfaces if item.raw_backend is Backend.IPTABLES]
    tracked = plan.tracked_by(Backend.IPTABLES)
    entries = [entry for table in tables for entry in (*table.ingress, *table.egress)]
    problems = dict.fromkeys(
        problem for entry in entries for problem in (*unsupported(entry, Backend.IPTABLES), *_unmarked(entry, settings))
    )
    problems |= dict.fromkeys(unsupported_tracked(tracked, settings.mark_mask, Backend.IPTABLES))
    if problems:
        raise UnsupportedRuleError("\n".join(problems))
    sets = SetRegistry()
    chains: dict[TableId, tuple[Chain, ...]] = {}
    for version in FAMILIES if settings.ipv6 else FAMILIES[:1]:
        family = _Family(version, settings, sets)
        chains[TableId(version, TableName.RAW)] = tuple(family.chains(tables))
        later = tracked_chains(tracked, version, settings, sets, family.allowing)
        chains |= {TableId(version, name): found for name, found in later.items()}
    _require_small(sets.specs(), settings.max_set_size)
    return Rendering({table: found for table, found in chains.items() if found}, sets.specs())


def _unmarked(entry: Entry, settings: IptablesSettings) -> Iterator[str]:
    """Refuses Allow entries if the mark mask is 0: every packet would match an empty accept mark."""
    if entry.action is Action.ALLOW and not settings.accept_mark:
        yield f"iptables cannot enforce {entry.name}: Allow sets a mark, and iptablesMarkMask is 0; give it a bit"


def _require_small(specs: Iterable[SetSpec], limit: int) -> None:
    sizes = ((spec.origin, spec.version, len(spec)) for spec in specs)
    problems = dict.fromkeys(too_large(sizes, limit, backend=Backend.IPTABLES, kind="an ipset"))
    if problems:
        raise UnsupportedRuleError("\n".join(problems))


@dataclass
class _Family:
    """Renders the raw table of one family. ``allowing``: the directions in which it has an Allow."""

    version: int
    settings: IptablesSettings
    sets: SetRegistry
    allowing: set[Direction] = field(default_factory=set, init=False)

    def chains(self, tables: Iterable[RuleTable]) -> list[Chain]:
        chains: list[Chain] = []
        for way in WAYS:
            dispatch: list[Rule] = []
            for table in tables:
                if not way.entries(table):
                    continue
                own = self._endpoint_chains(table, way)
                chains += own
                dispatch.append(_dispatch_rule(table.interface, way, own[-1].name))
            if dispatch:
                chains.append(Chain(way.base, (Rule(SetMark(0, self.settings.accept_mark)), *dispatch)))
        return [self._allow_chain(), *chains] if self.allowing else chains

    def _allow_chain(self) -> Chain:
        mark = self.settings.accept_mark
        return Chain(ALLOW_CHAIN, (Rule(SetMark(mark, mark)), Rule(NoTrack()), Rule(Verdict.ACCEPT)))

    def _endpoint_chains(self, table: RuleTable, way: Way) -> list[Chain]:
        """The chains of one interface and direction, its entry point last."""
        failsafe = Chain(chain_name(way.failsafe, table.interface), tuple(self._failsafes(table, way)))
        tiers: dict[str, list[Rule]] = {}
        for entry in way.entries(table):
            tiers.setdefault(entry.tier, []).extend(self._entry_rules(entry, table))
        below = [failsafe] if failsafe.rules else []
        below += [Chain(chain_name(way.tier, table.interface, tier), tuple(rules)) for tier, rules in tiers.items()]
        jumps = tuple(Rule(Jump(chain.name)) for chain in below)
        return [*below, Chain(chain_name(way.endpoint, table.interface), jumps)]

    def _failsafes(self, table: RuleTable, way: Way) -> Iterable[Rule]:
        """ACCEPT for the direction's failsafes by destination port, and for replies to the other's by source port."""
        for group in failsafe_groups(table, way.direction, self.version):
            yield Rule(
                Verdict.ACCEPT,
                source=group.net if way.remote is Side.SOURCE else None,
                destination=group.net if way.remote is Side.DESTINATION else None,
                protocol=group.sample.protocol,
                matches=port_matches(group.side, group.ports),
            )

    def _entry_rules(self, entry: Entry, table: RuleTable) -> list[Rule]:
        """The entry's rules in this family; none if the entry is for the other family or can match no packet."""
        if self.version not in entry.families:
            return []
        return entry_rules(entry, table, self.version, self.sets, self._target(entry), self.settings.log_limit)

    def _target(self, entry: Entry) -> Target:
        match entry.action:
            case Action.DENY:
                return Verdict.DROP
            case Action.ALLOW:
                self.allowing.add(entry.direction)
                return Jump(ALLOW_CHAIN, goto=True)
            case Action.PASS:
                return Verdict.RETURN
            case Action.LOG:
                return Log(log_prefix(self.settings.log_prefix, entry))


def _dispatch_rule(interface: str, way: Way, chain: str) -> Rule:
    if way.direction is Direction.INGRESS:
        return Rule(Jump(chain, goto=True), in_interface=interface)
    return Rule(Jump(chain, goto=True), out_interface=interface)
