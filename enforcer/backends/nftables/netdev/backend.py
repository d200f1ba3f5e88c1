"""NetdevBackend: a BackendDriver for netdev ingress. Only the table ``netdev enforcer`` is ours.

Its transaction is its own, behind those of raw: raw may be in iptables, and an interface that goes away just then makes
the kernel refuse the whole transaction, which must not keep raw from being enforced. No order opens a hole, because
what is not dropped here is dropped in raw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from enforcer.backends.base import ApplyResult, EntryCount
from enforcer.backends.nftables.apply import Edit, transact
from enforcer.backends.nftables.backend import merge
from enforcer.backends.nftables.netdev.read import read_counters, without_interfaces
from enforcer.backends.nftables.netdev.render import render
from enforcer.backends.nftables.read import ReadTable, read_table, set_names
from enforcer.backends.nftables.rules import Settings
from enforcer.kernel.nfnetlink import Family, nftables
from enforcer.model.errors import HostError, PrivilegeError
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class NetdevBackend:
    """Drops early what raw would drop. See :class:`~enforcer.backends.base.BackendDriver` for what methods promise."""

    settings: Settings = field(default_factory=Settings)

    def check(self, plan: Plan) -> None:
        """Raises UnsupportedRuleError for what cannot be expressed; changes nothing."""
        render(plan, self.settings)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Makes the table hold exactly the interfaces of this plan that have netdev ingress."""
        table = render(plan, self.settings)
        if not table.wanted and installed() is None:
            return ApplyResult()
        return ApplyResult(tuple(transact(lambda draft: draft.to_table(table), dry_run=dry_run)))

    def counters(self) -> tuple[EntryCount, ...]:
        """Packets and bytes each Deny dropped, both families together."""
        merged: list[EntryCount] = []
        table = installed()
        for counts in read_counters(table) if table else ():
            merge(merged, counts)
        return tuple(merged)

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Removes what is ours of these interfaces, or all of it."""
        if installed() is None:
            return ()

        def edit(draft: Edit) -> None:
            actual = read_table(draft.conn, Family.NETDEV)
            kept = {} if interfaces is None else without_interfaces(actual, frozenset(interfaces))
            if kept:
                draft.to_rules(actual, kept, set_names(kept))
            else:
                draft.remove(actual)

        return tuple(transact(edit))


def installed() -> ReadTable | None:
    """Our table as the kernel has it now; None where it is not there, nor nf_tables."""
    try:
        with nftables() as conn:
            table = read_table(conn, Family.NETDEV)
    except PrivilegeError:
        raise
    except HostError:
        return None
    return table if table.present else None
