"""Reads the kernel's present state as the values that :mod:`render` creates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enforcer.backends.base import EntryCount
from enforcer.backends.iptables import table as kernel
from enforcer.backends.iptables.blob import SetIndex, counters_of, decode
from enforcer.backends.iptables.rules import Chain, Jump, OpaqueRule, Rule, SetMatch
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
    """One count for each entry in this family: the sum over all rules with its comment."""
    counts: dict[tuple[str, str], EntryCount] = {}
    for item in _rule_counts(table, sets):
        place = (item.interface, item.entry)
        known = counts.get(place)
        counts[place] = plus(known, item) if known else item
    return tuple(counts.values())


def _rule_counts(table: kernel.KernelTable, sets: SetIndex) -> Iterator[EntryCount]:
    """One count for each rule of an entry. The rules are found by following the jumps from the dispatch rules."""
    names = table.chain_names()
    counted = {name: read_chain(table, name, sets) for name in names if is_our_chain(name)}
    chains = {name: [item.rule for item in items] for name, items in counted.items()}
    for interface, chain in _dispatched(chains):
        for name in _below(chain, chains):
            for item in counted[name]:
                if isinstance(item.rule, Rule) and item.rule.comment:
                    yield EntryCount(interface, item.rule.comment, Stage.RAW, item.packets, item.bytes)


def entries_of(chains: Iterable[Chain]) -> dict[str, list[str]]:
    """The names of the entries of each interface with a dispatch rule, in order."""
    rules = {chain.name: chain.rules for chain in chains}
    found: dict[str, list[str]] = {}
    for interface, chain in _dispatched(rules):
        below = (rule for name in _below(chain, rules) for rule in rules[name])
        names = [rule.comment for rule in below if isinstance(rule, Rule) and rule.comment]
        found[interface] = list(dict.fromkeys([*found.get(interface, ()), *names]))
    return found


def read_interfaces(table: kernel.KernelTable) -> list[str]:
    """The interfaces with a dispatch rule. Reads only the rules of the base chains."""
    present = table.chain_names()
    bases = [way.base for way in WAYS if way.base in present]
    rules = {base: [item.rule for item in read_chain(table, base, SetIndex({}))] for base in bases}
    return list(dict.fromkeys(interface for interface, _ in _dispatched(rules)))


def _dispatched(chains: Mapping[str, Sequence[Rule | OpaqueRule]]) -> Iterator[tuple[str, str]]:
    """(interface, chain) of each dispatch rule in the base chains."""
    for way in WAYS:
        for rule in chains.get(way.base, ()):
            if isinstance(rule, Rule) and isinstance(rule.target, Jump):
                interface = rule.in_interface if way.direction is Direction.INGRESS else rule.out_interface
                yield interface, rule.target.chain


def _below(chain: str, chains: Mapping[str, Sequence[Rule | OpaqueRule]]) -> Iterator[str]:
    """The chains that an interface's chain jumps to."""
    for rule in chains.get(chain, ()):
        if isinstance(rule, Rule) and isinstance(rule.target, Jump) and rule.target.chain in chains:
            yield rule.target.chain


def without_interfaces(chains: tuple[Chain, ...], interfaces: frozenset[str]) -> tuple[Chain, ...]:
    """The chains that remain without the dispatch rules of these interfaces."""
    by_name = {chain.name: chain for chain in chains}
    kept: dict[str, Chain] = {}
    for way in WAYS:
        base = by_name.get(way.base)
        rules = tuple(rule for rule in base.rules if not _dispatches(rule, interfaces)) if base else ()
        if any(isinstance(rule, Rule) and isinstance(rule.target, Jump) for rule in rules):  # else no interface is left
            kept |= {name: by_name[name] for name in _reachable(rules, by_name)}
            kept[way.base] = Chain(way.base, rules)
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
