"""Reads the tables in the kernel as the values that :mod:`render` creates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.backends.base import EntryCount
from enforcer.backends.netfilter.counts import plus
from enforcer.backends.nftables import blob, expr, members
from enforcer.backends.nftables.bases import BASES, CLEARING, Base
from enforcer.backends.nftables.blob import ReadRule, ReadSet
from enforcer.backends.nftables.rules import NAMED_PORTS, NETS, PORTS, TABLE, Chain, Members, Rule, SetType
from enforcer.kernel.netlink import text
from enforcer.kernel.nfnetlink import Family, NfTablesConn
from enforcer.model.vocabulary import Stage

_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS = 1, 4, 7, 10, 13
_ANONYMOUS = 0x1  # NFT_SET_ANONYMOUS: deleted with its rule

INTERVAL_TYPES = (NETS[4], NETS[6], PORTS)
SET_TYPES = (*INTERVAL_TYPES, *NAMED_PORTS.values())


@dataclass(frozen=True)
class ReadTable:
    """Our table of one family. ``strange``: what it contains that our tables never do; "" if nothing.

    ``rules``: the rules of every chain, in order.
    """

    family: Family
    present: bool = False
    strange: str = ""
    chains: Mapping[str, Chain] = field(default_factory=dict)
    rules: Mapping[str, Sequence[ReadRule]] = field(default_factory=dict)
    sets: Mapping[str, ReadSet] = field(default_factory=dict)


def read_table(conn: NfTablesConn, family: Family) -> ReadTable:
    """The table in the kernel, without the members of its sets."""
    what = f"read table {family} {TABLE}"
    tables = {name: rest for name, *rest in map(blob.decode_table, conn.dump(_GET_TABLE, family, what=what))}
    if TABLE not in tables:
        return ReadTable(family)
    flags, use = tables[TABLE]
    chains = read_chains(conn, family)
    sets = [item for table, item in map(blob.decode_set, _of_table(conn, _GET_SET, family)) if table == TABLE]
    known = {chain.name: chain for chain in chains if chain is not None}
    rules: dict[str, list[ReadRule]] = {name: [] for name in known}
    for item in map(blob.decode_rule, _of_table(conn, _GET_RULE, family)):
        rules.setdefault(item.chain, []).append(item)
    strange = "it is dormant" if flags else ""
    if len(known) < len(chains):
        strange = "it has a base chain of another kind"
    elif use != len(chains) + len(sets):
        strange = "it has other objects than chains and sets"
    named = {item.name: item for item in sets if not item.flags & _ANONYMOUS}
    return ReadTable(family, True, strange, known, rules, named)


def _of_table(conn: NfTablesConn, command: int, family: Family) -> list[bytes]:
    return conn.dump(command, family, text(blob.SET_TABLE, TABLE), what=f"read table {family} {TABLE}")


def read_chains(conn: NfTablesConn, family: Family) -> list[Chain | None]:
    """The chains of our table without their rules; None for a base chain of a kind we never create."""
    found = conn.dump(_GET_CHAIN, family, what=f"read table {family} {TABLE}")
    return [chain for table, chain in map(blob.decode_chain, found) if table == TABLE]


def has_table(conn: NfTablesConn, family: Family) -> bool:
    """Whether our table exists. Reads none of its content."""
    tables = conn.dump(_GET_TABLE, family, what=f"look for table {family} {TABLE}")
    return any(name == TABLE for name, *_ in map(blob.decode_table, tables))


def read_interfaces(conn: NfTablesConn, family: Family) -> dict[str, Stage]:
    """The interfaces with a dispatch rule, with the earliest stage that has one. Reads only base chains."""
    what = f"read table {family} {TABLE}"
    found: dict[str, Stage] = {}
    for base in BASES:
        body = text(blob.RULE_TABLE, TABLE) + text(blob.RULE_CHAIN, base.name)
        rules = map(blob.decode_rule, conn.dump(_GET_RULE, family, body, what=what))
        for name in filter(None, (interface_of(item) for item in rules if item.chain == base.name)):
            found.setdefault(name, base.stage)
    return found


def read_members(conn: NfTablesConn, family: Family, name: str, kind: SetType) -> Members | None:
    """All members of a set, sorted. None if it has a member of a form that we never write."""
    body = text(blob.ELEMENTS_TABLE, TABLE) + text(blob.ELEMENTS_SET, name)
    replies = conn.dump(_GET_ELEMENTS, family, body, what=f"list set {name}")
    return members.parse((part for reply in replies for part in blob.element_lists(reply)), kind)


def type_of(item: ReadSet) -> SetType | None:
    return next((kind for kind in SET_TYPES if item.is_of(kind)), None)


# --- derived from a table ---------------------------------------------------------------------------------------------


def read_counters(table: ReadTable) -> list[EntryCount]:
    """One count for each entry and stage in this family: the sum over all rules with its name."""
    counts: dict[tuple[str, str, Stage], EntryCount] = {}
    for stage, interface, name, counted in _entry_rules(table):
        place = (interface, name, stage)
        found = EntryCount(interface, name, stage, counted.packets, counted.bytes)
        counts[place] = plus(counts[place], found) if place in counts else found
    return list(counts.values())


def entries_of(table: ReadTable) -> dict[str, list[str]]:
    """The names of the entries of each interface with a dispatch rule, in evaluation order, each once."""
    found: dict[str, dict[str, None]] = {interface: {} for _, interface, _ in _dispatches(table)}
    for _, interface, name, _ in _entry_rules(table):
        found[interface][name] = None
    return {interface: list(names) for interface, names in found.items()}


def stages_of(table: ReadTable) -> dict[str, list[Stage]]:
    """The stages at which each interface has a dispatch rule, earliest first."""
    found: dict[str, dict[Stage, None]] = {}
    for base, interface, _ in _dispatches(table):
        found.setdefault(interface, {})[base.stage] = None
    return {interface: list(stages) for interface, stages in found.items()}


def _dispatches(table: ReadTable) -> Iterator[tuple[Base, str, str]]:
    """(base chain, interface, chain of the interface) of each dispatch rule."""
    for base in BASES:
        for item in table.rules.get(base.name, ()):
            if interface := interface_of(item):
                yield base, interface, target(item)


def _entry_rules(table: ReadTable) -> Iterator[tuple[Stage, str, str, ReadRule]]:
    """(stage, interface, entry, rule) of every rule of an entry, found by following the jumps from the base chains."""
    for base, interface, chain in _dispatches(table):
        for name, rule in _named_below(chain, table):
            yield base.stage, interface, name, rule


def _named_below(chain: str, table: ReadTable) -> Iterator[tuple[str, ReadRule]]:
    """The rules of entries in this chain and the chains it jumps to, with the entries' names, in evaluation order."""
    for name, item in _with_names(table.rules.get(chain, ())):
        if name:
            yield name, item
        elif below := target(item):
            yield from _named_below(below, table)


def named_rules(rules: Sequence[ReadRule]) -> Iterator[tuple[str, ReadRule]]:
    """The rules of entries with the entries' names."""
    return ((name, item) for name, item in _with_names(rules) if name)


def _with_names(rules: Sequence[ReadRule]) -> Iterator[tuple[str, ReadRule]]:
    """All rules with their entries' names; "" for a rule of no entry. A name too long for one comment starts in
    preceding rules that are otherwise empty.
    """
    begin = ""
    for item in rules:
        if item.rule is None:
            continue
        if item.rule.exprs:
            yield begin + item.rule.comment, item
        begin = "" if item.rule.exprs else begin + item.rule.comment


def target(item: ReadRule) -> str:
    """The chain that a rule jumps or goes to; "" if there is none."""
    return expr.jumps(item.rule.exprs) if item.rule else ""


def interface_of(item: ReadRule) -> str:
    """The interface that a dispatch rule of a base chain matches on; "" for any other rule."""
    return expr.matched_interface(item.rule.exprs) if item.rule and target(item) else ""


def without_interfaces(table: ReadTable, interfaces: frozenset[str]) -> dict[str, list[Rule | None]]:
    """The rules of the chains that remain without the dispatch rules of these interfaces; empty if no one remains.

    Chains that clear the accept mark remain while a chain after them matches on it.
    """
    left = {
        base: [item for item in table.rules[base.name] if interface_of(item) not in interfaces]
        for base in BASES
        if base.name in table.rules
    }
    remaining = {base for base, rules in left.items() if any(map(interface_of, rules))}
    if any(base.stage is not Stage.RAW for base in remaining):
        remaining |= left.keys() & CLEARING
    kept: dict[str, list[Rule | None]] = {}
    for base, rules in left.items():
        if base in remaining:
            kept[base.name] = [item.rule for item in rules]
            for name in reachable(rules, table):
                kept[name] = [item.rule for item in table.rules[name]]
    return kept


def sets_of(table: ReadTable) -> dict[str, dict[str, Stage]]:
    """For each interface the sets that its rules refer to, with the earliest stage that has such a rule."""
    found: dict[str, dict[str, Stage]] = {}
    for base, interface, chain in _dispatches(table):
        chains = [chain, *reachable(table.rules.get(chain, ()), table)]
        names = set_names({name: [item.rule for item in table.rules.get(name, ())] for name in chains})
        for name in sorted(names & table.sets.keys()):
            found.setdefault(interface, {}).setdefault(name, base.stage)
    return found


def set_names(chains: Mapping[str, Sequence[Rule | None]]) -> set[str]:
    """The names of the sets that rules of the chains refer to."""
    exprs = [item for rules in chains.values() for rule in rules if rule for item in rule.exprs]
    return {str(item.get(1)) for item in exprs if item.name == "lookup"}


def reachable(rules: Sequence[ReadRule], table: ReadTable, seen: frozenset[str] = frozenset()) -> list[str]:
    """The names of the chains that the rules lead to."""
    found: list[str] = []
    for name in dict.fromkeys(map(target, rules)):
        if name in table.rules and name not in seen:
            found += [name, *reachable(table.rules[name], table, seen | {name})]
    return list(dict.fromkeys(found))
