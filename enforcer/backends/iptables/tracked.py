"""Tracked policy in the mangle and filter tables of one family. Pure.

::

    mangle PREROUTING ── enf-PREROUTING ─┬─ accept bit set: ACCEPT      an untracked Allow
                                         └─ -i eth0 -g enf-dn-eth0      preDNAT policy
    filter INPUT      ── enf-INPUT      ─┬─ accept bit set: ACCEPT      an untracked or a preDNAT Allow
                                         ├─ clear the accept bit
                                         ├─ untracked: -j enf-discovery   neighbour discovery, MLD (IPv6)
                                         └─ -i eth0 -g enf-in-eth0      normal ingress policy, profiles
    filter OUTPUT     ── enf-OUTPUT     ─── likewise, -o eth0 -g enf-out-eth0
    filter FORWARD    ── enf-FORWARD    ─┬─ accept bit clear, -i eth0: -j enf-fwi-eth0
                                         └─ -o eth0: -j enf-fwo-eth0

What the chains contain: :mod:`enforcer.backends.netfilter.tracked`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from enforcer.backends.iptables.accept import HOOKS
from enforcer.backends.iptables.entry_rules import comments, entry_rules
from enforcer.backends.iptables.match import SetRegistry, port_matches
from enforcer.backends.iptables.rules import (
    Chain,
    CtStates,
    IcmpType,
    Jump,
    Log,
    MarkMatch,
    Rule,
    SetMark,
    TableName,
    Target,
    Verdict,
)
from enforcer.backends.iptables.settings import IptablesSettings
from enforcer.backends.netfilter.entries import log_prefix
from enforcer.backends.netfilter.tracked import (
    DENY_CHAIN,
    DISCOVERY_TYPES,
    AcceptFailsafe,
    AcceptKnown,
    AllowAs,
    Below,
    ClearAccept,
    DenyInvalid,
    DenyRest,
    EntryStep,
    Step,
    StepChain,
    step_chains,
    unknown_step,
)
from enforcer.model.vocabulary import Action, CtState, Direction, Side
from enforcer.policy.conditions import ICMPV6
from enforcer.policy.ruletable import Entry
from enforcer.policy.tracked import Hook, TrackedChain, TrackedTable

_MARK_AND_ACCEPT, _MARK_AND_RETURN, _DISCOVERY = "enf-mark-accept", "enf-mark", "enf-discovery"
_KNOWN = CtStates(frozenset({CtState.ESTABLISHED, CtState.RELATED}))
_INVALID = CtStates(frozenset({CtState.INVALID}))
_UNTRACKED = CtStates(frozenset({CtState.UNTRACKED}))
_TABLE_OF = {
    Hook.PRE_DNAT: (TableName.MANGLE, "PREROUTING"),
    Hook.INPUT: (TableName.FILTER, "INPUT"),
    Hook.OUTPUT: (TableName.FILTER, "OUTPUT"),
    Hook.FORWARD_IN: (TableName.FILTER, "FORWARD"),
    Hook.FORWARD_OUT: (TableName.FILTER, "FORWARD"),
}


def tracked_chains(
    tables: Sequence[TrackedTable],
    version: int,
    settings: IptablesSettings,
    sets: SetRegistry,
    allowing: Iterable[Direction],
) -> dict[TableName, tuple[Chain, ...]]:
    """The chains of mangle and filter, base chains last; with the rules that let go what an untracked Allow marked.

    ``allowing``: the directions in which raw has an Allow.
    """
    return {
        name: tuple(_Table(name, tables, version, settings, sets, frozenset(allowing)).chains())
        for name in (TableName.MANGLE, TableName.FILTER)
    }


@dataclass
class _Table:
    """Renders one table of one family."""

    name: TableName
    tables: Sequence[TrackedTable]
    version: int
    settings: IptablesSettings
    sets: SetRegistry
    allowing: frozenset[Direction]

    def chains(self) -> Iterator[Chain]:
        below: list[Chain] = []
        bases: dict[str, list[Rule]] = {}
        for builtin in HOOKS[self.name]:
            dispatch: list[Rule] = []
            for hook, table, chain in self._at(builtin):
                own = step_chains(table, chain, self.version, self.settings.allow_actions)
                below += [self._chain(item, table) for item in own]
                dispatch.append(self._dispatch(hook, table.interface, own[-1].name))
            bases[HOOKS[self.name][builtin]] = [*self._marked(builtin), *self._before(builtin, dispatch), *dispatch]
        rules = [rule for chain in below for rule in chain.rules if isinstance(rule, Rule)]
        rules += [rule for base in bases.values() for rule in base]
        targets = {rule.target.chain for rule in rules if isinstance(rule.target, Jump)}
        yield from (chain for chain in self._helpers() if chain.name in targets)
        yield from below
        yield from (Chain(name, tuple(rules)) for name, rules in bases.items() if rules)

    def _at(self, builtin: str) -> Iterator[tuple[Hook, TrackedTable, TrackedChain]]:
        """The chains to dispatch to from a built-in chain: by hook first, so that what is received comes first."""
        for hook, place in _TABLE_OF.items():
            if place == (self.name, builtin):
                for table in self.tables:
                    if chain := table.at(hook):
                        yield hook, table, chain

    def _marked(self, builtin: str) -> Iterator[Rule]:
        """What raw, or preDNAT policy, has allowed."""
        egress = builtin == "OUTPUT"
        wanted = (Direction.EGRESS if egress else Direction.INGRESS) in self.allowing
        pre_dnat = builtin == "INPUT" and any(table.at(Hook.PRE_DNAT) for table in self.tables)
        if builtin == "FORWARD" or not (wanted or pre_dnat):
            return
        mark = self.settings.accept_mark
        accepts = self.name in self.settings.accepting
        if accepts or pre_dnat:
            yield Rule(Verdict.ACCEPT if accepts else Verdict.RETURN, matches=(MarkMatch(mark, mark),))

    def _before(self, builtin: str, dispatch: Sequence[Rule]) -> Iterator[Rule]:
        """What comes before the first interface's chain.

        An accept mark that neither raw nor preDNAT policy of ours can have set is that of another program, or of the
        outer packet of a tunnel. Neighbour discovery has a chain of its own: where a rule matches on the protocol or on
        an ICMP type, ip6_tables drops a packet that it cannot read, uncounted and without our mark. Such a packet is
        INVALID, not UNTRACKED.
        """
        if not dispatch or (builtin == "FORWARD" and self._marks()):
            return
        yield Rule(SetMark(0, self.settings.accept_mark))
        if self.version == 6 and builtin in ("INPUT", "OUTPUT"):
            yield Rule(Jump(_DISCOVERY), matches=(_UNTRACKED,))

    def _marks(self) -> bool:
        """Whether what is received may have an accept mark of ours when it gets to filter."""
        return Direction.INGRESS in self.allowing or any(table.at(Hook.PRE_DNAT) for table in self.tables)

    def _dispatch(self, hook: Hook, interface: str, chain: str) -> Rule:
        mark = self.settings.accept_mark
        match hook:
            case Hook.PRE_DNAT | Hook.INPUT:
                return Rule(Jump(chain, goto=True), in_interface=interface)
            case Hook.OUTPUT:
                return Rule(Jump(chain, goto=True), out_interface=interface)
            case Hook.FORWARD_IN:
                return Rule(Jump(chain), in_interface=interface, matches=(MarkMatch(0, mark),))
            case Hook.FORWARD_OUT:
                return Rule(Jump(chain), out_interface=interface)

    def _helpers(self) -> Iterator[Chain]:
        accept, drop = self.settings.accept_mark, self.settings.drop_mark
        yield Chain(DENY_CHAIN, (Rule(SetMark(drop, drop)), Rule(Verdict.DROP)))
        yield Chain(_MARK_AND_ACCEPT, (Rule(SetMark(accept, accept)), Rule(Verdict.ACCEPT)))
        yield Chain(_MARK_AND_RETURN, (Rule(SetMark(accept, accept)),))
        accepted = (Rule(Verdict.ACCEPT, protocol=ICMPV6, matches=(IcmpType(kind),)) for kind in DISCOVERY_TYPES)
        yield Chain(_DISCOVERY, tuple(accepted))

    def _chain(self, chain: StepChain, table: TrackedTable) -> Chain:
        return Chain(chain.name, tuple(rule for step in chain.steps for rule in self._rules(step, table)))

    def _rules(self, step: Step, table: TrackedTable) -> list[Rule]:
        mark = self.settings.accept_mark
        match step:
            case AcceptKnown(returns):
                return [Rule(Verdict.RETURN if returns else Verdict.ACCEPT, matches=(_KNOWN,))]
            case DenyInvalid(name):
                return [Rule(Jump(DENY_CHAIN, goto=True), matches=(_INVALID, *comments(name)))]
            case AcceptFailsafe(group, remote):
                return [
                    Rule(
                        Verdict.ACCEPT,
                        source=group.net if remote is Side.SOURCE else None,
                        destination=group.net if remote is Side.DESTINATION else None,
                        protocol=group.sample.protocol,
                        matches=port_matches(group.side, group.ports),
                    )
                ]
            case ClearAccept():
                return [Rule(SetMark(0, mark))]
            case Below(name, returns_marked):
                leave = [Rule(Verdict.RETURN, matches=(MarkMatch(mark, mark),))] if returns_marked else []
                return [Rule(Jump(name)), *leave]
            case EntryStep(entry, allow):
                target = self._target(entry, allow)
                return entry_rules(entry, table, self.version, self.sets, target, self.settings.log_limit)
            case DenyRest(name):
                return [Rule(Jump(DENY_CHAIN, goto=True), matches=tuple(comments(name)))]
            case _:
                raise unknown_step(step)

    def _target(self, entry: Entry, allow: AllowAs) -> Target:
        match entry.action:
            case Action.DENY:
                return Jump(DENY_CHAIN, goto=True)
            case Action.ALLOW:
                return _ALLOW[allow]
            case Action.PASS:
                return Verdict.RETURN
            case Action.LOG:
                return Log(log_prefix(self.settings.log_prefix, entry))


_ALLOW: dict[AllowAs, Target] = {
    AllowAs.ACCEPT: Verdict.ACCEPT,
    AllowAs.MARK_AND_ACCEPT: Jump(_MARK_AND_ACCEPT, goto=True),
    AllowAs.MARK_AND_RETURN: Jump(_MARK_AND_RETURN, goto=True),
}
