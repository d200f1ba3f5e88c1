"""The BPF side of the kernel in memory: maps, programs, links and pins, behind the functions of libbpf that we call.

A fake of the library of :mod:`enforcer.kernel.bpf.libbpf` that passes the same contract tests (``tests/contract``).
What a process can hold is real, so that what is left open or pinned shows: a descriptor is one of a file that stands
for the object (and holds the bytes of an array, which can be mapped), a pin is a small file with the object's number.
An object lives while a descriptor, a pin or another object that lives refers to it. A link that does not, holds
nothing to an interface.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from enforcer.kernel.bpf.links import XDP_FLAGS
from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE
from enforcer.kernel.rtnetlink import InterfaceState, XdpState
from enforcer.model.errors import KernelError
from tests.support.fakes.bpf_maps import ARRAY, HASH, PERCPU_ARRAY, FakeMap, Refused
from tests.support.fakes.calls import Calls, Killed

CPUS = 2
_XDP_LINK = 6  # enum bpf_link_type


@dataclass(eq=False)
class FakeProgram:
    """A program: its constants, and the maps it reads, by the names it has for them."""

    id: int
    name: str
    constants: dict[str, int] = field(default_factory=dict)
    maps: dict[str, FakeMap] = field(default_factory=dict)


@dataclass(eq=False)
class FakeLink:
    """``ifindex`` is 0 once it is detached."""

    id: int
    program: FakeProgram
    ifindex: int
    flags: int


Object = FakeMap | FakeProgram | FakeLink


@dataclass
class FakeBpf:
    """``root`` is a directory for the fake alone; pins are below ``pins``. ``devices``: the interfaces' numbers."""

    root: Path
    devices: dict[str, int] = field(default_factory=lambda: {"eth0": 2, "eth1": 3})
    calls: Calls = field(default_factory=Calls)
    killed: bool = False
    _objects: dict[int, Object] = field(default_factory=dict)
    _inodes: dict[int, Object] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self._files.mkdir()

    @property
    def pins(self) -> Path:
        return self.root / "pins"

    @property
    def _files(self) -> Path:
        return self.root / "objects"

    # --- who lives ----------------------------------------------------------------------------------------------------

    def pinned(self) -> dict[str, Object]:
        """What is pinned, by its path below the pins."""
        files = (path for path in sorted(self.pins.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.pins)): self._objects[int(path.read_text())] for path in files}

    def alive(self, *, held: bool = True) -> set[Object]:
        """All objects that the kernel has; those that are only held by descriptors as well, or not."""
        todo: list[Object] = list(self.pinned().values())
        if held:
            for name in os.listdir("/proc/self/fd"):
                with suppress(OSError):
                    todo += filter(None, [self._inodes.get(os.stat(f"/proc/self/fd/{name}").st_ino)])
        found: set[Object] = set()
        while todo:
            item = todo.pop()
            if item not in found:
                found.add(item)
                todo += [item.program] if isinstance(item, FakeLink) else []
                todo += item.maps.values() if isinstance(item, FakeProgram) else []
        return found

    def forget(self) -> None:
        """Give back the files of objects that are gone."""
        for item in set(self._objects.values()) - self.alive():
            path = self._file(item.id)
            del self._inodes[path.stat().st_ino], self._objects[item.id]
            path.unlink()

    def links(self) -> list[FakeLink]:
        """Those that hold a program to an interface."""
        return sorted((i for i in self.alive() if isinstance(i, FakeLink) and i.ifindex), key=lambda link: link.id)

    def interfaces(self) -> list[InterfaceState]:
        """As netlink tells them."""
        modes = {flags: mode for mode, flags in XDP_FLAGS.items()}
        links = self.links()
        return [
            InterfaceState(
                name,
                index,
                1500,
                address=bytes(5) + bytes([index]),
                xdp=tuple(XdpState(modes[link.flags], link.program.id) for link in links if link.ifindex == index),
            )
            for name, index in self.devices.items()
        ]

    def remove_device(self, name: str) -> None:
        index = self.devices.pop(name)
        for link in self.links():
            if link.ifindex == index:
                link.ifindex = 0

    # --- calls --------------------------------------------------------------------------------------------------------

    @contextmanager
    def noted(self, name: str, *, changes: bool = False) -> Iterator[None]:
        """A call takes place inside the block. To a process that was killed nothing happens any more."""
        if self.killed:
            raise Killed
        try:
            with self.calls.noted(name, changes=changes):
                yield
        except Killed:
            self.killed = True
            raise
        except KernelError as error:
            raise Refused(error.errno) from error

    def _answer(self, name: str, call: Any, *, changes: bool = False) -> int:
        """What a function of libbpf returns: a descriptor or 0, or the negative error number."""
        result = 0
        try:
            with self.noted(name, changes=changes):
                result = call() or 0
        except Refused as refused:
            if result:
                os.close(result)
            ctypes.set_errno(refused.number)
            return -refused.number
        except Killed:
            if result:
                os.close(result)
            raise
        return int(result)

    def _file(self, number: int) -> Path:
        return self._files / str(number)

    def _open(self, item: Object) -> int:
        return os.open(self._file(item.id), os.O_RDWR | os.O_CLOEXEC)

    def new_id(self) -> int:
        return next(self._numbers)

    def add(self, item: Object) -> int:
        """A descriptor of a new object."""
        self._file(item.id).touch()
        self._objects[item.id] = item
        self._inodes[self._file(item.id).stat().st_ino] = item
        return self._open(item)

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
        """What a descriptor is of."""
        try:
            return self._inodes[os.fstat(fd).st_ino]
        except (OSError, KeyError):
            raise Refused(errno.EBADF) from None

    def map(self, fd: int) -> FakeMap:
        found = self.object(fd)
        if not isinstance(found, FakeMap):
            raise Refused(errno.EINVAL)
        return found

    def _program(self, fd: int) -> FakeProgram:
        found = self.object(fd)
        if not isinstance(found, FakeProgram):
            raise Refused(errno.EINVAL)
        return found

    def _link(self, fd: int) -> FakeLink:
        found = self.object(fd)
        if not isinstance(found, FakeLink):
            raise Refused(errno.EINVAL)
        return found

    # --- libbpf: maps -------------------------------------------------------------------------------------------------

    def libbpf_num_possible_cpus(self) -> int:
        return CPUS

    def bpf_map_create(
        self, kind: int, name: bytes, key_size: int, value_size: int, max_entries: int, options: Any
    ) -> int:
        flags = options._obj.map_flags if options else 0
        return self._answer(
            f"create map {name.decode()}", lambda: self.add_map(kind, key_size, value_size, max_entries, flags)
        )

    def bpf_map_lookup_elem(self, fd: int, key: bytes, buffer: Any) -> int:
        def call() -> None:
            value = self.map(fd).lookup(key)
            ctypes.memmove(buffer, value, len(value))

        return self._answer("look up", call)

    def bpf_map_update_elem(self, fd: int, key: bytes, value: bytes, flags: int) -> int:
        return self._answer("update", lambda: self.map(fd).update(key, value, flags), changes=True)

    def bpf_map_delete_elem(self, fd: int, key: bytes) -> int:
        return self._answer("delete", lambda: self.map(fd).delete(key), changes=True)

    def bpf_map_get_next_key(self, fd: int, key: bytes | None, buffer: Any) -> int:
        def call() -> None:
            found = self.map(fd).next_key(key)
            ctypes.memmove(buffer, found, len(found))

        return self._answer("next key", call)

    def bpf_map_update_batch(self, fd: int, keys: bytes, values: bytes, number: Any, _: Any) -> int:
        def call() -> None:
            target, wanted, number._obj.value = self.map(fd), number._obj.value, 0
            for at in range(wanted):
                target.update(
                    keys[at * target.key_size : (at + 1) * target.key_size],
                    values[at * target.value_size : (at + 1) * target.value_size],
                    0,
                )
                number._obj.value += 1

        return self._answer("update batch", call, changes=True)

    def bpf_map_delete_batch(self, fd: int, keys: bytes, number: Any, _: Any) -> int:
        def call() -> None:
            target, wanted, number._obj.value = self.map(fd), number._obj.value, 0
            for at in range(wanted):
                target.delete(keys[at * target.key_size : (at + 1) * target.key_size])
                number._obj.value += 1

        return self._answer("delete batch", call, changes=True)

    def bpf_map_lookup_batch(
        self, fd: int, start: Any, cursor: Any, keys: Any, values: Any, number: Any, _: Any
    ) -> int:
        def call() -> None:
            target, room = self.map(fd), number._obj.value
            begin = struct.unpack_from("=I", start.raw)[0] if start is not None else 0
            found = target.items()[begin : begin + room]
            ctypes.memmove(keys, b"".join(key for key, _ in found), target.key_size * len(found))
            ctypes.memmove(values, b"".join(value for _, value in found), target.value_size * len(found))
            struct.pack_into("=I", cursor, 0, begin + len(found))
            number._obj.value = len(found)
            if len(found) < room:
                raise Refused(errno.ENOENT)

        return self._answer("look up batch", call)

    # --- libbpf: pins, information ------------------------------------------------------------------------------------

    def bpf_obj_pin(self, fd: int, name: bytes) -> int:
        path = Path(os.fsdecode(name))

        def call() -> None:
            item = self.object(fd)
            if not path.parent.is_dir():
                raise Refused(errno.ENOENT)
            if path.exists():
                raise Refused(errno.EEXIST)
            if "." in path.name:  # kernel/bpf/inode.c, bpf_lookup
                raise Refused(errno.EPERM)
            path.write_text(str(item.id))

        return self._answer(f"pin {path.relative_to(self.root)}", call, changes=True)

    def bpf_obj_get(self, name: bytes) -> int:
        path = Path(os.fsdecode(name))

        def call() -> int:
            if not path.exists():
                raise Refused(errno.ENOENT)
            if path.is_dir():
                raise Refused(errno.EACCES)
            return self._open(self._objects[int(path.read_text())])

        return self._answer(f"open {path.relative_to(self.root)}", call)

    def bpf_obj_get_info_by_fd(self, fd: int, buffer: Any, _: Any) -> int:
        def call() -> None:
            info = _info(self.object(fd))
            ctypes.memmove(buffer, info, min(len(info), len(buffer)))

        return self._answer("info", call)

    # --- libbpf: programs, links --------------------------------------------------------------------------------------

    def bpf_prog_load(self, kind: int, name: bytes, *_: Any) -> int:
        return self._answer("load", lambda: self.add(FakeProgram(self.new_id(), name.decode())))

    def bpf_prog_get_fd_by_id(self, number: int) -> int:
        def call() -> int:
            for item in self.alive():
                if isinstance(item, FakeProgram) and item.id == number:
                    return self._open(item)
            raise Refused(errno.ENOENT)

        return self._answer("program by id", call)

    def bpf_link_create(self, program: int, ifindex: int, kind: int, options: Any) -> int:
        """net/core/dev.c, bpf_xdp_link_attach and dev_xdp_attach."""

        def call() -> int:
            flags = options._obj.flags
            held, found = self._program(program), [link for link in self.links() if link.ifindex == ifindex]
            if ifindex not in self.devices.values():
                raise Refused(errno.EINVAL)
            if found:
                raise Refused(errno.EBUSY if found[0].flags == flags else errno.EEXIST)
            return self.add(FakeLink(self.new_id(), held, ifindex, flags))

        return self._answer("attach", call, changes=True)

    def bpf_link_update(self, fd: int, program: int, _: Any) -> int:
        def call() -> None:
            link, then = self._link(fd), self._program(program)
            if not link.ifindex:
                raise Refused(errno.ENOLINK)
            link.program = then

        return self._answer("update link", call, changes=True)

    def bpf_link_detach(self, fd: int) -> int:
        def call() -> None:
            self._link(fd).ifindex = 0

        return self._answer("detach", call, changes=True)


def _info(item: Object) -> bytes:
    """struct bpf_map_info, bpf_prog_info, bpf_link_info, as far as they are read."""
    if isinstance(item, FakeMap):
        return struct.pack("=6I", item.type, item.id, item.key_size, item.value_size, item.max_entries, item.flags)
    if isinstance(item, FakeProgram):
        return struct.pack("=II56x16s", 6, item.id, item.name.encode()[:15])
    return struct.pack("=IIIxxxxI", _XDP_LINK, item.id, item.program.id, item.ifindex)
