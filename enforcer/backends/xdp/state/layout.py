"""Where the XDP backend's objects are pinned.

::

    <pin root>/v2/tables/<namespace>/sieve4 root4 lists4 root6 ... manifest
                                     next/...               the same, while new ones are built
    <pin root>/v2/interfaces/<interface>/link               holds the program to the interface
                                         prog ... manifest  the program, and the maps that are its own
                                         next/...           the same, while a new generation is built

The address tables are shared by all interfaces of a network namespace. ``v2`` is the version of bpf/include/abi.h and
of the manifests: agents of another version neither read nor remove it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from enforcer.backends.xdp.offload import OFFLOAD_MAPS
from enforcer.kernel.bpf.conn import BpfConn
from enforcer.model.abi import ABI_VERSION
from enforcer.model.vocabulary import Mode

# The maps that interfaces share, by their names in the program.
TABLES = ("sieve4", "root4", "lists4", "root6", "nodes6", "buckets6", "lists6")
# Maps of one interface: pinned name -> the map's name in the program.
MAPS = {
    "policy": "policy",
    "tiers": "tiers",
    "rows": "address_rows",
    "protocols": "protocols",
    "port_pages": "port_pages",
    "port_rows": "port_rows",
    "named": "named",
    "counters": "entry_counters",
}
# Maps that are a variable of the program, so their size is fixed.
VARIABLES = ("policy",)
MANIFEST = "manifest"
PROGRAM = "prog"
TABLE_PINS = (*TABLES, MANIFEST)  # complete when the manifest is pinned, so it comes last


@dataclass(frozen=True)
class Pins:
    """The pins of one interface, and the kernel that they are in."""

    bpf: BpfConn
    directory: Path

    @classmethod
    def of(cls, bpf: BpfConn, pin_root: Path, interface: str) -> Pins:
        return cls(bpf, version_of(pin_root) / "interfaces" / quoted(interface))

    @property
    def interface(self) -> str:
        return unquote(self.directory.name)

    @property
    def link(self) -> Path:
        return self.directory / "link"

    @property
    def next(self) -> Path:
        return self.directory / "next"


@dataclass(frozen=True)
class TablePins:
    """The pins of the address tables of one network namespace, and the kernel that they are in."""

    bpf: BpfConn
    directory: Path

    @classmethod
    def of(cls, bpf: BpfConn, pin_root: Path, namespace: int) -> TablePins:
        return cls(bpf, version_of(pin_root) / "tables" / str(namespace))

    @property
    def next(self) -> Path:
        return self.directory / "next"


def generation(mode: Mode) -> tuple[str, ...]:
    """The pins of a generation in the order in which they are created. It is complete once its program is pinned."""
    return (*(OFFLOAD_MAPS if mode is Mode.OFFLOAD else MAPS), MANIFEST, PROGRAM)


def version_of(pin_root: Path) -> Path:
    return pin_root / f"v{ABI_VERSION}"


def all_pins(bpf: BpfConn, pin_root: Path) -> Iterator[Pins]:
    """The pins of every interface that has any, sorted by name."""
    interfaces = version_of(pin_root) / "interfaces"
    if interfaces.is_dir():
        yield from (Pins(bpf, path) for path in sorted(interfaces.iterdir()))


def quoted(interface: str) -> str:
    """A file name for an interface: bpffs refuses dots (kernel/bpf/inode.c, bpf_lookup), which eth0.100 has."""
    return re.sub(r"[%.]", lambda found: f"%{ord(found[0]):02X}", interface)
