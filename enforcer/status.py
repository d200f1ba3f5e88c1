"""What of ours is in the kernel now, per interface: mode, stage, how full its sets are, what its entries matched.

Read from pins, chains and ipsets alone, so it does not matter which process put them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from enforcer.backends.base import EntryCount
from enforcer.backends.iptables import IptablesBackend, installed_chains
from enforcer.backends.iptables.ipset import ipsets
from enforcer.backends.iptables.read import set_names, without_interfaces
from enforcer.backends.iptables.rules import FAMILIES, Chain
from enforcer.backends.xdp import XdpBackend
from enforcer.backends.xdp.layout import Pins
from enforcer.backends.xdp.read import Installed, entry_counts
from enforcer.kernel.maps import Map
from enforcer.words import STAGE_OF_MODE, Mode, Stage


@dataclass(frozen=True)
class Fill:
    """A set of prefixes: how many it holds and can hold. ``holder`` is a pinned map or an ipset."""

    holder: str
    stage: Stage
    used: int
    limit: int


@dataclass(frozen=True)
class InterfaceStatus:
    """``mode`` None: no XDP. ``counts`` has an entry once for each stage it is at, XDP before raw."""

    interface: str
    mode: Mode | None
    counts: tuple[EntryCount, ...]
    fills: tuple[Fill, ...]

    @property
    def stage(self) -> Stage:
        """The earliest stage that enforces anything here."""
        return STAGE_OF_MODE[self.mode] if self.mode else Stage.RAW

    @property
    def entries(self) -> tuple[str, ...]:
        """The entries enforced, each once."""
        return tuple(dict.fromkeys(count.entry for count in self.counts))


def enforced_modes(pin_root: Path) -> dict[str, Mode | None]:
    """The interfaces that something of ours is on in this network namespace, and the XDP mode it is attached in."""
    modes: dict[str, Mode | None] = dict.fromkeys(count.interface for count in IptablesBackend().counters())
    return modes | {item.interface: item.mode for item in XdpBackend(pin_root).status()}


def read_status(pin_root: Path) -> tuple[InterfaceStatus, ...]:
    """The status of every interface that has something of ours, by name."""
    attached = {item.interface: item for item in XdpBackend(pin_root).status()}
    raw = IptablesBackend().counters()
    names = sorted({count.interface for count in raw} | attached.keys())
    raw_fills = _raw_fills(names)
    return tuple(_status(Pins.of(pin_root, name), attached.get(name), raw, raw_fills[name]) for name in names)


def _status(
    pins: Pins, installed: Installed | None, raw: Sequence[EntryCount], raw_fills: Sequence[Fill]
) -> InterfaceStatus:
    name = pins.interface
    in_raw = [count for count in raw if count.interface == name]
    if installed is None:
        return InterfaceStatus(name, None, tuple(in_raw), tuple(raw_fills))
    counts = (*entry_counts(pins, installed), *in_raw)
    return InterfaceStatus(name, installed.mode, counts, (*_xdp_fills(pins, installed), *raw_fills))


def _xdp_fills(pins: Pins, installed: Installed) -> Iterator[Fill]:
    for name in ("deny4", "deny6"):
        with Map.open_pinned(pins.directory / name) as trie:
            used = sum(1 for _ in trie.items())
            yield Fill(name, STAGE_OF_MODE[installed.mode], used, trie.max_entries)


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


def _chains_of(interface: str, interfaces: Sequence[str], chains: tuple[Chain, ...]) -> tuple[Chain, ...]:
    """The chains of one interface only."""
    return without_interfaces(chains, frozenset(interfaces) - {interface})
