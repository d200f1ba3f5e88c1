"""Where the XDP backend's objects are pinned.

::

    <pin root>/v1/<interface>/link                                      holds the program to the interface
                              prog deny4 deny6 failsafe counters manifest
                              next/...                                  the same, while a new generation is built

``v1`` is the version of bpf/include/abi.h and of the manifest: agents of another version neither read nor remove it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

ABI_VERSION = 1

# Pinned name -> the map's name in the program.
MAPS = {"deny4": "deny4", "deny6": "deny6", "failsafe": "failsafe", "counters": "entry_counters"}
MANIFEST = "manifest"
PROGRAM = "prog"
# A generation is complete when its program is pinned, so the program comes last.
GENERATION = (*MAPS, MANIFEST, PROGRAM)


@dataclass(frozen=True)
class Pins:
    """The pins of one interface."""

    directory: Path

    @classmethod
    def of(cls, pin_root: Path, interface: str) -> Pins:
        return cls(pin_root / f"v{ABI_VERSION}" / quoted(interface))

    @property
    def interface(self) -> str:
        return unquote(self.directory.name)

    @property
    def link(self) -> Path:
        return self.directory / "link"

    @property
    def next(self) -> Path:
        return self.directory / "next"


def all_pins(pin_root: Path) -> Iterator[Pins]:
    """The pins of every interface that has any, by name."""
    version = pin_root / f"v{ABI_VERSION}"
    if version.is_dir():
        yield from (Pins(path) for path in sorted(version.iterdir()))


def quoted(interface: str) -> str:
    """A file name for an interface: bpffs refuses dots (kernel/bpf/inode.c, bpf_lookup), which eth0.100 has."""
    return re.sub(r"[%.]", lambda found: f"%{ord(found[0]):02X}", interface)
