"""The connection of the XDP backend to a kernel in memory (:mod:`tests.support.fakes.bpf_kernel`).

A fake of :class:`enforcer.kernel.bpf.libbpf_conn.LibbpfConn` that passes the same contract tests (``tests/contract``).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.kernel.bpf.offload import PROGRAM as OFFLOAD_PROGRAM
from enforcer.kernel.bpf.pins import open_error
from enforcer.kernel.bpf.programs import ProgramInfo
from enforcer.kernel.bpf.toolchain import PROGRAM
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode, Toolchain
from tests.support.fakes.bpf_handles import OpenLink, OpenMap
from tests.support.fakes.bpf_kernel import BpfKernel, FakeProgram
from tests.support.fakes.bpf_objects import OFFLOAD_DECLARED, XDP_DECLARED, FakeObject


@dataclass
class FakeBpf(BpfKernel):
    """``digest``: of the programs that are opened. ``hardware``: by interface number, why its device does not accept a
    program; None if it does. The devices of other interfaces cannot run programs.
    """

    digest: str = "one"
    hardware: dict[int, KernelError | None] = field(default_factory=dict)

    # --- maps ---------------------------------------------------------------------------------------------------------

    def create_map(
        self, kind: int, name: str, *, key_size: int, value_size: int, max_entries: int, flags: int = 0
    ) -> OpenMap:
        fd = self.descriptor(f"create map {name}", lambda: self.add_map(kind, key_size, value_size, max_entries, flags))
        return OpenMap(self, fd)

    def open_map(self, path: Path) -> OpenMap:
        return OpenMap(self, self.open_pinned(path))

    # --- pins ---------------------------------------------------------------------------------------------------------

    def open_pinned(self, path: Path) -> int:
        try:
            return self.descriptor(f"open {self.below(path)}", lambda: self.open(self.at(path)))
        except KernelError as error:
            raise open_error(path, error.errno) from error

    def is_bpffs(self, path: Path) -> bool:
        return self.root in (path, *path.parents)

    def ensure_bpffs(self) -> bool:
        return False

    # --- programs -----------------------------------------------------------------------------------------------------

    def load_pass_program(self) -> int:
        """Replaces :func:`enforcer.kernel.bpf.xdp.load_pass_program`."""
        return self.descriptor("load", lambda: self.add(FakeProgram(self.new_id(), "enforcer_probe")))

    def program_info(self, fd: int) -> ProgramInfo:
        with self.noted("info"):
            found = self.program(fd)
            return ProgramInfo(found.id, found.name)

    def program_name(self, program_id: int) -> str | None:
        with self.noted("program by id"):
            alive = {item.id: item.name for item in self.alive() if isinstance(item, FakeProgram)}
            return alive.get(program_id, "")

    def open_xdp(self, toolchain: Toolchain) -> FakeObject:
        return FakeObject(self, PROGRAM, XDP_DECLARED)

    def open_offload(self) -> FakeObject:
        return FakeObject(self, OFFLOAD_PROGRAM, OFFLOAD_DECLARED)

    def xdp_digest(self, toolchain: Toolchain) -> str:
        return self.digest

    def offload_digest(self) -> str:
        return self.digest

    def check_device(self, ifindex: int, program: str, first_map: str) -> None:
        """Raises libbpf's error for an object that the device of an interface does not accept."""
        if ifindex not in self.hardware:
            reason = f"map '{first_map}': failed to create: Invalid argument(-{errno.EINVAL})"
            raise KernelError(f"load {program}.bpf.o: {reason}", number=errno.EINVAL, log=f"libbpf: {reason}")
        if error := self.hardware[ifindex]:
            raise error

    def wait_for_readers(self) -> None:
        with self.noted("wait for readers"):
            pass

    # --- links --------------------------------------------------------------------------------------------------------

    def attach_xdp(self, program_fd: int, ifindex: int, mode: Mode) -> OpenLink:
        def call() -> int:
            return self.add(self.attach(self.program(program_fd), ifindex, mode))

        return OpenLink(self, self.descriptor("attach", call, changes=True))

    def open_link(self, path: Path) -> OpenLink:
        return OpenLink(self, self.open_pinned(path))
