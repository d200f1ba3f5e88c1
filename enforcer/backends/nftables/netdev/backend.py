"""NetdevBackend: a BackendDriver for netdev ingress. Only the table ``netdev enforcer`` is ours.

It has its own transaction, after those of raw: raw may be in iptables, and an interface that disappears at that moment
makes the kernel refuse the whole transaction, which must not affect raw. The order leaves no gap, because raw drops
what is not dropped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from enforcer.backends.base import ApplyResult, EntryCount, Holding, Setup
from enforcer.backends.netfilter.counts import merge
from enforcer.backends.netfilter.presence import has_state
from enforcer.backends.nftables.apply import Edit, transact
from enforcer.backends.nftables.netdev import status
from enforcer.backends.nftables.netdev.probe import probe
from enforcer.backends.nftables.netdev.read import read_counters, without_interfaces
from enforcer.backends.nftables.netdev.render import render, require_marks
from enforcer.backends.nftables.read import read_table, set_names
from enforcer.backends.nftables.rules import NftablesSettings
from enforcer.backends.nftables.settings import settings_of
from enforcer.backends.nftables.watch import WATCHED, NftablesWatch
from enforcer.kernel.nfnetlink import Connect, Family, nftables
from enforcer.model.facts import HostRules, Probe
from enforcer.model.vocabulary import Answer, Backend, Stage
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class NetdevBackend:
    """Drops early what raw would drop. :class:`~enforcer.backends.base.BackendDriver` documents the methods."""

    settings: NftablesSettings = field(default_factory=NftablesSettings)
    connect: Connect = nftables

    name = Backend.NETDEV
    stage = Stage.NETDEV_INGRESS
    watched = WATCHED

    @classmethod
    def of(cls, setup: Setup) -> NetdevBackend:
        return cls(settings_of(setup.felix))

    def probe(self) -> Probe:
        return Probe(Answer.YES) if self._is_installed() else probe(self.connect)

    def serves(self, plan: Plan) -> bool:
        return any(item.netdev for item in plan.interfaces)

    def check(self, plan: Plan) -> None:
        """Only checks marks. Which interfaces have no XDP is known only after XDP was tried, so nothing is rendered."""
        require_marks(plan, self.settings)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Makes the table contain exactly the interfaces of this plan that have netdev ingress."""
        if not self.serves(plan) and not self._is_installed():
            return ApplyResult()
        table = render(plan, self.settings)
        return ApplyResult(tuple(transact(lambda draft: draft.to_table(table), dry_run=dry_run, connect=self.connect)))

    def warnings(self, plan: Plan, rules: HostRules) -> tuple[str, ...]:
        return ()

    def counters(self) -> tuple[EntryCount, ...]:
        """Packets and bytes that each Deny dropped, the sum of both families."""
        merged: list[EntryCount] = []
        for counts in read_counters(status.installed(self.connect)) if self._is_installed() else ():
            merge(merged, counts)
        return tuple(merged)

    def interfaces(self) -> dict[str, Stage]:
        return status.interfaces(self.connect) if self._is_installed() else {}

    def status(self) -> dict[str, Holding]:
        return status.holdings(self.connect) if self._is_installed() else {}

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Removes the chains of these interfaces, or the whole table."""
        if not self._is_installed():
            return ()

        def edit(draft: Edit) -> None:
            actual = read_table(draft.conn, Family.NETDEV)
            kept = {} if interfaces is None else without_interfaces(actual, frozenset(interfaces))
            if kept:
                draft.to_rules(actual, kept, set_names(kept))
            else:
                draft.remove(actual)

        return tuple(transact(edit, connect=self.connect))

    def _is_installed(self) -> bool:
        return has_state(partial(status.is_installed, self.connect))

    def watch(self) -> NftablesWatch:
        return NftablesWatch()
