"""The XDP program of untracked policy from either toolchain, with one source, the same maps and the same interface.

libbpf loads an object that clang compiled ahead of time: from Linux 6.2 on, one that checks the interface before it
drops (bpf/include/device.h); before that, one that reads no kernel structure. bcc compiles the source on the host,
always without that check.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from enforcer.kernel.bpf.conn import XdpObject
from enforcer.kernel.bpf.objects import BpfObject
from enforcer.kernel.device import can_look
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Toolchain

_FILES = Path(__file__).parents[2] / "_bpf"
OBJECT = _FILES / "xdp_untracked.bpf.o"
WATCHING = _FILES / "xdp_watching.bpf.o"
SOURCE = _FILES / "source" / "xdp_untracked.bpf.c"
PROGRAM = "xdp_untracked"


def open_xdp(toolchain: Toolchain = Toolchain.LIBBPF) -> XdpObject:
    """Open the program without loading it. The caller closes it."""
    if toolchain is not Toolchain.BCC:
        return BpfObject(prebuilt())
    from enforcer.kernel.bpf.bcc_object import BccObject  # starts a process: few hosts need it

    return BccObject(SOURCE, PROGRAM)


def prebuilt() -> Path:
    """The object that was compiled ahead of time for this kernel."""
    return WATCHING if can_look() else OBJECT


def require(toolchain: Toolchain) -> None:
    """Raises HostError, with what to install, if this host lacks what the toolchain needs."""
    if toolchain is Toolchain.BCC:
        from enforcer.kernel.bpf.bcc_compile import require_bcc

        require_bcc()


def program_digest(toolchain: Toolchain = Toolchain.LIBBPF) -> str:
    """A digest of what the program is built from. If it changes, the program is replaced."""
    if toolchain is Toolchain.LIBBPF:
        return digest(prebuilt())
    return f"{toolchain} {digest(SOURCE, *sorted((SOURCE.parent / 'include').glob('*.h')))}"


@cache
def digest(*files: Path) -> str:
    """Of files of the package. KernelError when one was not built."""
    try:
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    except FileNotFoundError as error:
        raise KernelError(f"{error.filename}: not there; 'make -C bpf' builds it (needs clang)") from error
