"""What the pinned maps do not record, as JSON in its own pinned map, so that it disappears with what it describes.

A new version of the format is a new version of the pin directory (:mod:`enforcer.backends.xdp.state.layout`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from enforcer.kernel.bpf.conn import BpfConn, BpfMap
from enforcer.kernel.bpf.pins import no_such_pin
from enforcer.model.vocabulary import Mode

_BPF_MAP_TYPE_ARRAY = 2
_KEY = bytes(4)
_ROOM_PER_ENTRY = 64  # for two 64-bit numbers that may be carried into it later

Counts = Mapping[str, tuple[int, int]]
Members = Mapping[int, frozenset[str]]


@dataclass(frozen=True)
class Manifest:
    """One generation of one interface.

    ``namespace``: the inode of the network namespace; ``program``: the digest of the BPF object; ``policy``: the digest
    of the entries; ``tables``: the id of the address tables it reads; ``receiver``: see :class:`Receiver`;
    ``entries[i]``: the name of bit ``i``'s entry, "" for a failsafe; ``carried``: packets and bytes counted by earlier
    generations, None until they are known.
    """

    interface: str
    namespace: int
    mode: Mode
    program: str
    policy: str
    tables: int
    receiver: str
    entries: tuple[str, ...]
    carried: Counts | None = None

    def with_carried(self, counts: Counts) -> Manifest:
        """The manifest with carried counts, only of entries that still exist."""
        return replace(self, carried={name: value for name, value in counts.items() if name in self.entries})


@dataclass(frozen=True)
class TableManifest:
    """The meaning of the class numbers in the address tables, and the ids of the tables' maps.

    ``members``: the atoms of each class; ``capacity``: the number of classes for which the interfaces have rows.
    """

    maps: tuple[int, ...]
    capacity: int
    members: Members


def create(bpf: BpfConn, manifest: Manifest) -> BpfMap:
    """A new map that holds the manifest."""
    data = _encode(manifest)
    size = len(data) + _ROOM_PER_ENTRY * len(manifest.entries) + sum(len(json.dumps(name)) for name in manifest.entries)
    return _holder(bpf, data, size)


def write(holder: BpfMap, manifest: Manifest) -> None:
    """Replace the manifest in the map. It must not have more entries than the old one."""
    holder.update(_KEY, _encode(manifest).ljust(holder.value_size, b"\0"))


def read(bpf: BpfConn, path: Path) -> Manifest | None:
    """The manifest pinned there; None if there is none, or what is there is not one.

    KernelError if the host has run out of descriptors or memory, which says nothing about the manifest.
    """
    with no_such_pin(), _not_a_manifest():
        fields = _decode(bpf, path)
        if fields.pop("pass_tagged", None) is not None:  # written by an agent whose program did not check addresses
            fields["receiver"] = ""
        fields["mode"] = Mode(fields["mode"])
        fields["entries"] = tuple(fields["entries"])
        if fields["carried"] is not None:
            fields["carried"] = {name: (packets, size) for name, (packets, size) in fields["carried"].items()}
        return Manifest(**fields)
    return None


def create_tables(bpf: BpfConn, manifest: TableManifest) -> BpfMap:
    """A new map that holds the manifest of address tables, with room for as many classes again."""
    data = _encode_tables(manifest)
    return _holder(bpf, data, 4096 + 2 * len(data))


def write_tables(holder: BpfMap, manifest: TableManifest) -> bool:
    """Replace the manifest in the map. False, without a change, if it does not fit."""
    data = _encode_tables(manifest)
    if len(data) > holder.value_size:
        return False
    holder.update(_KEY, data.ljust(holder.value_size, b"\0"))
    return True


def read_tables(bpf: BpfConn, path: Path) -> TableManifest | None:
    """The manifest of the address tables pinned there, as :func:`read`."""
    with no_such_pin(), _not_a_manifest():
        fields = _decode(bpf, path)
        atoms = fields["atoms"]
        members = {int(number): frozenset(atoms[at] for at in held) for number, held in fields["members"].items()}
        return TableManifest(tuple(fields["maps"]), fields["capacity"], members)
    return None


def _not_a_manifest() -> suppress:
    """For a block that decodes: whatever is wrong with the content, it is not a manifest of this version."""
    return suppress(ValueError, KeyError, TypeError, AttributeError, IndexError)


def _holder(bpf: BpfConn, data: bytes, size: int) -> BpfMap:
    holder = bpf.create_map(_BPF_MAP_TYPE_ARRAY, "manifest", key_size=4, value_size=size, max_entries=1)
    holder.update(_KEY, data.ljust(size, b"\0"))
    return holder


def _decode(bpf: BpfConn, path: Path) -> dict[str, Any]:
    with bpf.open_map(path) as holder:
        data = holder.lookup(_KEY) or b""
    fields = json.loads(data.rstrip(b"\0"))
    if not isinstance(fields, dict):
        raise ValueError("not a manifest")
    return fields


def _encode(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest)).encode()


def _encode_tables(manifest: TableManifest) -> bytes:
    """Each atom is written once and then referred to by number, because its id may be long and in many classes."""
    atoms = sorted(frozenset().union(*manifest.members.values()))
    place = {atom: at for at, atom in enumerate(atoms)}
    members = {number: sorted(place[atom] for atom in held) for number, held in manifest.members.items()}
    fields = {"maps": manifest.maps, "capacity": manifest.capacity, "atoms": atoms, "members": members}
    return json.dumps(fields).encode()
