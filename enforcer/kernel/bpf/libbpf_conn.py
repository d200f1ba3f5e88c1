"""The running kernel as a :class:`~enforcer.kernel.bpf.conn.BpfConn`."""

from __future__ import annotations

from pathlib import Path

from enforcer.kernel.bpf import bpffs, offload, pins, programs, rcu
from enforcer.kernel.bpf.conn import XdpObject
from enforcer.kernel.bpf.links import Link, attach_xdp
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.bpf.programs import ProgramInfo
from enforcer.kernel.bpf.toolchain import open_xdp, program_digest
from enforcer.kernel.rtnetlink import InterfaceState, interfaces
from enforcer.model.vocabulary import Mode, Toolchain


class LibbpfConn:
    """Through libbpf and netlink; keeps nothing open."""

    def interfaces(self) -> list[InterfaceState]:
        return list(interfaces())

    def create_map(
        self, kind: int, name: str, *, key_size: int, value_size: int, max_entries: int, flags: int = 0
    ) -> Map:
        return Map.create(kind, name, key_size=key_size, value_size=value_size, max_entries=max_entries, flags=flags)

    def open_map(self, path: Path) -> Map:
        return Map.open_pinned(path)

    def open_link(self, path: Path) -> Link:
        return Link.open_pinned(path)

    def open_pinned(self, path: Path) -> int:
        return pins.open_pinned(path)

    def pin(self, fd: int, path: Path) -> None:
        pins.pin(fd, path)

    def program_info(self, fd: int) -> ProgramInfo:
        return programs.program_info(fd)

    def program_name(self, program_id: int) -> str | None:
        return programs.program_name(program_id)

    def open_xdp(self, toolchain: Toolchain) -> XdpObject:
        return open_xdp(toolchain)

    def open_offload(self) -> BpfObject:
        return BpfObject(offload.OBJECT)

    def xdp_digest(self, toolchain: Toolchain) -> str:
        return program_digest(toolchain)

    def offload_digest(self) -> str:
        return offload.program_digest()

    def attach_xdp(self, program_fd: int, ifindex: int, mode: Mode) -> Link:
        return attach_xdp(program_fd, ifindex, mode)

    def wait_for_readers(self) -> None:
        rcu.wait_for_readers()

    def is_bpffs(self, path: Path) -> bool:
        return bpffs.is_bpffs(path)

    def ensure_bpffs(self) -> bool:
        return bpffs.ensure_bpffs()


LIBBPF = LibbpfConn()
