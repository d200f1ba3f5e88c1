"""The state of netdev ingress in the kernel for each interface, read without counters."""

from __future__ import annotations

from enforcer.backends.base import Holding
from enforcer.backends.nftables.netdev.read import entries_of, fills_of, read_devices
from enforcer.backends.nftables.read import ReadTable, has_table, read_table
from enforcer.backends.nftables.status import set_fills
from enforcer.kernel.nfnetlink import Connect, Family, nftables
from enforcer.model.vocabulary import Stage


def is_installed(connect: Connect = nftables) -> bool:
    """Whether our table exists. Reads none of its content."""
    with connect() as conn:
        return has_table(conn, Family.NETDEV)


def installed(connect: Connect = nftables) -> ReadTable:
    """Our table in the kernel."""
    with connect() as conn:
        return read_table(conn, Family.NETDEV)


def interfaces(connect: Connect) -> dict[str, Stage]:
    """The interfaces that have a base chain."""
    with connect() as conn:
        return dict.fromkeys(read_devices(conn), Stage.NETDEV_INGRESS)


def holdings(connect: Connect) -> dict[str, Holding]:
    """For each interface its Deny entries, and the sets that its rules refer to."""
    table = installed(connect)
    entries = entries_of(table)
    sets = {name: dict.fromkeys(fills_of(table, name), Stage.NETDEV_INGRESS) for name in entries}
    fills = set_fills(connect, table, sets)
    return {name: Holding(Stage.NETDEV_INGRESS, tuple(items), tuple(fills[name])) for name, items in entries.items()}
