"""What of ours is in the kernel now, per interface: mode, stage, how full its sets are, what its entries matched.

Read from pins, chains and ipsets alone, so it does not matter which process put them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from enforcer.backends.base import EntryCount
from enforcer.backends.iptables import installed_chains
from enforcer.backends.iptables.ipset import ipsets
from enforcer.backends.iptables.read import set_names, without_interfaces
from enforcer.backends.iptables.rules import FAMILIES, Chain
from enforcer.backends.nftables import installed
from enforcer.backends.nftables import read as nft
from enforcer.backends.nftables.netdev import NetdevBackend, fills_of
from enforcer.backends.nftables.netdev import installed as netdev_installed
from enforcer.backends.raw import RawBackends, raw_backends_of
from enforcer.backends.xdp.addresses import open_tables
from enforcer.backends.xdp.backend import XdpBackend
from enforcer.backends.xdp.state.layout import Pins, TablePins
from enforcer.backends.xdp.state.read import Installed, entry_counts
from enforcer.kernel.nfnetlink import nftables
from enforcer.kernel.rtnetlink import interfaces
from enforcer.model.vocabulary import STAGE_OF_MODE, Backend, Mode, Stage
from enforcer.planning.xdp_capability import MAX_BITS


@dataclass(frozen=True)
class Fill:
    """A set of prefixes: how many it holds and can hold, None: as many as there is memory for. ``holder`` is a pinned
    map, an ipset or a set of nftables.
    """

    holder: str
    stage: Stage
    used: int
    limit: int | None


@dataclass(frozen=True)
class InterfaceStatus:
    """``mode`` None: no XDP. ``counts`` has an entry once for each stage it is at, earlier stages first.
    ``raw_backend`` None: nothing in raw. ``netdev``: nf_tables drops at netdev ingress.

    ``present``: there is an interface of that name; rules of raw and of netdev ingress, which go by names, meet no
    packet without. ``attached_to``: the name that the interface the XDP program is on has now.
    """

    interface: str
    mode: Mode | None
    counts: tuple[EntryCount, ...]
    fills: tuple[Fill, ...]
    raw_backend: Backend | None = None
    netdev: bool = False
    present: bool = True
    attached_to: str = ""

    @property
    def stage(self) -> Stage | None:
        """The earliest stage that enforces anything here; None where none does, because there is no such interface."""
        if self.mode:
            return STAGE_OF_MODE[self.mode]
        if not self.present:
            return None
        return Stage.NETDEV_INGRESS if self.netdev else Stage.RAW

    @property
    def entries(self) -> tuple[str, ...]:
        """The entries enforced, each once."""
        return tuple(dict.fromkeys(count.entry for count in self.counts))


def read_status(pin_root: Path) -> tuple[InterfaceStatus, ...]:
    """The status of every interface that has something of ours, by name."""
    attached = {item.interface: item for item in XdpBackend(pin_root).status()}
    counts = (*NetdevBackend().counters(), *RawBackends().counters())
    backends = raw_backends_of()
    names = sorted({count.interface for count in counts} | attached.keys())
    fills = {Backend.IPTABLES: _raw_fills, Backend.NFTABLES: _nft_fills}
    found = [_netdev_fills(names)]
    found += [fill(names) for backend, fill in fills.items() if backend in backends.values()]
    at_netdev = {count.interface for count in counts if count.stage is Stage.NETDEV_INGRESS}
    called = {item.index: item.name for item in interfaces()}
    return tuple(
        replace(
            _status(pin_root, name, attached.get(name), counts, _of(name, found)),
            raw_backend=backends.get(name),
            netdev=name in at_netdev,
            present=name in called.values(),
            attached_to=_holder(attached.get(name), called),
        )
        for name in names
    )


def _holder(installed: Installed | None, called: Mapping[int, str]) -> str:
    """What the interface that a program is on is called now."""
    return called.get(installed.link.ifindex, "") if installed and installed.link else ""


def _of(name: str, found: Sequence[Mapping[str, Sequence[Fill]]]) -> list[Fill]:
    return [fill for fills in found for fill in fills.get(name, ())]


def _status(
    pin_root: Path, name: str, installed: Installed | None, others: Sequence[EntryCount], fills: Sequence[Fill]
) -> InterfaceStatus:
    behind = [count for count in others if count.interface == name]
    if installed is None:
        return InterfaceStatus(name, None, tuple(behind), tuple(fills))
    counts = (*entry_counts(Pins.of(pin_root, name), installed), *behind)
    return InterfaceStatus(name, installed.mode, counts, (*_xdp_fills(pin_root, installed), *fills))


def _xdp_fills(pin_root: Path, installed: Installed) -> Iterator[Fill]:
    """Entries (and failsafes), and the stretches of addresses that some list holds: bounded by memory alone."""
    stage = STAGE_OF_MODE[installed.mode]
    yield Fill("XDP entries", stage, len(installed.manifest.entries), MAX_BITS)
    tables = open_tables(TablePins.of(pin_root, installed.manifest.namespace))
    if tables is not None:
        with tables:
            said = tables.classified
            yield Fill("XDP IPv4 ranges", stage, int(np.count_nonzero(said.segments4.cls)), None)
            yield Fill("XDP IPv6 ranges", stage, int(np.count_nonzero(said.segments6.cls)), None)


def _raw_fills(interfaces: Sequence[str]) -> dict[str, list[Fill]]:
    """For each interface the ipsets its chains refer to. A set that several refer to is read once."""
    chains = {version: installed_chains(version) for version in FAMILIES}
    fills: dict[str, Fill] = {}
    with ipsets() as sets:
        for name, header in sets.headers().items():
            if any(name in set_names(found) for found in chains.values()):
                members = sets.members(name, header.version)
                used = 0 if members is None else len(members)
                fills[name] = Fill(f"ipset {name}", Stage.RAW, used, header.maxelem)
    return {
        interface: [
            fills[name]
            for found in chains.values()
            for name in sorted(set_names(_chains_of(interface, interfaces, found)))
            if name in fills
        ]
        for interface in interfaces
    }


def _nft_fills(interfaces: Sequence[str]) -> dict[str, list[Fill]]:
    """For each interface the sets of nftables that its chains ask."""
    fills: dict[str, list[Fill]] = {interface: [] for interface in interfaces}
    for table in installed():
        asked = {name: nft.set_names(nft.only_interface(table, name)) & table.sets.keys() for name in interfaces}
        for interface, found in _set_fills(table, asked, Stage.RAW).items():
            fills[interface] += found
    return fills


def _netdev_fills(interfaces: Sequence[str]) -> dict[str, list[Fill]]:
    """The same for netdev ingress; nothing where it is not."""
    table = netdev_installed()
    if table is None:
        return {}
    return _set_fills(table, {name: fills_of(table, name) for name in interfaces}, Stage.NETDEV_INGRESS)


def _set_fills(table: nft.ReadTable, asked: Mapping[str, Set[str]], stage: Stage) -> dict[str, list[Fill]]:
    """The sets of a table that each interface asks. A set that several ask is read once."""
    fills: dict[str, list[Fill]] = {interface: [] for interface in asked}
    counted: dict[str, Fill] = {}
    with nftables() as conn:
        for interface, names in asked.items():
            for name in sorted(names):
                if name not in counted and (kind := nft.type_of(table.sets[name])):
                    members = nft.read_members(conn, table.family, name, kind)
                    counted[name] = Fill(f"set {name}", stage, 0 if members is None else len(members), None)
                fills[interface] += [counted[name]] if name in counted else []
    return fills


def _chains_of(interface: str, interfaces: Sequence[str], chains: tuple[Chain, ...]) -> tuple[Chain, ...]:
    """The chains of one interface only."""
    return without_interfaces(chains, frozenset(interfaces) - {interface})
