"""Both raw backends as one driver: what a plan wants of each, and nothing of ours in the one it does not want.

A host moves from one to the other without a gap: first the new one is in place, then the old one goes. In between both
ask every packet, and both say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from enforcer.backends.base import ApplyResult, BackendDriver, EntryCount
from enforcer.backends.iptables import IptablesBackend
from enforcer.backends.iptables.ipset import ipsets
from enforcer.backends.iptables.render import render as render_iptables
from enforcer.backends.iptables.rules import TABLES, TableId
from enforcer.backends.iptables.table import exists, kernel_table
from enforcer.backends.netfilter.names import is_our_chain, is_our_set
from enforcer.backends.nftables import NftablesBackend, installed
from enforcer.backends.nftables.render import render as render_nftables
from enforcer.model.errors import HostError, PrivilegeError, ran_out
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class RawBackends:
    """Enforces each interface's raw part in its ``raw_backend``; a BackendDriver."""

    iptables: IptablesBackend = field(default_factory=IptablesBackend)
    nftables: NftablesBackend = field(default_factory=NftablesBackend)

    def check(self, plan: Plan) -> None:
        """Raises UnsupportedRuleError for what a backend cannot express; changes nothing."""
        render_iptables(plan, self.iptables.settings)
        render_nftables(plan, self.nftables.settings)

    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """First what is to be, then what is to go. A backend this host does not have has nothing of ours to go."""
        wanted = {item.raw_backend for item in plan.interfaces}
        changes: list[str] = []
        for backend in sorted(self._drivers(), key=lambda backend: backend not in wanted):
            if backend in wanted or _is_used(backend):
                changes += self._drivers()[backend].apply(plan, dry_run=dry_run).changes
        return ApplyResult(tuple(changes))

    def counters(self) -> tuple[EntryCount, ...]:
        return tuple(count for driver in self._used() for count in driver.counters())

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        return tuple(line for driver in self._used() for line in driver.detach(interfaces))

    def _drivers(self) -> dict[Backend, BackendDriver]:
        return {Backend.IPTABLES: self.iptables, Backend.NFTABLES: self.nftables}

    def _used(self) -> Iterator[BackendDriver]:
        return (driver for backend, driver in self._drivers().items() if _is_used(backend))


def raw_backends_of() -> dict[str, Backend]:
    """The interfaces enforced in raw now, and the backend that does."""
    counts: dict[Backend, BackendDriver] = {Backend.NFTABLES: NftablesBackend(), Backend.IPTABLES: IptablesBackend()}
    found = {backend: driver.counters() for backend, driver in counts.items() if _is_used(backend)}
    return {count.interface: backend for backend, items in found.items() for count in items}


def _is_used(backend: Backend) -> bool:
    """Whether something of ours is there. Asking makes no table, and a host without the backend has nothing."""
    try:
        if backend is Backend.NFTABLES:
            return bool(installed())
        return any(map(_has_our_chain, filter(exists, TABLES))) or _has_our_set()
    except PrivilegeError:
        raise
    except HostError as error:
        if ran_out(error):
            raise
        return False


def _has_our_chain(table: TableId) -> bool:
    with kernel_table(table) as snapshot:
        return any(map(is_our_chain, snapshot.chain_names()))


def _has_our_set() -> bool:
    with ipsets() as conn:
        return any(map(is_our_set, conn.headers()))
