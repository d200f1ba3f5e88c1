"""A generation: the program and the maps of one interface, built beside the ones in use, which they then replace.

The order lets the next pass continue from every intermediate state. Build: pin under ``next/``, the program last. Go
live: attach or update the link, which is atomic. Finish: carry over the counts of the old generation, then move each
pin to its place, the program last. So a ``next/`` with the live program is to be finished, any other to be discarded
(:func:`settle`).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from enforcer.backends.xdp.state import manifest as manifests
from enforcer.backends.xdp.state.layout import MANIFEST, MAPS, PROGRAM, TABLES, VARIABLES, Pins, generation
from enforcer.backends.xdp.state.manifest import Manifest
from enforcer.backends.xdp.state.read import link_info, pinned_program, read_counts
from enforcer.kernel.bpf.conn import BpfConn, BpfMap, XdpObject
from enforcer.kernel.bpf.programs import BPF_F_XDP_HAS_FRAGS
from enforcer.kernel.bpf.toolchain import PROGRAM as XDP_PROGRAM
from enforcer.model.errors import KernelError, ran_out
from enforcer.model.vocabulary import Toolchain
from enforcer.system import directories


@dataclass(frozen=True)
class Elements:
    """Elements of one size, concatenated."""

    size: int
    data: bytes

    def __len__(self) -> int:
        return len(self.data) // self.size

    def one(self, number: int) -> Elements:
        return Elements(self.size, self.data[number * self.size : (number + 1) * self.size])

    def __iter__(self) -> Iterator[bytes]:
        return (self.data[at : at + self.size] for at in range(0, len(self.data), self.size))


@dataclass(frozen=True)
class Contents:
    """What one interface's program is loaded with. ``arrays`` and ``hashes``, by pinned name: the elements of an array
    in order, the keys and values of a hash. ``entries``: the number of counters.
    """

    settings: Mapping[str, int]
    arrays: Mapping[str, Elements]
    hashes: Mapping[str, tuple[Elements, Elements]]
    entries: int

    def hash_items(self, name: str) -> dict[bytes, bytes]:
        keys, values = self.hashes[name]
        return dict(zip(keys, values, strict=True))


@dataclass(frozen=True)
class Loaded:
    """A loaded program with filled maps, not pinned yet. ``maps``: pinned name -> the map's name in the program."""

    obj: XdpObject
    program: str
    maps: Mapping[str, str]


def build(pins: Pins, loaded: Loaded, manifest: Manifest) -> None:
    """Pin a new generation under ``next/`` and close its object. After a KernelError nothing is pinned there."""
    with loaded.obj as obj:
        discard_next(pins)
        directories.make(pins.next)
        try:
            for pinned, name in loaded.maps.items():
                with obj.map(name) as target:
                    target.pin(pins.next / pinned)
            with manifests.create(pins.bpf, manifest) as holder:
                holder.pin(pins.next / MANIFEST)
            pins.bpf.pin(obj.program(loaded.program).fd, pins.next / PROGRAM)
        except BaseException:
            discard_next(pins)
            raise


def fill(target: BpfMap, contents: Contents, pinned: str) -> None:
    """Fill an empty map."""
    if pinned in contents.arrays:
        put_elements(target, contents.arrays[pinned])
    elif pinned in contents.hashes:
        keys, values = contents.hashes[pinned]
        target.update_batch(keys.data, values.data, len(keys))


def put_elements(target: BpfMap, elements: Elements, first: int = 0) -> None:
    """Write elements of an array, from number ``first`` on."""
    keys = b"".join(number.to_bytes(4, sys.byteorder) for number in range(first, first + len(elements)))
    target.update_batch(keys, elements.data, len(elements))


def settle(pins: Pins) -> None:
    """Finish or discard the generation that a killed agent left incomplete."""
    if not pins.next.is_dir():
        return
    link, program = link_info(pins), pinned_program(pins.bpf, pins.next / PROGRAM)
    if link is not None and program is not None and link.prog_id == program:
        finish(pins)
    else:
        discard_next(pins)


def finish(pins: Pins) -> None:
    """Move the live generation from ``next/`` to its place, and carry over the counts of the old one."""
    pins.bpf.wait_for_readers()  # from here on no program counts in the old maps
    _carry_counts(pins)
    manifest = manifests.read(pins.bpf, pins.next / MANIFEST) or manifests.read(pins.bpf, pins.directory / MANIFEST)
    assert manifest is not None
    wanted = generation(manifest.mode)
    for name in wanted:
        with suppress(FileNotFoundError):  # moved before the agent was killed
            os.replace(pins.next / name, pins.directory / name)
    pins.next.rmdir()
    for path in pins.directory.iterdir():
        if path.name not in (*wanted, pins.link.name):  # of another kind of program
            path.unlink()


def discard_next(pins: Pins) -> None:
    """Remove a generation that did not go live."""
    directories.remove_tree(pins.next)


def remove(pins: Pins) -> None:
    """Detach and remove everything of an interface: the link first, so that no program runs without its maps."""
    remove_link(pins)
    discard_next(pins)
    directories.remove_tree(pins.directory)


def remove_link(pins: Pins) -> None:
    """Detach now: unpinning alone detaches only when the last reference is gone."""
    try:
        with pins.bpf.open_link(pins.link) as link:
            try:
                link.detach()
            except KernelError as error:
                if ran_out(error):
                    raise  # unpinned, it would stay attached as long as anybody holds it open
                # its interface is gone: nothing to detach
    except FileNotFoundError:
        return
    pins.link.unlink()


def _carry_counts(pins: Pins) -> None:
    new = manifests.read(pins.bpf, pins.next / MANIFEST)
    if new is None or new.carried is not None:
        return
    old = manifests.read(pins.bpf, pins.directory / MANIFEST)
    counts = {} if old is None else read_counts(pins, old)
    with pins.bpf.open_map(pins.next / MANIFEST) as holder:
        manifests.write(holder, new.with_carried(counts))


def load(
    bpf: BpfConn, contents: Contents, tables: Mapping[str, BpfMap], toolchain: Toolchain = Toolchain.LIBBPF
) -> Loaded:
    """Load the program with these tables; without multi-buffer support before Linux 5.18."""
    try:
        return _load(bpf, contents, tables, toolchain, multi_buffer=True)
    except KernelError as first:
        if first.errno != errno.EINVAL:
            raise
        try:
            return _load(bpf, contents, tables, toolchain, multi_buffer=False)
        except KernelError:
            raise first from None


def _load(
    bpf: BpfConn, contents: Contents, tables: Mapping[str, BpfMap], toolchain: Toolchain, *, multi_buffer: bool
) -> Loaded:
    obj = bpf.open_xdp(toolchain)
    try:
        for name, value in contents.settings.items():
            obj.set_const(name, value)
        obj.set_const("multi_buffer", int(multi_buffer))
        if multi_buffer:
            obj.set_program_flags(XDP_PROGRAM, BPF_F_XDP_HAS_FRAGS)
        for pinned, name in MAPS.items():
            if name not in VARIABLES:
                obj.resize_map(name, _size(contents, pinned))
        for name in TABLES:
            obj.reuse_map(name, tables[name].fd)
        obj.load()
        for pinned, name in MAPS.items():
            with obj.map(name) as target:
                fill(target, contents, pinned)
    except BaseException:
        obj.close()
        raise
    return Loaded(obj, XDP_PROGRAM, MAPS)


def _size(contents: Contents, pinned: str) -> int:
    if pinned in contents.arrays:
        return max(1, len(contents.arrays[pinned]))
    if pinned in contents.hashes:
        return max(1, len(contents.hashes[pinned][0]))
    return max(1, contents.entries)
