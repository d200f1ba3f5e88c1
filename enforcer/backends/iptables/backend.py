"""The iptables backend: a RawDriver that uses legacy iptables and ipset.

Every call acts in the network namespace of the calling thread and keeps nothing open. Ours are only the chains named
``enf-...`` in the raw, mangle and filter tables, the rules that jump to them from the built-in chains of
``accept.HOOKS``, and the ipsets named ``enf4-...`` and ``enf6-...``; nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from enforcer.backends.base import ApplyResult, EntryCount, Holding, OthersRules, Setup
from enforcer.backends.iptables import status
from enforcer.backends.iptables.accept import accept_chain_names
from enforcer.backends.iptables.apply import apply_chains
from enforcer.backends.iptables.ipset import Connect, ipsets
from enforcer.backends.iptables.others import others_rules
from enforcer.backends.iptables.probe import probe
from enforcer.backends.iptables.read import allowing, read_counters, set_names, without_interfaces
from enforcer.backends.iptables.reconcile import reconcile
from enforcer.backends.iptables.render import Rendering, render
from enforcer.backends.iptables.rules import FAMILIES, Chain, TableId, TableName
from enforcer.backends.iptables.sets import SetSync
from enforcer.backends.iptables.settings import IptablesSettings, settings_of
from enforcer.backends.iptables.table import LEGACY, Tables
from enforcer.backends.iptables.watch import IptablesWatch
from enforcer.backends.netfilter.allow import interfaces_that_allow, mark_match
from enforcer.backends.netfilter.counts import merge
from enforcer.backends.netfilter.presence import has_state
from enforcer.backends.rendered import Rendered
from enforcer.model.facts import HostRules, Probe
from enforcer.model.vocabulary import Backend, Stage
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class IptablesBackend:
    """Enforces plans in raw. :class:`~enforcer.backends.base.RawDriver` documents the methods.

    ``tables`` and ``connect``: the kernel's tables and ipsets, or a fake. :meth:`watch` always uses the kernel's.
    """

    settings: IptablesSettings = field(default_factory=IptablesSettings)
    tables: Tables = LEGACY
    connect: Connect = ipsets
    _rendered: Rendered[Rendering] = field(default_factory=Rendered, init=False, repr=False, compare=False)

    name = Backend.IPTABLES
    stage = Stage.RAW
    watched = "xtables"

    @classmethod
    def of(cls, setup: Setup) -> IptablesBackend:
        return cls(settings_of(setup.felix))

    def probe(self) -> Probe:
        """Opens the raw tables. This creates them, empty, if they do not exist."""
        return probe(ipv6=self.settings.ipv6, tables=self.tables, connect=self.connect)

    def serves(self, plan: Plan) -> bool:
        return any(item.raw_backend is self.name for item in plan.interfaces) or bool(plan.tracked_by(self.name))

    def check(self, plan: Plan) -> None:
        self._render(plan)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Makes the tables enforce exactly this plan; interfaces that are not in it lose their chains."""
        if not self.serves(plan) and not self._is_installed():
            return ApplyResult()
        rendering = self._render(plan)
        with self.connect() as conn:
            return ApplyResult(tuple(reconcile(rendering, self.settings, conn, tables=self.tables, dry_run=dry_run)))

    def warnings(self, plan: Plan, rules: HostRules) -> Iterator[str]:
        """Warns of an Allow on a host with nf_tables rules: our chains accept marked packets in legacy tables only."""
        if rules.nft and (names := interfaces_that_allow(plan, self.name)):
            yield (
                f"Allow on {', '.join(names)}: legacy iptables cannot accept for nf_tables, where this host has "
                f"{rules.nft} rules of its own; if they drop untracked packets, add "
                f"{mark_match(self.settings.accept_mark)} there"
            )

    def counters(self) -> tuple[EntryCount, ...]:
        """Packets and bytes each entry matched at each stage, both families together."""
        if not self._is_installed():
            return ()
        with self.connect() as conn:
            sets = SetSync(conn).index()
        merged: list[EntryCount] = []
        for name in TableName:  # in the order of their hooks
            for found in filter(self.tables.exists, (TableId(version, name) for version in FAMILIES)):
                with self.tables.open(found) as table:
                    merge(merged, read_counters(table, sets))
        return tuple(merged)

    def interfaces(self) -> dict[str, Stage]:
        return status.interfaces(self.tables) if self._is_installed() else {}

    def status(self) -> dict[str, Holding]:
        return status.holdings(self.tables, self.connect) if self._is_installed() else {}

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Removes our chains of these interfaces, or everything of ours. Hooks that are still needed stay in place."""
        if not self._is_installed():
            return ()
        with self.connect() as conn:
            sync = SetSync(conn)
            gone = None if interfaces is None else frozenset(interfaces)
            # Denies after conntrack leave first: what raw allows untracked would meet them without its mark.
            sync.changes += apply_chains(_Untracked(gone), sync.index(), insert_mode=None, tables=self.tables)
            remainder = _Remainder(gone)
            sync.changes += apply_chains(remainder, sync.index(), insert_mode=None, tables=self.tables)
            sync.finish(keep=set_names(remainder.chains))
        return tuple(sync.changes)

    def others_rules(self) -> OthersRules:
        return others_rules(self.tables)

    def watch(self) -> IptablesWatch:
        return IptablesWatch()

    def _is_installed(self) -> bool:
        return has_state(partial(status.is_installed, self.tables, self.connect))

    def _render(self, plan: Plan) -> Rendering:
        tables = [item.table for item in plan.interfaces if item.raw_backend is self.name]
        tracked = plan.tracked_by(self.name)
        return self._rendered.of([*tables, *tracked], lambda: render(plan, self.settings), also=len(tracked))


@dataclass(frozen=True)
class _Remainder:
    """What is to be left of each table without some interfaces, or all. ``left``: what was answered for each table.

    The chains that accept marked packets stay as long as raw still sets the mark. So the raw tables come first;
    ``raw``: their remaining chains, by IP version.
    """

    gone: frozenset[str] | None
    raw: dict[int, tuple[Chain, ...]] = field(default_factory=dict)
    left: dict[TableId, tuple[Chain, ...]] = field(default_factory=dict)

    @property
    def chains(self) -> tuple[Chain, ...]:
        """All that is left, in all tables."""
        return tuple(chain for chains in self.left.values() for chain in chains)

    def __call__(self, table: TableId, actual: tuple[Chain, ...]) -> tuple[Chain, ...]:
        self.left[table] = self._without(table, actual)
        return self.left[table]

    def _without(self, table: TableId, actual: tuple[Chain, ...]) -> tuple[Chain, ...]:
        if table.name is TableName.RAW:
            self.raw[table.version] = self._kept(table, actual)
            return self.raw[table.version]
        kept = {chain.name: chain for chain in self._kept(table, actual)}
        needed = accept_chain_names(table.name, allowing(self.raw.get(table.version, ())))
        accepting = {chain.name: Chain(chain.name, chain.rules[:1]) for chain in actual if chain.name in needed}
        return tuple((accepting | kept).values())

    def _kept(self, table: TableId, actual: tuple[Chain, ...]) -> tuple[Chain, ...]:
        return () if self.gone is None else without_interfaces(table.name, actual, self.gone)


@dataclass(frozen=True)
class _Untracked(_Remainder):
    """Likewise, but all of raw stays."""

    def _without(self, table: TableId, actual: tuple[Chain, ...]) -> tuple[Chain, ...]:
        if table.name is TableName.RAW:
            self.raw[table.version] = actual
            return actual
        return super()._without(table, actual)
