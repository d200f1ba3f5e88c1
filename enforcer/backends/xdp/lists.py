"""Lists changed CIDR by CIDR while packets are dropped by them, without a pass over everything.

For who has one address to add, now: an emergency, a detector that names sources. The next pass of the agent makes the
tables say what the resources say, so whoever adds here adds to the resources as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from enforcer.backends.xdp.addresses import AddressTables, open_tables
from enforcer.backends.xdp.apply import put_rows
from enforcer.backends.xdp.compile.rows import address_rows, atoms
from enforcer.backends.xdp.state.layout import MANIFEST, Pins, TablePins
from enforcer.backends.xdp.tables.live import Changed
from enforcer.kernel.bpf.rcu import wait_for_readers
from enforcer.kernel.netns import current_inode
from enforcer.model.errors import KernelError
from enforcer.model.nets import Nets
from enforcer.planning.plan import InterfacePlan, Plan


class Lists:
    """The lists of a plan that XDP enforces in this network namespace. Close it, or use it in a ``with``.

    The only writer: no other process applies plans meanwhile (:func:`enforcer.kernel.lock.namespace_lock`). KernelError
    when there are no tables in force here, or they have no room left: then apply a plan.
    """

    def __init__(self, pin_root: Path, plan: Plan, *, ipv6: bool = True) -> None:
        self._pin_root, self._ipv6 = pin_root, ipv6
        self._plans: list[InterfacePlan] = [item for item in plan.interfaces if item.mode and item.xdp_entries]
        self._nets = {atom: nets for item in self._plans for atom, nets in atoms(item).items()}
        # What was added since: to put it in order among millions takes longer than to enforce it.
        self._added: dict[str, list[Nets]] = {}
        self._pins = TablePins.of(pin_root, current_inode())
        tables = open_tables(self._pins)
        if tables is None:
            raise KernelError("no XDP address tables are in force in this network namespace; apply a plan first")
        self._tables: AddressTables = tables
        self._live = tables.live()

    def __enter__(self) -> Lists:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._tables.close()

    def add(self, ip_set: str, cidrs: Iterable[str]) -> bool:
        """Add CIDRs to a set (by id); False when all of their addresses were in it. Enforced on return."""
        added = Nets.of(cidrs)
        # The rest of the set no longer covers these addresses.
        changed = self._change(ip_set, Changed(added, added))
        self._added.setdefault(ip_set, []).append(added)
        return changed

    def remove(self, ip_set: str, cidrs: Iterable[str]) -> bool:
        """Remove CIDRs that the set has; False when others of it still hold all of their addresses."""
        removed = Nets.of(cidrs)
        if added := self._added.pop(ip_set, []):
            self._nets[ip_set] = Nets.union([self._nets[ip_set], *added])
        left = _without(self._nets[ip_set], removed)
        changed = self._change(ip_set, Changed(left, removed))
        self._nets[ip_set] = left
        return changed

    def reclaim(self) -> None:
        """Reuse what changes have replaced. Waits for a grace period: some milliseconds."""
        wait_for_readers()
        self._live.release()

    def _change(self, ip_set: str, change: Changed) -> bool:
        return self._tables.edit(self._live, self._pins.directory / MANIFEST, {ip_set: change}, self._announce)

    def _announce(self, number: int, members: frozenset[str]) -> None:
        for plan in self._plans:
            rows = address_rows(plan, {number: members}, ipv6=self._ipv6)
            put_rows(Pins.of(self._pin_root, plan.interface), number, rows)


def _without(nets: Nets, removed: Nets) -> Nets:
    gone4 = [_place4(nets, *item) for item in zip(removed.net4.tolist(), removed.len4.tolist(), strict=True)]
    rows6 = zip(removed.net6.tolist(), removed.len6.tolist(), strict=True)
    gone6 = [_place6(nets, high, low, length) for (high, low), length in rows6]
    return Nets(
        np.delete(nets.net4, gone4) if gone4 else nets.net4,
        np.delete(nets.len4, gone4) if gone4 else nets.len4,
        np.delete(nets.net6, gone6, axis=0) if gone6 else nets.net6,
        np.delete(nets.len6, gone6) if gone6 else nets.len6,
    )


def _place4(nets: Nets, network: int, length: int) -> int:
    begin, end = np.searchsorted(nets.net4, np.uint32(network)), np.searchsorted(nets.net4, np.uint32(network), "right")
    return int(begin + np.flatnonzero(nets.len4[begin:end] == length)[0])


def _place6(nets: Nets, high: int, low: int, length: int) -> int:
    begin = np.searchsorted(nets.net6[:, 0], np.uint64(high))
    end = np.searchsorted(nets.net6[:, 0], np.uint64(high), "right")
    same = (nets.net6[begin:end, 1] == np.uint64(low)) & (nets.len6[begin:end] == length)
    return int(begin + np.flatnonzero(same)[0])
