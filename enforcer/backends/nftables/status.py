"""The enforcer's state in nf_tables for each interface, read without counters."""

from __future__ import annotations

from collections.abc import Mapping, Set

from enforcer.backends.base import Fill, Holding
from enforcer.backends.nftables.read import (
    ReadTable,
    entries_of,
    has_table,
    only_interface,
    read_interfaces,
    read_members,
    read_table,
    set_names,
    type_of,
)
from enforcer.backends.nftables.rules import FAMILY_OF
from enforcer.kernel.nfnetlink import Connect, nftables
from enforcer.model.vocabulary import Stage


def is_installed(connect: Connect) -> bool:
    """Whether one of our tables exists. Reads none of its content."""
    with connect() as conn:
        return any(has_table(conn, family) for family in FAMILY_OF.values())


def installed(connect: Connect = nftables) -> tuple[ReadTable, ...]:
    """Our tables in the kernel; a table that does not exist is left out."""
    with connect() as conn:
        found = [read_table(conn, family) for family in FAMILY_OF.values()]
    return tuple(table for table in found if table.present)


def interfaces(connect: Connect) -> dict[str, Stage]:
    """The interfaces enforced in raw."""
    with connect() as conn:
        found = [read_interfaces(conn, family) for family in FAMILY_OF.values()]
    return dict.fromkeys((name for names in found for name in names), Stage.RAW)


def holdings(connect: Connect) -> dict[str, Holding]:
    """For each interface its entries, and the sets that its rules refer to."""
    found: dict[str, Holding] = {}
    for table in installed(connect):
        entries = entries_of(table)
        sets = {name: set_names(only_interface(table, name)) & table.sets.keys() for name in entries}
        fills = set_fills(connect, table, sets, Stage.RAW)
        for name, items in entries.items():
            known = found.get(name, Holding(Stage.RAW))
            names = tuple(dict.fromkeys((*known.entries, *items)))
            found[name] = Holding(Stage.RAW, names, (*known.fills, *fills[name]))
    return found


def set_fills(connect: Connect, table: ReadTable, sets: Mapping[str, Set[str]], stage: Stage) -> dict[str, list[Fill]]:
    """How full the sets of a table are, for each interface; ``sets``: the names of each. A shared set is read once."""
    fills: dict[str, list[Fill]] = {interface: [] for interface in sets}
    counted: dict[str, Fill] = {}
    with connect() as conn:
        for interface, names in sets.items():
            for name in sorted(names):
                if name not in counted and (kind := type_of(table.sets[name])):
                    members = read_members(conn, table.family, name, kind)
                    counted[name] = Fill(f"set {name}", stage, 0 if members is None else len(members), None)
                fills[interface] += [counted[name]] if name in counted else []
    return fills
