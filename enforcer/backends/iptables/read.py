"""Reads the kernel's present state as the values that :mod:`render` creates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enforcer.backends.base import EntryCount
from enforcer.backends.iptables import table as kernel
from enforcer.backends.iptables.accept import HOOKS, STAGES
from enforcer.backends.iptables.blob import SetIndex, counters_of, decode
from enforcer.backends.iptables.rules import Chain, Jump, OpaqueRule, Rule, SetMatch, TableName
from enforcer.backends.netfilter.counts import plus
from enforcer.backends.netfilter.names import ALLOW_CHAIN, is_our_chain
from enforcer.backends.netfilter.ways import WAYS
from enforcer.model.vocabulary import Direction, Stage


@dataclass(frozen=True)
class CountedRule:
    rule: Rule | OpaqueRule
    packets: int
    bytes: int


def read_chain(table: kernel.KernelTable, chain: str, sets: SetIndex) -> list[CountedRule]:
    """The rules of a chain in order, with their counters."""
    return [
        CountedRule(decode(rule, table.version, sets), *counters_of(rule.blob, table.version))
        for rule in table.rules(chain)
    ]


def read_chains(table: kernel.KernelTable, sets: SetIndex) -> tuple[Chain, ...]:
    """All our chains."""
    return tuple(
        Chain(name, tuple(item.rule for item in read_chain(table, name, sets)))
        for name in table.chain_names()
        if is_our_chain(name)
    )


def read_counters(table: kernel.KernelTable, sets: SetIndex) -> tuple[EntryCount, ...]:
    """A count for each entry in this table: the sum over all rules with its comment."""
    counts: dict[tuple[str, str, Stage], EntryCount] = {}
    for item in _rule_counts(table, sets):
        place = (item.interface, item.entry, item.stage)
        known = counts.get(place)
        counts[place] = plus(known, item) if known else item
    return tuple(counts.values())


def _rule_counts(table: kernel.KernelTable, sets: SetIndex) -> Iterator[EntryCount]:
    """One count for each rule of an entry. The rules are found by following the jumps from the dispatch rules."""
    names = table.chain_names()
    counted = {name: read_chain(table, name, sets) for name in names if is_our_chain(name)}
    chains = {name: [item.rule for item in items] for name, items in counted.items()}
    for base, interface, chain in _dispatched(table.id.name, chains):
        stage = STAGES[table.id.name, base]
        for name, at in _rules_below(chain, chains):
            item = counted[name][at]
            yield EntryCount(interface, comment_of(item.rule), stage, item.packets, item.bytes)


def entries_of(table: TableName, chains: Iterable[Chain]) -> dict[str, list[tuple[str, Stage]]]:
    """The names of the entries of each interface that is dispatched to, in order, and where each is."""
    rules = {chain.name: chain.rules for chain in chains}
    found: dict[str, list[tuple[str, Stage]]] = {}
    for base, interface, chain in _dispatched(table, rules):
        stage = STAGES[table, base]
        names = [(comment_of(rules[name][at]), stage) for name, at in _rules_below(chain, rules)]
        found[interface] = list(dict.fromkeys([*found.get(interface, ()), *names]))
    return found


def comment_of(rule: Rule | OpaqueRule) -> str:
    return rule.comment if isinstance(rule, Rule) else ""


def read_interfaces(table: kernel.KernelTable) -> dict[str, Stage]:
    """The interfaces that are dispatched to: of all rules only those of the base chains are looked at."""
    present = table.chain_names()
    bases = [base for base in HOOKS[table.id.name].values() if base in present]
    rules = {base: [item.rule for item in read_chain(table, base, SetIndex({}))] for base in bases}
    found: dict[str, Stage] = {}
    for base, interface, _ in _dispatched(table.id.name, rules):
        found.setdefault(interface, STAGES[table.id.name, base])
    return found


def _dispatched(table: TableName, chains: Mapping[str, Sequence[Rule | OpaqueRule]]) -> Iterator[tuple[str, str, str]]:
    """Base chain, interface and the interface's chain, of each dispatch rule."""
    for base in HOOKS[table].values():
        for rule in chains.get(base, ()):
            interface = _interface_of(rule)
            if interface and isinstance(rule, Rule) and isinstance(rule.target, Jump):
                yield base, interface, rule.target.chain


def _interface_of(rule: Rule | OpaqueRule) -> str:
    """The interface of a dispatch rule; "" for any other rule of a base chain."""
    if not isinstance(rule, Rule) or not isinstance(rule.target, Jump):
        return ""
    return rule.in_interface or rule.out_interface


def _rules_below(chain: str, chains: Mapping[str, Sequence[Rule | OpaqueRule]]) -> Iterator[tuple[str, int]]:
    """The rules of entries that packets of an interface's chain meet, in order: chain and number."""
    for at, rule in enumerate(chains.get(chain, ())):
        if comment_of(rule):
            yield chain, at
        elif isinstance(rule, Rule) and isinstance(rule.target, Jump):
            yield from _rules_below(rule.target.chain, chains)


def without_interfaces(table: TableName, chains: tuple[Chain, ...], interfaces: frozenset[str]) -> tuple[Chain, ...]:
    """The chains that remain when these interfaces are dispatched to no more."""
    by_name = {chain.name: chain for chain in chains}
    kept: dict[str, Chain] = {}
    for name in HOOKS[table].values():
        base = by_name.get(name)
        rules = tuple(rule for rule in base.rules if not _dispatches(rule, interfaces)) if base else ()
        if any(map(_interface_of, rules)):  # else to no interface
            kept |= {below: by_name[below] for below in _reachable(rules, by_name)}
            kept[name] = Chain(name, rules)
    return tuple(kept.values())


def allowing(chains: tuple[Chain, ...]) -> frozenset[Direction]:
    """The directions in which the chains of a raw table have an Allow."""
    by_name = {chain.name: chain for chain in chains}
    bases = {way.direction: by_name.get(way.base) for way in WAYS}
    return frozenset(
        direction for direction, base in bases.items() if base and ALLOW_CHAIN in _reachable(base.rules, by_name)
    )


def set_names(chains: tuple[Chain, ...]) -> set[str]:
    """The sets that rules of the chains refer to."""
    return {
        match.set_name
        for chain in chains
        for rule in chain.rules
        if isinstance(rule, Rule)
        for match in rule.matches
        if isinstance(match, SetMatch)
    }


def _dispatches(rule: Rule | OpaqueRule, interfaces: frozenset[str]) -> bool:
    return isinstance(rule, Rule) and bool({rule.in_interface, rule.out_interface} & interfaces)


def _reachable(rules: tuple[Rule | OpaqueRule, ...], chains: Mapping[str, Chain]) -> list[str]:
    """The names of the chains that the rules lead to; a chain comes after those that it jumps to."""
    found: list[str] = []
    for rule in rules:
        name = rule.target.chain if isinstance(rule, Rule) and isinstance(rule.target, Jump) else ""
        if name in chains and name not in found:
            found += [item for item in _reachable(chains[name].rules, chains) if item not in found]
            found.append(name)
    return found
