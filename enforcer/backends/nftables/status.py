"""The enforcer's state in nf_tables for each interface, read without counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enforcer.backends.base import Fill, Holding
from enforcer.backends.nftables.bases import BASES
from enforcer.backends.nftables.read import (
    ReadTable,
    entries_of,
    has_table,
    read_interfaces,
    read_members,
    read_table,
    sets_of,
    stages_of,
    type_of,
)
from enforcer.backends.nftables.rules import FAMILY_OF
from enforcer.kernel.nfnetlink import Connect, nftables
from enforcer.model.vocabulary import Stage

_ORDER = tuple(base.stage for base in BASES)


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
    """The interfaces with a dispatch rule, with the earliest stage that has one."""
    found: dict[str, Stage] = {}
    with connect() as conn:
        for family in FAMILY_OF.values():
            for name, stage in read_interfaces(conn, family).items():
                found[name] = min(stage, found.get(name, stage), key=_ORDER.index)
    return found


def holdings(connect: Connect) -> dict[str, Holding]:
    """For each interface its entries, and the sets that its rules refer to."""
    found: dict[str, Holding] = {}
    for table in installed(connect):
        entries, stages, sets = entries_of(table), stages_of(table), sets_of(table)
        fills = set_fills(connect, table, {name: sets.get(name, {}) for name in entries})
        for name, items in entries.items():
            mine = _holding(items, stages[name], fills[name])
            found[name] = _both(found[name], mine) if name in found else mine
    return found


def _holding(entries: Sequence[str], stages: Sequence[Stage], fills: Sequence[Fill]) -> Holding:
    """What the table of one family holds for an interface."""
    later = tuple(stage for stage in stages if stage is not Stage.RAW)
    return Holding(stages[0], tuple(entries), tuple(fills), tracked=later)


def _both(one: Holding, other: Holding) -> Holding:
    """What the tables of both families hold for an interface, from what each holds."""
    return Holding(
        min(one.stage, other.stage, key=_ORDER.index),
        tuple(dict.fromkeys((*one.entries, *other.entries))),
        (*one.fills, *other.fills),
        tracked=tuple(sorted({*one.tracked, *other.tracked}, key=_ORDER.index)),
    )


def set_fills(connect: Connect, table: ReadTable, sets: Mapping[str, Mapping[str, Stage]]) -> dict[str, list[Fill]]:
    """How full the sets of a table are, for each interface; ``sets``: the names of each, with the stage to report. A
    shared set is read once.
    """
    fills: dict[str, list[Fill]] = {interface: [] for interface in sets}
    used: dict[str, int] = {}
    with connect() as conn:
        for interface, stages in sets.items():
            for name, stage in sorted(stages.items()):
                if name not in used and (kind := type_of(table.sets[name])):
                    members = read_members(conn, table.family, name, kind)
                    used[name] = 0 if members is None else len(members)
                if name in used:
                    fills[interface].append(Fill(f"set {name}", stage, used[name], None))
    return fills
