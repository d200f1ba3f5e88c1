"""The raw-table backend: a BackendDriver through legacy iptables and ipset.

Every call acts in the network namespace of the calling thread and keeps nothing open. Only chains named ``enf-...`` in
the raw, mangle and filter tables, the rules that jump to them from the built-in chains of ``accept.HOOKS``, and ipsets
named ``enf4-...`` and ``enf6-...`` are ours; nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from enforcer.backends.base import ApplyResult, EntryCount
from enforcer.backends.iptables.accept import accept_chain_names
from enforcer.backends.iptables.apply import apply_chains
from enforcer.backends.iptables.ipset import ipsets
from enforcer.backends.iptables.read import allowing, plus, read_chains, read_counters, set_names, without_interfaces
from enforcer.backends.iptables.render import Settings, render
from enforcer.backends.iptables.rules import FAMILIES, Chain, TableId, TableName
from enforcer.backends.iptables.sets import SetSync
from enforcer.backends.iptables.table import exists, kernel_table
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class IptablesBackend:
    """Enforces plans in raw. See :class:`~enforcer.backends.base.BackendDriver` for what each method promises."""

    settings: Settings = field(default_factory=Settings)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Makes the tables enforce exactly this plan: interfaces it does not name lose their chains."""
        rendering = render(plan, self.settings)
        with ipsets() as conn:
            sync = SetSync(conn, dry_run, self.settings.max_set_size)
            sync.prepare(rendering.sets)
            sync.changes += apply_chains(
                lambda table, _: rendering.chains.get(table, ()),
                sync.index(rendering.sets),
                insert_mode=self.settings.insert_mode,
                dry_run=dry_run,
            )
            sync.finish(keep=[spec.name for spec in rendering.sets])
        return ApplyResult(tuple(sync.changes))

    def counters(self) -> tuple[EntryCount, ...]:
        """Packets and bytes each entry matched in raw, both families together."""
        with ipsets() as conn:
            sets = SetSync(conn).index()
        merged: list[EntryCount] = []
        for raw in filter(exists, (TableId(version, TableName.RAW) for version in FAMILIES)):
            with kernel_table(raw) as table:
                _merge(merged, read_counters(table, sets))
        return tuple(merged)

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Removes what is ours of these interfaces, or all of it. Hooks that are still needed stay where they are."""
        with ipsets() as conn:
            sync = SetSync(conn)
            wish = _Remainder(None if interfaces is None else frozenset(interfaces))
            sync.changes += apply_chains(wish, sync.index(), insert_mode=None)
            sync.finish(keep=set().union(*(set_names(chains) for chains in wish.raw.values())))
        return tuple(sync.changes)


@dataclass(frozen=True)
class _Remainder:
    """What is to be left of each table without some interfaces, or all. ``raw``: what was answered for raw tables.

    What honours the accept mark stays while something left in raw sets it; those tables are asked about after raw.
    """

    gone: frozenset[str] | None
    raw: dict[int, tuple[Chain, ...]] = field(default_factory=dict)

    def __call__(self, table: TableId, actual: tuple[Chain, ...]) -> tuple[Chain, ...]:
        if table.name is TableName.RAW:
            self.raw[table.version] = () if self.gone is None else without_interfaces(actual, self.gone)
            return self.raw[table.version]
        needed = accept_chain_names(table.name, allowing(self.raw.get(table.version, ())))
        return tuple(chain for chain in actual if chain.name in needed)


def installed_chains(version: int, name: TableName = TableName.RAW) -> tuple[Chain, ...]:
    """Our chains of a table as the kernel has them now; makes no table where there is none."""
    table = TableId(version, name)
    if not exists(table):
        return ()
    with ipsets() as conn:
        sets = SetSync(conn).index()
    with kernel_table(table) as snapshot:
        return read_chains(snapshot, sets)


def _merge(into: list[EntryCount], counts: Iterable[EntryCount]) -> None:
    """Adds one family's counts to the other's, keeping the order of both: no packet meets entries of both families."""
    places = {(item.interface, item.entry): item for item in into}
    at = 0
    for item in counts:
        known = places.get((item.interface, item.entry))
        if known is None:
            into.insert(at, item)
        else:
            at = into.index(known)
            into[at] = plus(known, item)
        at += 1
