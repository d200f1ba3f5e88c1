"""Changes lists CIDR by CIDR while they are enforced, without a pass.

For callers that must add an address at once, such as an attack detector. The next pass of the agent brings the tables
back to the resources, so the caller must also add the address there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from enforcer.backends.xdp.addresses import AddressTables, open_tables
from enforcer.backends.xdp.apply import put_rows
from enforcer.backends.xdp.compile.rows import address_rows, atoms
from enforcer.backends.xdp.state.layout import Pins, TablePins
from enforcer.backends.xdp.tables.live import Changed, Live
from enforcer.kernel.bpf.conn import BpfConn
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.netns import current_inode
from enforcer.model.errors import KernelError
from enforcer.model.nets import Nets
from enforcer.planning.plan import InterfacePlan, Plan


class Lists:
    """The lists of a plan that XDP enforces in this network namespace. ``close`` it, or use it in a ``with``.

    It must be the only writer: hold :func:`enforcer.kernel.lock.namespace_lock`, so that no other process applies a
    plan meanwhile. Raises KernelError if no tables are in use here, or if they are full: then apply a plan.
    """

    def __init__(self, pin_root: Path, plan: Plan, *, ipv6: bool = True, bpf: BpfConn = LIBBPF) -> None:
        self._bpf, self._pin_root, self._ipv6 = bpf, pin_root, ipv6
        self._plans: list[InterfacePlan] = [item for item in plan.interfaces if item.mode and item.xdp_entries]
        self._nets = {atom: nets for item in self._plans for atom, nets in atoms(item).items()}
        # What was added since: sorting it into millions of CIDRs takes longer than enforcing it.
        self._added: dict[str, list[Nets]] = {}
        self._pins = TablePins.of(bpf, pin_root, current_inode())
        tables = open_tables(self._pins)
        if tables is None:
            raise KernelError("no XDP address tables are in force in this network namespace; apply a plan first")
        self._tables: AddressTables = tables
        self._live: Live | None = tables.live()

    def __enter__(self) -> Lists:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._live = None  # it has the tables mapped, which keeps them in the kernel
        self._tables.close()

    def add(self, ip_set: str, cidrs: Iterable[str]) -> bool:
        """Add CIDRs to a set (by id), enforced on return. False if the set already had all their addresses."""
        added = Nets.of(cidrs)
        # Within the changed ranges the set holds exactly the added CIDRs.
        changed = self._change(ip_set, Changed(added, added))
        self._added.setdefault(ip_set, []).append(added)
        return changed

    def remove(self, ip_set: str, cidrs: Iterable[str]) -> bool:
        """Remove CIDRs of the set. False if other CIDRs of the set still contain all their addresses."""
        removed = Nets.of(cidrs)
        if added := self._added.pop(ip_set, []):
            self._nets[ip_set] = Nets.union([self._nets[ip_set], *added])
        left = _without(self._nets[ip_set], removed)
        changed = self._change(ip_set, Changed(left, removed))
        self._nets[ip_set] = left
        return changed

    def reclaim(self) -> None:
        """Free the memory of what changes have replaced. Waits for a grace period of some milliseconds."""
        self._bpf.wait_for_readers()
        assert self._live is not None, "closed"
        self._live.release()

    def _change(self, ip_set: str, change: Changed) -> bool:
        assert self._live is not None, "closed"
        return self._tables.edit(self._live, self._pins, {ip_set: change}, self._announce)

    def _announce(self, number: int, members: frozenset[str]) -> None:
        for plan in self._plans:
            rows = address_rows(plan, {number: members}, ipv6=self._ipv6)
            put_rows(Pins.of(self._bpf, self._pin_root, plan.interface), number, rows)


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
