"""The state of netdev ingress in the kernel, read from our table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from enforcer.backends.base import EntryCount
from enforcer.backends.nftables import expr
from enforcer.backends.nftables.blob import ReadRule
from enforcer.backends.nftables.read import ReadTable, named_rules, reachable, read_chains, set_names, target
from enforcer.backends.nftables.rules import Rule
from enforcer.kernel.nfnetlink import Family, NfTablesConn
from enforcer.model.vocabulary import Stage


def devices_of(table: ReadTable) -> dict[str, str]:
    """The base chain of each interface."""
    return {chain.hook.device: name for name, chain in table.chains.items() if chain.hook and chain.hook.device}


def read_devices(conn: NfTablesConn) -> list[str]:
    """The interfaces with one of our base chains; no rule is read."""
    hooks = (chain.hook for chain in read_chains(conn, Family.NETDEV) if chain and chain.hook)
    return [hook.device for hook in hooks if hook.device]


def read_counters(table: ReadTable) -> Iterator[tuple[EntryCount, ...]]:
    """For each interface and family, one count for each Deny: the sum over all rules with its name."""
    for device, base in devices_of(table).items():
        for entry_point in _below(table.rules[base], table):
            counts: dict[str, EntryCount] = {}
            for name, item in _denies(entry_point, table):
                known = counts.get(name, EntryCount(device, name, Stage.NETDEV_INGRESS, 0, 0))
                packets, size = known.packets + item.packets, known.bytes + item.bytes
                counts[name] = EntryCount(device, name, Stage.NETDEV_INGRESS, packets, size)
            yield tuple(counts.values())


def entries_of(table: ReadTable) -> dict[str, list[str]]:
    """The names of the Deny entries of each interface, in order."""
    return {
        device: list(
            dict.fromkeys(
                name for entry_point in _below(table.rules[base], table) for name, _ in _denies(entry_point, table)
            )
        )
        for device, base in devices_of(table).items()
    }


def _denies(entry_point: Sequence[ReadRule], table: ReadTable) -> Iterator[tuple[str, ReadRule]]:
    """The rules that drop, in the chains of one interface and family, with the names of their entries."""
    for rules in _below(entry_point, table):
        for name, item in named_rules(rules):
            if item.rule is not None and expr.COUNTER in item.rule.exprs:
                yield name, item


def _below(rules: Sequence[ReadRule], table: ReadTable) -> Iterator[Sequence[ReadRule]]:
    """The rules of each chain that these rules lead to."""
    return (table.rules[target(item)] for item in rules if target(item) in table.rules)


def without_interfaces(table: ReadTable, interfaces: Collection[str]) -> dict[str, list[Rule | None]]:
    """The rules of the chains that remain without the base chains of these interfaces."""
    bases = [name for device, name in devices_of(table).items() if device not in interfaces]
    names = [*bases, *(name for base in bases for name in reachable(table.rules[base], table))]
    return {name: [item.rule for item in table.rules[name]] for name in dict.fromkeys(names)}


def fills_of(table: ReadTable, interface: str) -> set[str]:
    """The names of the sets that the rules of one interface refer to."""
    others = devices_of(table).keys() - {interface}
    return set_names(without_interfaces(table, others)) & table.sets.keys()
