"""Tracked policy in the tables of one family. Pure.

::

    hook prerouting, priority -150: enf-mangle-PREROUTING ─┬─ accept mark set: accept      an untracked Allow
                                                           ├─ clear the accept mark
                                                           └─ iifname eth0 goto enf-dn-eth0      preDNAT policy
    hook input, priority 0:         enf-filter-INPUT      ─┬─ accept mark set: accept      an untracked or preDNAT Allow
                                                           ├─ clear the accept mark
                                                           ├─ untracked ICMPv6: jump enf-discovery     ND, MLD
                                                           └─ iifname eth0 goto enf-in-eth0      normal policy, profiles
    hook output, priority 0:        enf-filter-OUTPUT     ─── likewise, oifname eth0 goto enf-out-eth0
    hook forward, priority 0:       enf-filter-FORWARD    ─┬─ iifname eth0, accept mark clear: jump enf-fwi-eth0
                                                           └─ oifname eth0: jump enf-fwo-eth0

The steps of the chains: :mod:`enforcer.backends.netfilter.tracked`. An accept ends only its own base chain, so an Allow
is always final for our rules and never for those of others: Calico's allow actions have no effect.

All rules change in one transaction, together with raw. So no Deny is in place before the rules that let packets pass
it, and none remains after them; unlike in iptables, no order of tables has to ensure that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from enforcer.backends.netfilter.tracked import (
    AcceptFailsafe,
    AcceptKnown,
    AllowActions,
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
from enforcer.backends.nftables import expr
from enforcer.backends.nftables.bases import FILTER_FORWARD, FILTER_IN, FILTER_OUT, MANGLE_IN, Base
from enforcer.backends.nftables.entry_rules import EntryRules, Shared, named
from enforcer.backends.nftables.match import Exprs
from enforcer.backends.nftables.rules import Chain, Code, Rule
from enforcer.model.vocabulary import Action, CtState, Direction
from enforcer.policy.conditions import ICMPV6
from enforcer.policy.ruletable import Entry
from enforcer.policy.tracked import Hook, TrackedChain, TrackedTable

_KNOWN = expr.ct_state((CtState.ESTABLISHED, CtState.RELATED))
_INVALID = expr.ct_state((CtState.INVALID,))
_UNTRACKED = expr.ct_state((CtState.UNTRACKED,))
_ACCEPT, _RETURN = expr.verdict(Code.ACCEPT), expr.verdict(Code.RETURN)
# By hook first, so that what is received comes first.
_HOOKS = {
    MANGLE_IN: (Hook.PRE_DNAT,),
    FILTER_IN: (Hook.INPUT,),
    FILTER_OUT: (Hook.OUTPUT,),
    FILTER_FORWARD: (Hook.FORWARD_IN, Hook.FORWARD_OUT),
}


def tracked_chains(tables: Sequence[TrackedTable], shared: Shared, allowing: Collection[Direction]) -> Iterator[Chain]:
    """The chains of one family, each base chain after the chains it jumps to; empty without tables.

    ``allowing``: the directions in which raw has an Allow.
    """
    yield from _Tracked(tables, shared, allowing).chains()


@dataclass
class _Tracked:
    tables: Sequence[TrackedTable]
    shared: Shared
    allowing: Collection[Direction]

    def chains(self) -> Iterator[Chain]:
        for base, hooks in _HOOKS.items():
            dispatch: list[Rule] = []
            for hook in hooks:
                for table in self.tables:
                    if chain := table.at(hook):
                        own = self._interface(table, chain)
                        yield from own
                        dispatch.append(self._dispatch(hook, table.interface, own[-1].name))
            if dispatch:
                yield Chain(base.name, (*self._before(base), *dispatch), base.hook)

    @property
    def _mark(self) -> int:
        return self.shared.settings.accept_mark

    def _before(self, base: Base) -> Iterator[Rule]:
        """The rules before the dispatch rules.

        The accept mark is valid only if a chain before this one can set it: that chain clears it for every packet.
        """
        direction = Direction.EGRESS if base is FILTER_OUT else Direction.INGRESS
        pre_dnat = base in (FILTER_IN, FILTER_FORWARD) and any(table.at(Hook.PRE_DNAT) for table in self.tables)
        counts = direction in self.allowing or pre_dnat
        if base is not FILTER_FORWARD and counts:
            yield Rule((*expr.marked(self._mark), _ACCEPT))
        if base is not FILTER_FORWARD or not counts:
            yield Rule(expr.set_mark(self._mark, on=False))
        if self.shared.version == 6 and base in (FILTER_IN, FILTER_OUT):
            yield Rule((*expr.protocol(ICMPV6), *_UNTRACKED, self.shared.discovery()))

    def _dispatch(self, hook: Hook, interface: str, chain: str) -> Rule:
        match_interface = expr.interface(interface, received=hook.direction is Direction.INGRESS)
        match hook:
            case Hook.PRE_DNAT | Hook.INPUT | Hook.OUTPUT:
                return Rule((*match_interface, expr.verdict(Code.GOTO, chain)))
            case Hook.FORWARD_IN:
                unmarked = expr.marked(self._mark, inverted=True)
                return Rule((*match_interface, *unmarked, expr.verdict(Code.JUMP, chain)))
            case Hook.FORWARD_OUT:
                return Rule((*match_interface, expr.verdict(Code.JUMP, chain)))

    def _interface(self, table: TrackedTable, chain: TrackedChain) -> list[Chain]:
        """The chains of one interface at one hook, the entry point last."""
        *below, top = step_chains(table, chain, self.shared.version, AllowActions())
        rules = EntryRules(self.shared, table)
        entry_point = self._chain(top, rules)  # first: its failsafes check every packet that the others get
        return [*(self._chain(item, rules) for item in below), entry_point]

    def _chain(self, chain: StepChain, rules: EntryRules) -> Chain:
        return Chain(chain.name, tuple(rule for step in chain.steps for rule in self._rules(step, rules)))

    def _rules(self, step: Step, rules: EntryRules) -> Iterator[Rule]:
        match step:
            case AcceptKnown(returns):
                yield Rule((*_KNOWN, _RETURN if returns else _ACCEPT))
            case DenyInvalid(name):
                yield from named(name, (*_INVALID, *self._deny()))
            case AcceptFailsafe(group, remote):
                yield from rules.failsafe(group, remote)
            case ClearAccept():
                yield Rule(expr.set_mark(self._mark, on=False))
            case Below(name, returns_marked):
                yield Rule((expr.verdict(Code.JUMP, name),))
                if returns_marked:
                    yield Rule((*expr.marked(self._mark), _RETURN))
            case EntryStep(entry, allow):
                yield from rules.entry(entry, lambda entry: self._statements(entry, allow))
            case DenyRest(name):
                yield from named(name, self._deny())
            case _:
                raise unknown_step(step)

    def _deny(self) -> Exprs:
        return (expr.COUNTER, self.shared.deny())

    def _statements(self, entry: Entry, allow: AllowAs) -> Exprs:
        match entry.action:
            case Action.DENY:
                return self._deny()
            case Action.ALLOW:
                return (expr.COUNTER, *self._allow(allow))
            case Action.PASS:
                return (expr.COUNTER, _RETURN)
            case Action.LOG:
                return self.shared.log(entry)

    def _allow(self, allow: AllowAs) -> Exprs:
        marking = expr.set_mark(self._mark, on=True)
        match allow:
            case AllowAs.ACCEPT:
                return (_ACCEPT,)
            case AllowAs.MARK_AND_ACCEPT:
                return (*marking, _ACCEPT)
            case AllowAs.MARK_AND_RETURN:
                return (*marking, _RETURN)
