"""The nftables backend: a RawDriver that uses nf_tables.

Every call acts in the network namespace of the calling thread and keeps nothing open. Ours are only the tables
``ip enforcer`` and ``ip6 enforcer`` with everything in them; nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from enforcer.backends.base import ApplyResult, EntryCount, Holding, OthersRules, Setup
from enforcer.backends.netfilter.allow import interfaces_that_allow, mark_match
from enforcer.backends.netfilter.counts import merge
from enforcer.backends.netfilter.presence import has_state
from enforcer.backends.nftables import status
from enforcer.backends.nftables.apply import Edit, transact
from enforcer.backends.nftables.others import others_rules
from enforcer.backends.nftables.probe import probe
from enforcer.backends.nftables.read import read_counters, read_table, set_names, without_interfaces
from enforcer.backends.nftables.render import render
from enforcer.backends.nftables.rules import FAMILY_OF, NftablesSettings, Table
from enforcer.backends.nftables.settings import settings_of
from enforcer.backends.nftables.watch import WATCHED, NftablesWatch
from enforcer.backends.rendered import Rendered
from enforcer.kernel.nfnetlink import Connect, nftables
from enforcer.model.facts import HostRules, Probe
from enforcer.model.vocabulary import Backend, Stage
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class NftablesBackend:
    """Enforces plans in nf_tables. :class:`~enforcer.backends.base.RawDriver` documents the methods."""

    settings: NftablesSettings = field(default_factory=NftablesSettings)
    connect: Connect = nftables
    _rendered: Rendered[tuple[Table, ...]] = field(default_factory=Rendered, init=False, repr=False, compare=False)

    name = Backend.NFTABLES
    stage = Stage.RAW
    watched = WATCHED

    @classmethod
    def of(cls, setup: Setup) -> NftablesBackend:
        return cls(settings_of(setup.felix))

    def probe(self) -> Probe:
        return probe(ipv6=self.settings.ipv6, connect=self.connect)

    def serves(self, plan: Plan) -> bool:
        return any(item.raw_backend is self.name for item in plan.interfaces) or bool(plan.tracked_by(self.name))

    def check(self, plan: Plan) -> None:
        self._render(plan)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Makes the tables enforce exactly this plan; interfaces that are not in it lose their chains."""
        if not self.serves(plan) and not self._is_installed():
            return ApplyResult()
        rendering = self._render(plan)

        def edit(draft: Edit) -> None:
            for table in rendering:
                draft.to_table(table)

        return ApplyResult(tuple(transact(edit, dry_run=dry_run, connect=self.connect)))

    def warnings(self, plan: Plan, rules: HostRules) -> Iterator[str]:
        """Warns of an Allow on a host with other tables: an accept in our tables is not final for theirs."""
        if names := interfaces_that_allow(plan, self.name):
            yield (
                f"Allow on {', '.join(names)}: nftables cannot accept for the tables of others; if a firewall of "
                f"this host drops untracked packets, add {mark_match(self.settings.accept_mark)} there"
            )

    def counters(self) -> tuple[EntryCount, ...]:
        """Packets and bytes that each entry matched at each stage, the sum of both families."""
        merged: list[EntryCount] = []
        for table in status.installed(self.connect) if self._is_installed() else ():
            merge(merged, read_counters(table))
        return tuple(merged)

    def interfaces(self) -> dict[str, Stage]:
        return status.interfaces(self.connect) if self._is_installed() else {}

    def status(self) -> dict[str, Holding]:
        return status.holdings(self.connect) if self._is_installed() else {}

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Removes our chains of these interfaces, or both tables."""
        if not self._is_installed():
            return ()

        def edit(draft: Edit) -> None:
            for family in FAMILY_OF.values():
                actual = read_table(draft.conn, family)
                kept = {} if interfaces is None else without_interfaces(actual, frozenset(interfaces))
                if kept:
                    draft.to_rules(actual, kept, set_names(kept))
                else:
                    draft.remove(actual)

        return tuple(transact(edit, connect=self.connect))

    def others_rules(self) -> OthersRules:
        return others_rules(self.connect)

    def watch(self) -> NftablesWatch:
        return NftablesWatch()

    def _is_installed(self) -> bool:
        return has_state(partial(status.is_installed, self.connect))

    def _render(self, plan: Plan) -> tuple[Table, ...]:
        tables = [item.table for item in plan.interfaces if item.raw_backend is self.name]
        tracked = plan.tracked_by(self.name)
        return self._rendered.of([*tables, *tracked], lambda: render(plan, self.settings), also=len(tracked))
