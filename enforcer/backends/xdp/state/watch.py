"""Polls our XDP programs, cheaply enough for once a second, and restores removed pins.

Everything that is pinned is also held open. So if another program removes the pin of a link, the link stays attached
and is pinned again; the same holds for programs and maps. Without the open descriptor, the kernel would detach with the
last reference. A link that was updated to another program is updated back, because the next pass could not distinguish
that program from a foreign one. Other changes (a detached link, a modified map) are reported and left to the next pass.
"""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from enforcer.backends.base import Loss
from enforcer.backends.xdp.state.layout import MANIFEST, MAPS, PROGRAM, TABLES, Pins, TablePins, generation
from enforcer.backends.xdp.state.read import read_all
from enforcer.kernel.bpf.bpffs import MOUNT_POINT
from enforcer.kernel.bpf.conn import BpfConn, BpfLink, BpfMap
from enforcer.kernel.bpf.links import LinkInfo
from enforcer.kernel.bpf.pins import no_such_pin
from enforcer.kernel.netns import current_inode
from enforcer.kernel.pace import Pace

_COUNTERS = "counters"  # the program itself writes them
_TICK_NS = 100_000_000  # longer than any tick of the kernel's clock
_DESCRIPTORS = 16  # an upper bound of the pins of one interface
_SHARE = 1 / 20_000  # of one CPU, to compare the contents of maps
_LIBC = ctypes.CDLL(None)
_LIBC.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]


@dataclass
class _Content:
    """A map and its content after the last pass. Address tables are mapped into memory, others are read."""

    held: BpfMap
    view: npt.NDArray[np.uint8] | None
    then: bytes
    at: int = 0  # where ``view`` is in memory

    @classmethod
    def of(cls, held: BpfMap, *, mapped: bool) -> _Content:
        if not mapped:
            return cls(held, None, held.image())
        view = np.frombuffer(held.mmap(), np.uint8, count=held.value_size * held.max_entries)
        return cls(held, view, view.tobytes(), view.ctypes.data)

    def is_same(self) -> bool:
        if self.view is None:
            return self.held.image() == self.then
        return not _LIBC.memcmp(self.at, self.then, len(self.then))


@dataclass
class _Pinned:
    """A directory of pins: a descriptor for each, and the contents of its maps."""

    what: str
    pins: Pins | TablePins
    descriptors: dict[str, int] = field(default_factory=dict)
    contents: dict[str, _Content] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)
    complete: tuple[int, ...] | None = None  # the directory's identity and time when nothing was missing in it

    def hold(self, names: Iterable[str]) -> None:
        """Open what is pinned under these names, if anything is."""
        for name in names:
            with no_such_pin():
                self.descriptors[name] = self.pins.bpf.open_pinned(self.pins.directory / name)
                self.stack.callback(os.close, self.descriptors[name])

    def hold_contents(self, names: Iterable[str], *, mapped: bool = False) -> None:
        """Open the maps pinned under these names, and record their contents."""
        for name in names:
            with no_such_pin():
                held = self.stack.enter_context(self.pins.bpf.open_map(self.pins.directory / name))
                self.descriptors[name] = held.fd
                self.contents[name] = _Content.of(held, mapped=mapped)

    def pin_again(self) -> Iterator[str]:
        """Restore removed pins, and report them."""
        now = _directory(self.pins.directory)
        if now is not None and now == self.complete:
            return
        try:
            present = os.listdir(self.pins.directory)
        except (FileNotFoundError, NotADirectoryError):
            present = []
        lost = [name for name in self.descriptors if name not in present]
        if not lost:
            # Changes within one tick of the clock have one time, so a time counts only when it has passed.
            self.complete = now if now and now[-1] + _TICK_NS < time.time_ns() else None
            return
        if MOUNT_POINT in self.pins.directory.parents and not self.pins.bpf.is_bpffs(MOUNT_POINT):
            self.pins.bpf.ensure_bpffs()
        self.pins.directory.mkdir(parents=True, exist_ok=True)
        for name in lost:
            self.pins.bpf.pin(self.descriptors[name], self.pins.directory / name)
        yield f"{self.what}: pins removed: {', '.join(lost)}; pinned again, nothing was detached"

    def written(self) -> Iterator[str]:
        """Report maps whose content has changed."""
        changed = [name for name, content in self.contents.items() if not content.is_same()]
        if changed:
            yield f"{self.what}: maps were written to: {', '.join(changed)}"

    def close(self) -> None:
        self.contents.clear()
        self.stack.close()


@dataclass
class _Attached:
    """One interface's link as it was after the last pass."""

    interface: str
    link: BpfLink
    then: LinkInfo
    pinned: _Pinned
    is_attached: bool = True  # when it was last looked at

    def kept(self) -> Iterator[str]:
        """Restore removed pins if the link is unchanged, and report them. (Detaching is up to a pass.)"""
        if self.link.info() == self.then:
            yield from self.pinned.pin_again()

    def losses(self) -> Iterator[str]:
        now = self.link.info()
        self.is_attached = now.ifindex == self.then.ifindex
        if not self.is_attached:
            yield f"{self.interface}: the XDP program was detached (BPF link {now.id})"
        elif now.prog_id != self.then.prog_id:
            yield f"{self.interface}: BPF link {now.id} was pointed at another XDP program, id {now.prog_id}"
            self.link.update(self.pinned.descriptors[PROGRAM])
        else:
            yield from self.pinned.pin_again()

    def close(self) -> None:
        self.pinned.close()


class XdpWatch:
    """Watches our XDP programs in the network namespace in which it is used. The caller closes it.

    It watches from the start, whatever the plan: what an earlier agent left attached stays until a pass removes it.
    """

    def __init__(self, bpf: BpfConn, pin_root: Path) -> None:
        self._bpf, self._pin_root = bpf, pin_root
        self._attached: list[_Attached] = []
        self._tables: _Pinned | None = None
        self._pace = Pace(_SHARE)
        self._turn = 0  # rotates which contents are compared next

    def fileno(self) -> int:
        return -1  # the kernel sends no notifications

    def begin(self) -> bool:
        return False

    def pause(self) -> None:
        """Does nothing: without pins, polling is free."""

    def close(self) -> None:
        for item in self._attached:
            item.close()
        if self._tables:
            self._tables.close()
        self._attached, self._tables = [], None

    def remember(self) -> list[Loss]:
        """Record the present state as the desired one. If an attached program lost its pins during the pass, they are
        restored and reported as in :meth:`losses`.
        """
        kept = [loss for item in self._attached for loss in item.kept()]
        if kept and self._tables:
            kept += self._tables.pin_again()
        self._look_around()
        return list(map(Loss, kept))

    def _look_around(self) -> None:
        here = current_inode()
        attached: list[_Attached] = []
        tables: _Pinned | None = None
        try:
            for pins, installed in read_all(self._bpf, self._pin_root):
                if installed.is_attached and installed.manifest.namespace == here and len(attached) < _most():
                    with no_such_pin():
                        attached.append(_attached(pins, generation(installed.mode)))
            tables = _tables(TablePins.of(self._bpf, self._pin_root, here)) if attached else None
        except BaseException:
            for item in attached:
                item.close()
            raise
        self.close()  # only now, when the new descriptors are open
        self._attached, self._tables = attached, tables

    def losses(self, *, thorough: bool = False) -> list[Loss]:
        """Each change to our state. Raises KernelError, OSError.

        ``thorough``: compare all maps now, not only those whose turn it is.
        """
        found = [loss for item in self._attached for loss in item.losses()]
        if self._tables and any(item.is_attached for item in self._attached):
            found += self._tables.pin_again()
        return list(map(Loss, (*found, *self._written(thorough=thorough))))

    def _written(self, *, thorough: bool) -> Iterator[str]:
        """Compare as many maps as the CPU share permits now, in turns."""
        pinned = [item.pinned for item in self._attached if item.is_attached]
        if pinned and self._tables:
            pinned.append(self._tables)
        for _ in pinned:
            if not self._pace.is_due() and not thorough:
                return
            self._turn += 1
            with self._pace.measured():
                changed = list(pinned[self._turn % len(pinned)].written())
            yield from changed


def _directory(path: Path) -> tuple[int, ...] | None:
    """What differs after a pin was added there or removed."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _attached(pins: Pins, names: Sequence[str]) -> _Attached:
    pinned = _Pinned(f"{pins.interface}: XDP", pins)
    try:
        link = pinned.stack.enter_context(pins.bpf.open_link(pins.link))
        pinned.descriptors[pins.link.name] = link.fd
        read = [name for name in names if name in MAPS and name != _COUNTERS]
        pinned.hold_contents(read)
        pinned.hold(name for name in names if name not in read)
        return _Attached(pins.interface, link, link.info(), pinned)
    except BaseException:
        pinned.close()
        raise


def _tables(pins: TablePins) -> _Pinned:
    pinned = _Pinned("XDP address tables", pins)
    try:
        pinned.hold_contents(TABLES, mapped=True)
        pinned.hold([MANIFEST])
    except BaseException:
        pinned.close()
        raise
    return pinned


def _most() -> int:
    """The number of interfaces to hold open: they may use half of the descriptors of this process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 // _DESCRIPTORS
