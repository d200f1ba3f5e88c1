"""The nftables backend: a BackendDriver that speaks with nf_tables.

Every call acts in the network namespace of the calling thread and keeps nothing open. Only the tables ``ip enforcer``
and ``ip6 enforcer`` are ours, all that is in them included; nothing else is read or changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from enforcer.backends.base import ApplyResult, EntryCount
from enforcer.backends.nftables.apply import Edit, transact
from enforcer.backends.nftables.read import ReadTable, read_counters, read_table, set_names, without_interfaces
from enforcer.backends.nftables.render import render
from enforcer.backends.nftables.rules import FAMILY_OF, Settings
from enforcer.kernel.nfnetlink import nftables
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class NftablesBackend:
    """Enforces plans in nf_tables. See :class:`~enforcer.backends.base.BackendDriver` for what each method promises."""

    settings: Settings = field(default_factory=Settings)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Makes the tables enforce exactly this plan: interfaces it does not name lose their chains."""
        rendering = render(plan, self.settings)

        def edit(draft: Edit) -> None:
            for table in rendering:
                draft.to_table(table)

        return ApplyResult(tuple(transact(edit, dry_run=dry_run)))

    def counters(self) -> tuple[EntryCount, ...]:
        """Packets and bytes each entry matched, both families together."""
        merged: list[EntryCount] = []
        for table in installed():
            merge(merged, read_counters(table))
        return tuple(merged)

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Removes what is ours of these interfaces, or all of it."""

        def edit(draft: Edit) -> None:
            for family in FAMILY_OF.values():
                actual = read_table(draft.conn, family)
                kept = {} if interfaces is None else without_interfaces(actual, frozenset(interfaces))
                if kept:
                    draft.to_rules(actual, kept, set_names(kept))
                else:
                    draft.remove(actual)

        return tuple(transact(edit))


def installed() -> tuple[ReadTable, ...]:
    """Our tables as the kernel has them now; one that is not there is left out."""
    with nftables() as conn:
        found = [read_table(conn, family) for family in FAMILY_OF.values()]
    return tuple(table for table in found if table.present)


def merge(into: list[EntryCount], counts: Iterable[EntryCount]) -> None:
    """Adds one family's counts to the other's, keeping the order of both: no packet meets entries of both families."""
    places = {(item.interface, item.entry): item for item in into}
    at = 0
    for item in counts:
        known = places.get((item.interface, item.entry))
        if known is None:
            into.insert(at, item)
        else:
            at = into.index(known)
            into[at] = replace(known, packets=known.packets + item.packets, bytes=known.bytes + item.bytes)
        at += 1
