"""The XDP backend's state in the kernel, from the pins alone.

Everything here raises KernelError if the process or the host has run out of descriptors or memory: that a pin could
not be opened then does not mean that nothing is pinned.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enforcer.backends.base import EntryCount
from enforcer.backends.xdp.state import manifest as manifests
from enforcer.backends.xdp.state.layout import MANIFEST, PROGRAM, Pins, all_pins
from enforcer.backends.xdp.state.manifest import Counts, Manifest
from enforcer.kernel.bpf.conn import BpfConn
from enforcer.kernel.bpf.links import LinkInfo
from enforcer.kernel.bpf.pins import no_such_pin
from enforcer.model.abi import ENTRY_COUNT
from enforcer.model.vocabulary import STAGE_OF_MODE, Mode

_COUNT = np.dtype(ENTRY_COUNT)


@dataclass(frozen=True)
class Installed:
    """The generation of one interface. ``link`` None: no link is pinned, so we have attached nothing."""

    interface: str
    manifest: Manifest
    link: LinkInfo | None
    prog_id: int

    @property
    def mode(self) -> Mode:
        return self.manifest.mode

    @property
    def is_attached(self) -> bool:
        """Whether its link is attached to an interface. If the interface was deleted, the link remains without one."""
        return self.link is not None and self.link.ifindex != 0


def read_installed(pins: Pins) -> Installed | None:
    """The generation pinned for an interface; None if there is none, or only an incomplete one."""
    manifest = manifests.read(pins.bpf, pins.directory / MANIFEST)
    prog_id = pinned_program(pins.bpf, pins.directory / PROGRAM)
    if manifest is None or prog_id is None:
        return None
    return Installed(pins.interface, manifest, link_info(pins), prog_id)


def link_info(pins: Pins) -> LinkInfo | None:
    """The link pinned for an interface; None if none is."""
    with no_such_pin(), pins.bpf.open_link(pins.link) as link:
        return link.info()
    return None


def pinned_program(bpf: BpfConn, path: Path) -> int | None:
    """The id of the program pinned there; None if none is."""
    with no_such_pin():
        fd = bpf.open_pinned(path)
        try:
            return bpf.program_info(fd).id
        finally:
            os.close(fd)
    return None


def read_counts(pins: Pins, manifest: Manifest) -> Counts:
    """Packets and bytes of each entry since it was installed on this interface, earlier generations included."""
    carried = manifest.carried or {}
    totals = {}
    for name, cpus in _read_cpus(pins, manifest).items():
        parts = [carried.get(name, (0, 0)), *cpus]
        totals[name] = sum(packets for packets, _ in parts), sum(size for _, size in parts)
    return totals


def _read_cpus(pins: Pins, manifest: Manifest) -> dict[str, tuple[tuple[int, int], ...]]:
    """The per-CPU counts of each entry in this generation; empty if the pin is lost."""
    found: dict[str, tuple[tuple[int, int], ...]] = {name: () for name in manifest.entries if name}
    with no_such_pin(), pins.bpf.open_map(pins.directory / "counters") as counters:
        for index, name in enumerate(manifest.entries):
            if name:  # a failsafe drops nothing
                values = counters.lookup_percpu(struct.pack("=I", index))
                found[name] = tuple(np.frombuffer(b"".join(values), _COUNT).tolist())
    return found


def read_all(bpf: BpfConn, pin_root: Path) -> Iterator[tuple[Pins, Installed]]:
    """Every complete generation below the root, of all namespaces."""
    for pins in all_pins(bpf, pin_root):
        installed = read_installed(pins)
        if installed:
            yield pins, installed


def entry_counts(pins: Pins, installed: Installed) -> Iterator[EntryCount]:
    """One count for each entry, in evaluation order."""
    stage = STAGE_OF_MODE[installed.mode]
    cpus = _read_cpus(pins, installed.manifest)
    for name, (packets, size) in read_counts(pins, installed.manifest).items():
        yield EntryCount(installed.interface, name, stage, packets, size, cpus[name])
