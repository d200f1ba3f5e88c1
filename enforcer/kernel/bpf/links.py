"""BPF links: attachments that exist while a descriptor is open or they are pinned."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from enforcer.kernel.bpf.libbpf import LinkCreateOptions, check, libbpf
from enforcer.kernel.bpf.pins import open_pinned, pin
from enforcer.kernel.bpf.programs import BPF_XDP, info_by_fd
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Mode

XDP_FLAGS = {Mode.GENERIC: 1 << 1, Mode.NATIVE: 1 << 2, Mode.OFFLOAD: 1 << 3}  # linux/if_link.h

_BPF_LINK_CREATE = 28
_BPF_NETFILTER = 45
_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class LinkInfo:
    """``ifindex``: 0 if the link's interface no longer exists, and for links other than XDP."""

    id: int
    type: int
    prog_id: int
    ifindex: int


class Link:
    """An attachment. It exists while a descriptor is open or it is pinned. Deleting a Link closes its descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def open_pinned(cls, path: Path) -> Link:
        return cls(open_pinned(path))

    def pin(self, path: Path) -> None:
        pin(self.fd, path)

    def close(self) -> None:
        """Close the descriptor. This detaches unless the link is pinned."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

    def info(self) -> LinkInfo:
        """``struct bpf_link_info``: type, id and program id, then for XDP the interface."""
        raw = info_by_fd(self.fd, 64)
        kind, number, prog_id = struct.unpack_from("=III", raw)
        (ifindex,) = struct.unpack_from("=I", raw, 16)
        return LinkInfo(number, kind, prog_id, ifindex)

    def update(self, program_fd: int) -> None:
        """Swap the program of the link atomically."""
        check(libbpf().bpf_link_update(self.fd, program_fd, None), "update link")

    def detach(self) -> None:
        """Detach now, pinned or not."""
        check(libbpf().bpf_link_detach(self.fd), "detach link")


def attach_xdp(program_fd: int, ifindex: int, mode: Mode) -> Link:
    """Attach through a BPF link (Linux 5.9), which other tools cannot replace. Raises KernelError."""
    options = LinkCreateOptions(sz=ctypes.sizeof(LinkCreateOptions), flags=XDP_FLAGS[mode])
    fd = libbpf().bpf_link_create(program_fd, ifindex, BPF_XDP, ctypes.byref(options))
    if fd < 0:
        raise KernelError(f"attach XDP in {mode} mode", number=-fd)
    return Link(fd)


def attach_netfilter(program_fd: int, *, family: int, hook: int, priority: int, flags: int = 0) -> Link:
    """Attach a netfilter program in the current network namespace (Linux 6.4).

    Calls bpf(2) directly: libbpf supports it since 1.3, and Debian 12 has 1.1.
    """
    # union bpf_attr, link_create: prog_fd, target_fd, attach_type, flags, netfilter {pf, hooknum, priority, flags}
    request = struct.pack("=IIIIIIiI", program_fd, 0, _BPF_NETFILTER, 0, family, hook, priority, flags)
    what = f"netfilter link at hook {hook}, priority {priority}"
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        raise KernelError(f"{what}: the number of bpf(2) on {platform.machine()} is not known here")
    attributes = ctypes.create_string_buffer(request.ljust(64, b"\0"), 64)
    fd = _libc.syscall(number, _BPF_LINK_CREATE, attributes, len(attributes))
    if fd < 0:
        raise KernelError(what, number=ctypes.get_errno())
    return Link(int(fd))
