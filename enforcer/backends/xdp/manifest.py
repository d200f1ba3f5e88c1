"""What the pinned maps cannot say of themselves, as JSON in a pinned map of its own: it dies with what it describes.

A new version of the format is a new version of the pin directory (:mod:`enforcer.backends.xdp.layout`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from enforcer.errors import KernelError
from enforcer.kernel.maps import Map
from enforcer.words import Mode

_BPF_MAP_TYPE_ARRAY = 2
_KEY = bytes(4)
_ROOM_PER_ENTRY = 64  # for two 64-bit numbers that may be carried into it later

Counts = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Manifest:
    """One generation of one interface.

    ``namespace`` is the inode of the network namespace; ``program`` the digest of the BPF object; ``entries[i]`` the
    name behind index ``i``. ``carried`` has packets and bytes counted by earlier generations, None until they are
    known.
    """

    interface: str
    namespace: int
    mode: Mode
    program: str
    pass_tagged: bool
    entries: tuple[str, ...]
    carried: Counts | None = None

    def with_carried(self, counts: Counts) -> Manifest:
        """Only of entries that there are still: what is gone is not shown anywhere."""
        return replace(self, carried={name: value for name, value in counts.items() if name in self.entries})


def create(manifest: Manifest) -> Map:
    """A new map that holds the manifest."""
    data = _encode(manifest)
    size = len(data) + _ROOM_PER_ENTRY * len(manifest.entries) + sum(len(json.dumps(name)) for name in manifest.entries)
    holder = Map.create(_BPF_MAP_TYPE_ARRAY, "manifest", key_size=4, value_size=size, max_entries=1)
    write(holder, manifest)
    return holder


def write(holder: Map, manifest: Manifest) -> None:
    """Put a manifest, which must not have more entries than before, in place of the one in the map."""
    holder.update(_KEY, _encode(manifest).ljust(holder.value_size, b"\0"))


def read(path: Path) -> Manifest | None:
    """The manifest pinned there; None when there is none, or none that can be read."""
    try:
        with Map.open_pinned(path) as holder:
            data = holder.lookup(_KEY) or b""
        fields = json.loads(data.rstrip(b"\0"))
        fields["mode"] = Mode(fields["mode"])
        fields["entries"] = tuple(fields["entries"])
        if fields["carried"] is not None:
            fields["carried"] = {name: (packets, size) for name, (packets, size) in fields["carried"].items()}
        return Manifest(**fields)
    except (FileNotFoundError, KernelError, ValueError, KeyError, TypeError):
        return None


def _encode(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest)).encode()
