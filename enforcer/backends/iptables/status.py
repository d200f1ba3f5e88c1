"""The enforcer's state in raw for each interface, read from chains and ipsets without decoding counters."""

from __future__ import annotations

from collections.abc import Mapping

from enforcer.backends.base import Fill, Holding
from enforcer.backends.iptables.ipset import Connect, ipsets
from enforcer.backends.iptables.read import (
    entries_of,
    read_chains,
    read_interfaces,
    set_names,
    without_interfaces,
)
from enforcer.backends.iptables.rules import FAMILIES, TABLES, Chain, TableId, TableName
from enforcer.backends.iptables.sets import SetSync
from enforcer.backends.iptables.table import LEGACY, Tables
from enforcer.backends.netfilter.names import is_our_chain, is_our_set
from enforcer.model.vocabulary import Stage


def is_installed(tables: Tables, connect: Connect) -> bool:
    """Whether the enforcer has any chain or ipset. Creates no table."""
    return any(_has_our_chain(tables, table) for table in TABLES if tables.exists(table)) or _has_our_set(connect)


def installed_chains(
    version: int, name: TableName = TableName.RAW, tables: Tables = LEGACY, connect: Connect = ipsets
) -> tuple[Chain, ...]:
    """Our chains of a table. Creates no table."""
    table = TableId(version, name)
    if not tables.exists(table):
        return ()
    with connect() as conn:
        sets = SetSync(conn).index()
    with tables.open(table) as snapshot:
        return read_chains(snapshot, sets)


def interfaces(tables: Tables) -> dict[str, Stage]:
    """The interfaces with an entry, and the earliest stage that has one."""
    found: dict[str, Stage] = {}
    for name in TableName:  # in the order of their hooks
        for table in filter(tables.exists, (TableId(version, name) for version in FAMILIES)):
            with tables.open(table) as snapshot:
                found = read_interfaces(snapshot) | found
    return found


def holdings(tables: Tables, connect: Connect) -> dict[str, Holding]:
    """For each interface the entries of its chains, and the ipsets they refer to. A shared set is read once."""
    chains = {
        TableId(version, name): installed_chains(version, name, tables, connect)
        for name in TableName
        for version in FAMILIES
    }
    entries = [entries_of(table.name, found) for table, found in chains.items()]
    stages = interfaces(tables)
    fills = _fills(connect, set().union(*map(set_names, chains.values())))
    held: dict[str, Holding] = {}
    for name in sorted(stages):
        own = dict.fromkeys(item for found in entries for item in found.get(name, ()))
        held[name] = Holding(
            stages[name],
            tuple(dict.fromkeys(entry for entry, _ in own)),
            tuple(
                dict.fromkeys(
                    fills[item]
                    for table, found in chains.items()
                    for item in _sets_of(table.name, name, set(stages), found)
                    if item in fills
                )
            ),
            tracked=tuple(dict.fromkeys(stage for _, stage in own if stage is not Stage.RAW)),
        )
    return held


def _fills(connect: Connect, wanted: set[str]) -> Mapping[str, Fill]:
    fills: dict[str, Fill] = {}
    with connect() as sets:
        for name, header in sets.headers().items():
            if name in wanted:
                fills[name] = Fill(f"ipset {name}", Stage.RAW, header.members, header.maxelem)
    return fills


def _sets_of(table: TableName, interface: str, interfaces: set[str], chains: tuple[Chain, ...]) -> list[str]:
    """The sets that the chains of one interface refer to."""
    return sorted(set_names(without_interfaces(table, chains, frozenset(interfaces - {interface}))))


def _has_our_chain(tables: Tables, table: TableId) -> bool:
    with tables.open(table) as snapshot:
        return any(map(is_our_chain, snapshot.chain_names()))


def _has_our_set(connect: Connect) -> bool:
    with connect() as conn:
        return any(map(is_our_set, conn.headers()))
