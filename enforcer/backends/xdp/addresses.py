"""The address tables in the kernel: built anew, or changed in place while programs read them.

All interfaces of a network namespace share one set of tables. A program keeps a reference to the maps it was loaded
with, so replaced tables exist until the last interface has moved to the new ones.
"""

from __future__ import annotations

import ctypes
import mmap
import operator
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.state import manifest as manifests
from enforcer.backends.xdp.state.layout import MANIFEST, TABLE_PINS, TABLES, TablePins
from enforcer.backends.xdp.state.manifest import TableManifest
from enforcer.backends.xdp.tables.allocator import Allocator
from enforcer.backends.xdp.tables.classes import Classified
from enforcer.backends.xdp.tables.delta import with_slots
from enforcer.backends.xdp.tables.forest6 import NODE6
from enforcer.backends.xdp.tables.image4 import build4, decode4, holds4, read4, sieve4
from enforcer.backends.xdp.tables.image6 import build6
from enforcer.backends.xdp.tables.live import Arrays, Changed, Full, Live, NewClass, Present
from enforcer.backends.xdp.tables.patch import Patch
from enforcer.backends.xdp.tables.read6 import read6
from enforcer.kernel.bpf.conn import BpfConn, BpfMap
from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE, BPF_MAP_TYPE_ARRAY
from enforcer.kernel.bpf.pins import no_such_pin
from enforcer.kernel.bpf.rcu import store_fence
from enforcer.model.abi import TABLE_PAGE_BYTES
from enforcer.model.errors import KernelError
from enforcer.system import directories

U32 = npt.NDArray[np.uint32]

MOST_CLASSES = 1 << 16
_LEAST_CLASSES = 64

_LIBC = ctypes.CDLL(None)
_LIBC.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


@dataclass
class AddressTables:
    """The maps and the classification they contain. Owns the descriptors: ``close`` it, or use it in a ``with``."""

    maps: dict[str, BpfMap]
    manifest: TableManifest
    classified: Classified
    _views: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)

    def __enter__(self) -> AddressTables:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def id(self) -> int:
        """The identity of these tables in the manifests of programs: the id of the first map."""
        return self.maps[TABLES[0]].id

    @property
    def numbers(self) -> Mapping[frozenset[str], int]:
        """The number of each class; the next classification keeps them."""
        return {members: number for number, members in self.manifest.members.items()}

    def live(self, allocators: Mapping[str, Allocator] | None = None) -> Live:
        """The object that changes these tables in place. ``allocators``: as there."""
        members, most = self.manifest.members, self.manifest.capacity
        return Live(self._arrays(), members, most_classes=most, allocators=allocators)

    def change(self, pins: TablePins, wanted: Classified, new_class: NewClass) -> bool:
        """Change the tables to this classification while programs read them. False if there is no room; then no
        address has changed its class.

        Each new class is passed to ``new_class`` and written to the pinned manifest before any address has it.
        """
        present = self._present
        changed = self._change(pins, lambda live: live.plan_replace(wanted, present), new_class)
        if changed:
            self.classified = replace(self.classified, segments4=wanted.segments4, segments6=wanted.segments6)
        return changed is not None

    def change_few(self, pins: TablePins, changes: Mapping[str, Changed], new_class: NewClass) -> bool | None:
        """Change a few IPv4 CIDRs of atoms, like :meth:`change`. Returns whether any address changed its class; None if
        there is no room.
        """
        changed = self._change(pins, lambda live: live.plan(changes), new_class)
        if changed:
            found = _LAST_READ.of(self.manifest.maps, self._views)
            if found is None:
                return None
            self.classified = Classified(self.manifest.members, *found)
        return changed

    def _change(self, pins: TablePins, plan: Callable[[Live], Patch], new_class: NewClass) -> bool | None:
        known = _LAST_READ.take(self.manifest.maps, self._present)
        try:
            live = self.live(known.allocators if known else None)
            patch = plan(live)
            changed = live.make(patch, self._announcing(pins, new_class), store_fence)
        except Full:
            return None
        if known:
            _LAST_READ.known = known.after(patch, live.allocators) if changed else known
        return changed

    @property
    def _present(self) -> Present:
        return self.classified.segments4, self.classified.segments6

    def edit(self, live: Live, pins: TablePins, changes: Mapping[str, Changed], new_class: NewClass) -> bool:
        """Change some CIDRs of atoms. False if no address changed its class. Raises KernelError if there is no room."""
        try:
            return live.change(changes, new_class=self._announcing(pins, new_class), fence=store_fence)
        except Full as error:
            raise KernelError(f"the address tables are full: {error}; apply a plan to make larger ones") from error

    def _announcing(self, pins: TablePins, new_class: NewClass) -> NewClass:
        def announce(number: int, members: frozenset[str]) -> None:
            known = replace(self.manifest, members={**self.manifest.members, number: members})
            with pins.bpf.open_map(pins.directory / MANIFEST) as holder:
                if not manifests.write_tables(holder, known):
                    raise Full("the manifest has no room for another class")
            self.manifest = known
            new_class(number, members)

        return announce

    def _arrays(self) -> Arrays:
        words = {name: _words(view) for name, view in self._views.items() if name != "nodes6"}
        return Arrays(nodes6=self._views["nodes6"].view(NODE6), **words)

    def close(self) -> None:
        self._views.clear()
        for item in self.maps.values():
            item.close()


def open_tables(pins: TablePins) -> AddressTables | None:
    """The tables in use; None if there are none, or they are damaged. KernelError as :func:`manifests.read`."""
    manifest = manifests.read_tables(pins.bpf, pins.directory / MANIFEST)
    if manifest is None:
        return None
    with ExitStack() as stack:
        maps: dict[str, BpfMap] = {}
        with no_such_pin():
            maps = {name: stack.enter_context(pins.bpf.open_map(pins.directory / name)) for name in TABLES}
        if not maps or tuple(maps[name].id for name in TABLES) != manifest.maps:
            return None
        views = {name: _view(item) for name, item in maps.items()}
        segments = _LAST_READ.of(manifest.maps, views)
        if segments is None:
            return None
        stack.pop_all()
        return AddressTables(maps, manifest, Classified(manifest.members, *segments), views)


@dataclass(frozen=True)
class _Known:
    """The content of the tables with these ids, the segments that it holds, and which blocks of it are in use."""

    ids: tuple[int, ...]
    content: dict[str, npt.NDArray[np.uint8]]
    segments: Present
    allocators: Mapping[str, Allocator] | None = None

    def after(self, patch: Patch, allocators: Mapping[str, Allocator]) -> _Known | None:
        """The same after a change, which is made to this content as well; None if it must be decoded again.

        What it wrote is decoded, so that the segments are what is there and not what was meant.
        """
        if not patch.fills.keys() | patch.points.keys() <= {"sieve4", "root4", "lists4"}:
            return None
        arrays = {name: _words(view) for name, view in self.content.items()}
        patch.write(arrays, lambda: None)
        changed = np.concatenate([item.index for item in patch.points["root4"]])
        slots = decode4(arrays["root4"], arrays["lists4"], changed)
        if (sieve4(slots) & ~arrays["sieve4"].reshape(-1, 2)[slots.slot].ravel()).any():
            return None
        return _Known(self.ids, self.content, (with_slots(self.segments[0], slots), self.segments[1]), allocators)


class _LastRead:
    """The segments that the tables held when they were last read or changed, for as long as they have that content:
    comparing takes a hundredth of the time of decoding.
    """

    def __init__(self) -> None:
        self.known: _Known | None = None

    def of(self, ids: tuple[int, ...], views: dict[str, npt.NDArray[np.uint8]]) -> Present | None:
        """What the tables with these ids hold; None if they are damaged."""
        known = self.known
        if known and known.ids == ids:
            content = known.content
            if all(map(_are_same, content.values(), (views[name] for name in content))):
                return known.segments
            del content
        self.known = known = None  # before the copy: there is memory for one
        content = {name: view.copy() for name, view in views.items()}  # the tables may change meanwhile
        found = _decoded(content)
        self.known = _Known(ids, content, found) if found else None
        return found

    def take(self, ids: tuple[int, ...], segments: Present) -> _Known | None:
        """What is known of these tables if they hold these segments. It is forgotten: they are about to change."""
        known, self.known = self.known, None
        if known and known.ids == ids and all(map(operator.is_, known.segments, segments)):
            for allocator in (known.allocators or {}).values():
                allocator.release()  # since the last change, every program run that began before it has ended
            return known
        return None


_LAST_READ = _LastRead()


def _decoded(content: Mapping[str, npt.NDArray[np.uint8]]) -> Present | None:
    try:
        segments4 = read4(_words(content["root4"]), _words(content["lists4"]))
        segments6 = read6(
            _words(content["root6"]),
            content["nodes6"].view(NODE6),
            _words(content["buckets6"]),
            _words(content["lists6"]),
        )
    except ValueError:
        return None
    return (segments4, segments6) if holds4(_words(content["sieve4"]), segments4) else None


def _are_same(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> bool:
    return one.nbytes == other.nbytes and not _LIBC.memcmp(one.ctypes.data, other.ctypes.data, one.nbytes)


def build_tables(pins: TablePins, classified: Classified) -> AddressTables:
    """New tables, pinned under ``next/`` until :func:`finish_tables`. After a KernelError nothing is pinned there."""
    discard_next(pins)
    directories.make(pins.next)
    tables = None
    try:
        tables = make_tables(pins.bpf, classified)
        for name, item in tables.maps.items():
            item.pin(pins.next / name)
        with manifests.create_tables(pins.bpf, tables.manifest) as holder:
            holder.pin(pins.next / MANIFEST)
    except BaseException:
        if tables:
            tables.close()
        discard_next(pins)
        raise
    return tables


def make_tables(bpf: BpfConn, classified: Classified) -> AddressTables:
    """New tables, not pinned: they exist as long as they are open or a program uses them."""
    image4, image6 = build4(classified.segments4), build6(classified.segments6)
    contents: dict[str, npt.NDArray[np.generic]] = {
        "sieve4": image4.sieve,
        "root4": image4.root,
        "lists4": image4.lists,
        "root6": image6.root,
        "nodes6": image6.nodes,
        "buckets6": image6.buckets,
        "lists6": image6.lists,
    }
    with ExitStack() as stack:
        maps, views = {}, {}
        for name in TABLES:
            data = np.ascontiguousarray(contents[name]).view(np.uint8).reshape(-1)
            maps[name] = stack.enter_context(_create(bpf, name, len(data)))
            views[name] = _view(maps[name])
            views[name][: len(data)] = data
        manifest = TableManifest(
            tuple(maps[name].id for name in TABLES), _capacity_for(classified), dict(classified.members)
        )
        stack.pop_all()
        return AddressTables(maps, manifest, classified, views)


def settle_tables(pins: TablePins, used: Collection[int]) -> None:
    """Finish or discard the replacement that a killed agent left incomplete. ``used``: the ids of the tables that
    interfaces read.
    """
    manifest = manifests.read_tables(pins.bpf, pins.next / MANIFEST)
    if manifest is not None and manifest.maps[0] in used:
        finish_tables(pins)
    else:
        discard_next(pins)


def finish_tables(pins: TablePins) -> None:
    """Move the tables under ``next/`` to their place, now that interfaces read them. The manifest comes last."""
    for name in TABLE_PINS:
        with suppress(FileNotFoundError):  # moved before the agent was killed
            os.replace(pins.next / name, pins.directory / name)
    pins.next.rmdir()


def discard_next(pins: TablePins) -> None:
    directories.remove_tree(pins.next)


def _capacity_for(classified: Classified) -> int:
    """The number of classes to allocate rows for: twice the present one, so that changes in place can add classes."""
    most = max(classified.members) + 1
    return min(MOST_CLASSES, max(_LEAST_CLASSES, 1 << (2 * most - 1).bit_length()))


def _create(bpf: BpfConn, name: str, size_bytes: int) -> BpfMap:
    """A map for this many bytes. Lists, nodes and buckets get half as much again, and at least a page."""
    if name in ("sieve4", "root4", "root6"):
        return _array(bpf, name, size_bytes, 1)
    size = NODE6.itemsize if name == "nodes6" else TABLE_PAGE_BYTES
    least = 1024 if name == "nodes6" else 1
    return _array(bpf, name, size, max(least, -(-size_bytes * 3 // (2 * size))))


def _array(bpf: BpfConn, name: str, value_size: int, max_entries: int) -> BpfMap:
    return bpf.create_map(
        BPF_MAP_TYPE_ARRAY, name, key_size=4, value_size=value_size, max_entries=max_entries, flags=BPF_F_MMAPABLE
    )


def _view(item: BpfMap) -> npt.NDArray[np.uint8]:
    mapped: mmap.mmap = item.mmap(writable=True)
    return np.frombuffer(mapped, np.uint8, count=item.value_size * item.max_entries)


def _words(view: npt.NDArray[np.uint8]) -> U32:
    return view.view(np.uint32)
