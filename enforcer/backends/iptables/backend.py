"""The raw-table backend: a BackendDriver through legacy iptables and ipset.

Every call acts in the network namespace of the calling thread and keeps nothing open. Only chains named ``enf-...`` in
the raw tables, the rules that jump to them from PREROUTING and OUTPUT, and ipsets named ``enf4-...`` and ``enf6-...``
are ours; nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from enforcer.backends.base import ApplyResult, EntryCount
from enforcer.backends.iptables.apply import apply_chains
from enforcer.backends.iptables.ipset import ipsets
from enforcer.backends.iptables.read import read_chains, read_counters, set_names, without_interfaces
from enforcer.backends.iptables.render import Settings, render
from enforcer.backends.iptables.rules import FAMILIES, Chain
from enforcer.backends.iptables.sets import SetSync
from enforcer.backends.iptables.table import exists, raw_table
from enforcer.plan import Plan


@dataclass(frozen=True)
class IptablesBackend:
    """Enforces plans in raw. See :class:`~enforcer.backends.base.BackendDriver` for what each method promises."""

    settings: Settings = field(default_factory=Settings)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Makes raw enforce exactly this plan: interfaces it does not name lose their chains."""
        rendering = render(plan, self.settings)
        with ipsets() as door:
            sync = SetSync(door, dry_run)
            sync.prepare(rendering.sets)
            sync.changes += apply_chains(
                lambda version, _: rendering.chains.get(version, ()),
                sync.index(rendering.sets),
                self.settings,
                dry_run=dry_run,
            )
            sync.finish(keep=[spec.name for spec in rendering.sets])
        return ApplyResult(tuple(sync.changes))

    def counters(self) -> tuple[EntryCount, ...]:
        """Packets and bytes each entry matched in raw, both families together."""
        with ipsets() as door:
            sets = SetSync(door).index()
        merged: list[EntryCount] = []
        for version in filter(exists, FAMILIES):
            with raw_table(version) as table:
                _merge(merged, read_counters(table, sets))
        return tuple(merged)

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Removes what is ours of these interfaces, or all of it."""
        with ipsets() as door:
            sync = SetSync(door)
            sets = sync.index()
            kept: dict[int, tuple[Chain, ...]] = {}

            def wish(version: int, actual: tuple[Chain, ...]) -> tuple[Chain, ...]:
                kept[version] = () if interfaces is None else without_interfaces(actual, frozenset(interfaces))
                return kept[version]

            sync.changes += apply_chains(wish, sets, self.settings, dry_run=False)
            sync.finish(keep=set().union(*(set_names(chains) for chains in kept.values())))
        return tuple(sync.changes)


def installed_chains(version: int) -> tuple[Chain, ...]:
    """Our chains as the kernel has them now; makes no table where there is none."""
    if not exists(version):
        return ()
    with ipsets() as door:
        sets = SetSync(door).index()
    with raw_table(version) as table:
        return read_chains(table, sets)


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
            into[at] = replace(known, packets=known.packets + item.packets, bytes=known.bytes + item.bytes)
        at += 1
