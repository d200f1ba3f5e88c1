"""The BPF side of the kernel in memory: its objects, the references to them, and their lifetimes.

Descriptors and pins are real files, so that tests detect what is left open or pinned: a descriptor refers to a file
that represents the object (and contains the bytes of an array, which can be mapped), a pin is an empty file, whose
inode tells the object. An object lives while a descriptor, a pin or another living object refers to it. A link without
references attaches nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE
from enforcer.kernel.rtnetlink import InterfaceState, XdpState
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode
from tests.support.fakes.bpf_maps import ARRAY, HASH, PERCPU_ARRAY, FakeMap, Refused
from tests.support.fakes.calls import Calls, Killed

CPUS = 2


@dataclass(eq=False)
class FakeProgram:
    """A program: its constants, and the maps it reads, by name in the program.

    ``device``: the interface for whose hardware it was loaded, 0 for a program of the host.
    """

    id: int
    name: str
    device: int = 0
    constants: dict[str, int] = field(default_factory=dict)
    maps: dict[str, FakeMap] = field(default_factory=dict)


@dataclass(eq=False)
class FakeLink:
    """``ifindex`` is 0 once it is detached."""

    id: int
    program: FakeProgram
    ifindex: int
    mode: Mode


Object = FakeMap | FakeProgram | FakeLink
K = TypeVar("K", bound="BpfKernel")


@dataclass
class BpfKernel:
    """``root`` is a directory of the fake alone; pins are below ``pins``. ``devices``: the interfaces' numbers."""

    root: Path
    devices: dict[str, int] = field(default_factory=lambda: {"eth0": 2, "eth1": 3})
    calls: Calls = field(default_factory=Calls)
    killed: bool = False
    objects: dict[int, Object] = field(default_factory=dict)
    _inodes: dict[tuple[int, int], Object] = field(default_factory=dict)  # by device and inode of its file
    _pinned: dict[int, Object] = field(default_factory=dict)
    _last: int = 0  # the number of the newest object

    def __post_init__(self) -> None:
        self._files.mkdir()

    @cached_property
    def pins(self) -> Path:
        return self.root / "pins"

    @cached_property
    def _files(self) -> Path:
        return self.root / "objects"

    # --- lifetimes ----------------------------------------------------------------------------------------------------

    def pinned(self) -> dict[str, Object]:
        """The pinned objects, by path below the pins."""
        return self.tree()[1]

    def below(self, path: Path) -> str:
        """A path below the root, as calls name it."""
        return str(path).removeprefix(f"{self.root}/")

    def tree(self) -> tuple[list[str], dict[str, Object]]:
        """The directories below the pins, each before those in it, and what is pinned in them."""
        # Strings, because this is called before and after each call of a test.
        folders, found = [""], dict[str, Object]()
        for below in folders:
            with suppress(FileNotFoundError), os.scandir(f"{self.pins}/{below}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{below}{entry.name}/")
                    else:
                        found[below + entry.name] = self._pinned[entry.inode()]
        return folders, found

    def alive(self, *, held: bool = True, pinned: Mapping[str, Object] | None = None) -> set[Object]:
        """All living objects, with or without those that only descriptors refer to; ``pinned``: if known already."""
        found = set((self.pinned() if pinned is None else pinned).values())
        if held:
            for name in os.listdir("/proc/self/fd"):
                with suppress(OSError):  # the descriptor of the listing itself
                    if item := self._inodes.get(_identity(os.fstat(int(name)))):
                        found.add(item)
        found |= {item.program for item in found if isinstance(item, FakeLink)}
        return found.union(*(item.maps.values() for item in found if isinstance(item, FakeProgram)))

    def forget(self) -> None:
        """Close the files of objects that were freed."""
        for item in set(self.objects.values()) - self.alive():
            path = self._file(item.id)
            del self._inodes[_identity(os.stat(path))], self.objects[item.id]
            os.unlink(path)

    def links(self, alive: set[Object] | None = None) -> list[FakeLink]:
        """The links that attach a program to an interface; ``alive``: if known already."""
        found = self.alive() if alive is None else alive
        return sorted((i for i in found if isinstance(i, FakeLink) and i.ifindex), key=lambda link: link.id)

    def interfaces(self, alive: set[Object] | None = None) -> list[InterfaceState]:
        """As netlink reports them."""
        links = self.links(alive)
        return [
            InterfaceState(
                name,
                index,
                1500,
                address=bytes(5) + bytes([index]),
                xdp=tuple(XdpState(link.mode, link.program.id) for link in links if link.ifindex == index),
            )
            for name, index in self.devices.items()
        ]

    def remove_device(self, name: str) -> None:
        index = self.devices.pop(name)
        for link in self.links():
            if link.ifindex == index:
                link.ifindex = 0

    def copy(self: K, root: Path) -> K:
        """Another kernel, whose ``root`` is an empty directory: with the pins of this one and what they keep alive, as
        if the process were killed now.
        """
        fresh = {"objects": {}, "_inodes": {}, "_pinned": {}, "calls": Calls(), "killed": False}
        made = replace(self, root=root, devices=dict(self.devices), **fresh)
        folders, pinned = self.tree()
        if self.pins.is_dir():
            for folder in folders:
                (made.pins / folder).mkdir(mode=0o700)
        for path, item in pinned.items():
            made._place(made._copied(item), made.pins / path)
        return made

    def _copied(self, item: Object) -> Object:
        """The copy of another kernel's object with what it refers to; the same one whenever it is asked for."""
        if item.id in self.objects:
            return self.objects[item.id]
        if isinstance(item, FakeMap):
            copied: Object = item.copy(self._file(item.id))
        elif isinstance(item, FakeProgram):
            maps = {name: cast(FakeMap, self._copied(each)) for name, each in item.maps.items()}
            copied = replace(item, constants=dict(item.constants), maps=maps)
        else:
            copied = replace(item, program=cast(FakeProgram, self._copied(item.program)))
        os.close(self.add(copied))
        return copied

    # --- calls --------------------------------------------------------------------------------------------------------

    @contextmanager
    def noted(self, name: str, *, changes: bool = False) -> Iterator[None]:
        """The block is one call. After the simulated kill of the process, every call raises Killed."""
        if self.killed:
            raise Killed
        try:
            with self.calls.noted(name, changes=changes):
                yield
        except Killed:
            self.killed = True
            raise
        except Refused as refused:
            raise KernelError(name, number=refused.number) from refused

    def descriptor(self, name: str, call: Callable[[], int], *, changes: bool = False) -> int:
        """A call that opens a descriptor: it is closed again if the call then fails."""
        fd = -1
        try:
            with self.noted(name, changes=changes):
                fd = call()
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        return fd

    def _file(self, number: int) -> str:
        return f"{self._files}/{number}"

    def open(self, item: Object) -> int:
        return os.open(self._file(item.id), os.O_RDWR | os.O_CLOEXEC)

    def new_id(self) -> int:
        self._last += 1
        return self._last

    def add(self, item: Object) -> int:
        """A descriptor of a new object, which its file represents from now on."""
        fd = os.open(self._file(item.id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        self.objects[item.id] = item
        self._inodes[_identity(os.fstat(fd))] = item
        return fd

    def add_map(self, kind: int, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> int:
        if not value_size or not max_entries or (kind in (ARRAY, PERCPU_ARRAY) and key_size != 4):
            raise Refused(errno.EINVAL)
        if kind not in (HASH, ARRAY, PERCPU_ARRAY) or (flags & BPF_F_MMAPABLE and kind != ARRAY):
            raise Refused(errno.EINVAL)
        number = self.new_id()
        item = FakeMap(number, kind, key_size, value_size, max_entries, flags, CPUS, self._file(number))
        fd = self.add(item)
        item.begin()
        return fd

    def object(self, fd: int) -> Object:
        """The object of a descriptor."""
        try:
            return self._inodes[_identity(os.fstat(fd))]
        except (OSError, KeyError):
            raise Refused(errno.EBADF) from None

    def map(self, fd: int) -> FakeMap:
        found = self.object(fd)
        if not isinstance(found, FakeMap):
            raise Refused(errno.EINVAL)
        return found

    def program(self, fd: int) -> FakeProgram:
        found = self.object(fd)
        if not isinstance(found, FakeProgram):
            raise Refused(errno.EINVAL)
        return found

    def link(self, fd: int) -> FakeLink:
        found = self.object(fd)
        if not isinstance(found, FakeLink):
            raise Refused(errno.EINVAL)
        return found

    # --- operations of the handles ------------------------------------------------------------------------------------

    def pin(self, fd: int, path: Path) -> None:
        """kernel/bpf/inode.c"""
        with self.noted(f"pin {self.below(path)}", changes=True):
            item = self.object(fd)
            if not path.parent.is_dir():
                raise Refused(errno.ENOENT)
            if path.exists():
                raise Refused(errno.EEXIST)
            if "." in path.name:  # bpf_lookup
                raise Refused(errno.EPERM)
            self._place(item, path)

    def _place(self, item: Object, path: Path) -> None:
        with open(path, "x") as file:
            self._pinned[os.fstat(file.fileno()).st_ino] = item

    def at(self, path: Path) -> Object:
        """The object that is pinned there."""
        try:
            found = os.stat(path)
        except OSError as error:
            raise Refused(error.errno or errno.EIO) from None
        if stat.S_ISDIR(found.st_mode):
            raise Refused(errno.EACCES)
        return self._pinned[found.st_ino]

    def attach(self, program: FakeProgram, ifindex: int, mode: Mode) -> FakeLink:
        """net/core/dev.c, bpf_xdp_link_attach and dev_xdp_attach."""
        if ifindex not in self.devices.values():
            raise Refused(errno.EINVAL)
        attached = {link.mode for link in self.links() if link.ifindex == ifindex}
        if mode in attached:
            raise Refused(errno.EBUSY)
        if mode is not Mode.OFFLOAD and attached - {Mode.OFFLOAD}:
            raise Refused(errno.EEXIST)
        if program.device != (ifindex if mode is Mode.OFFLOAD else 0):
            raise Refused(errno.EINVAL)
        return FakeLink(self.new_id(), program, ifindex, mode)

    def point(self, link: FakeLink, program: FakeProgram) -> None:
        """Replace the program of a link: net/core/dev.c, bpf_xdp_link_update."""
        if not link.ifindex:
            raise Refused(errno.ENOLINK)
        link.program = program


def _identity(found: os.stat_result) -> tuple[int, int]:
    """The inode alone may be that of a pipe, or of a file elsewhere."""
    return found.st_dev, found.st_ino
