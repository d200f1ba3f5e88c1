"""What the XDP backend needs of the kernel: maps, programs, links and their pins, and the interfaces.

:class:`BpfConn` is that interface. :class:`~enforcer.kernel.bpf.libbpf_conn.LibbpfConn` implements it, and so does the
fake of the unit tests, which passes the same contract tests. Maps and links are handles that own a descriptor; programs
are descriptors. Pins are files, which the backend moves and removes itself.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from enforcer.kernel.bpf.links import LinkInfo
from enforcer.kernel.bpf.objects import Program
from enforcer.kernel.bpf.programs import ProgramInfo
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.model.vocabulary import Mode, Toolchain

T = TypeVar("T")


class Handle(Protocol):
    """Owns a descriptor like a file object; what is pinned or attached stays when it is closed."""

    fd: int

    def __enter__(self: T) -> T: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None: ...

    def pin(self, path: Path) -> None: ...


class BpfMap(Handle, Protocol):
    """A map. :class:`~enforcer.kernel.bpf.maps.Map` documents the methods."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int

    def lookup(self, key: bytes) -> bytes | None: ...

    def lookup_percpu(self, key: bytes) -> list[bytes]: ...

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None: ...

    def update_batch(self, keys: bytes, values: bytes, count: int) -> None: ...

    def delete(self, key: bytes) -> bool: ...

    def delete_batch(self, keys: bytes, count: int) -> None: ...

    def keys(self) -> Iterator[bytes]: ...

    def items(self) -> Iterator[tuple[bytes, bytes]]: ...

    def values(self) -> bytes: ...

    def image(self) -> bytes: ...

    def mmap(self, *, writable: bool = False) -> mmap.mmap: ...


class BpfLink(Handle, Protocol):
    """A link. :class:`~enforcer.kernel.bpf.links.Link` documents the methods."""

    def info(self) -> LinkInfo: ...

    def update(self, program_fd: int) -> None: ...

    def detach(self) -> None: ...


class XdpObject(Protocol):
    """A compiled program, from either toolchain. :class:`~enforcer.kernel.bpf.objects.BpfObject` documents the methods.

    Settings, sizes and shared maps must be set before ``load``. Every setting of the source must be set, because bcc
    compiles them in.
    """

    def __enter__(self) -> XdpObject: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None: ...

    def set_const(self, name: str, value: int) -> None: ...

    def resize_map(self, name: str, max_entries: int) -> None: ...

    def reuse_map(self, name: str, fd: int) -> None: ...

    def set_program_flags(self, name: str, flags: int) -> None: ...

    def load(self) -> None: ...

    def program(self, name: str) -> Program: ...

    def map(self, name: str) -> BpfMap: ...


class OffloadObject(XdpObject, Protocol):
    """One that may be for the hardware of an interface."""

    def bind_to_device(self, name: str, ifindex: int) -> None: ...


class BpfConn(Protocol):
    """Acts in the network namespace of the calling thread. All raise KernelError when the kernel refuses."""

    def interfaces(self) -> list[InterfaceState]:
        """The interfaces, with the XDP programs that are attached to each."""

    def create_map(
        self, kind: int, name: str, *, key_size: int, value_size: int, max_entries: int, flags: int = 0
    ) -> BpfMap:
        """A new map of a type (``enum bpf_map_type``)."""

    def open_map(self, path: Path) -> BpfMap:
        """The map pinned there. FileNotFoundError when nothing is, PrivilegeError if it cannot be read."""

    def open_link(self, path: Path) -> BpfLink:
        """The link pinned there, as :meth:`open_map`."""

    def open_pinned(self, path: Path) -> int:
        """A new descriptor of whatever is pinned there, as :meth:`open_map`."""

    def pin(self, fd: int, path: Path) -> None:
        """Pin a map, program or link."""

    def program_info(self, fd: int) -> ProgramInfo: ...

    def program_name(self, program_id: int) -> str | None:
        """The name of a loaded program, "" when it is gone; None without the privilege to read it."""

    def open_xdp(self, toolchain: Toolchain) -> XdpObject:
        """The program of untracked policy, not loaded yet. The caller closes it."""

    def open_offload(self) -> OffloadObject:
        """The program for the hardware of an interface, not loaded yet. The caller closes it."""

    def xdp_digest(self, toolchain: Toolchain) -> str:
        """What :meth:`open_xdp` opens: a different digest is a different program."""

    def offload_digest(self) -> str:
        """The same of :meth:`open_offload`."""

    def attach_xdp(self, program_fd: int, ifindex: int, mode: Mode) -> BpfLink:
        """Attach a program through a new link, which holds it while it is open or pinned."""

    def wait_for_readers(self) -> None:
        """Return when no program runs any more that began before the call."""

    def is_bpffs(self, path: Path) -> bool:
        """Whether the path is on a BPF file system."""

    def ensure_bpffs(self) -> bool:
        """Mount one at the usual place, unless it is there; True when it was mounted just now."""
