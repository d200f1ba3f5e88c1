"""The BPF file system, which contains the pins of everything that must outlive the process."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from enforcer.model.errors import KernelError, PrivilegeError

MOUNT_POINT = Path("/sys/fs/bpf")
PIN_ROOT = MOUNT_POINT / "enforcer"

_BPF_FS_MAGIC = 0xCAFE4A11  # linux/magic.h
_libc = ctypes.CDLL(None, use_errno=True)


def ensure_bpffs(mount_point: Path = MOUNT_POINT) -> bool:
    """Mount the BPF file system unless it is mounted. True if it was mounted now, which users are told.

    Raises PrivilegeError or KernelError if it cannot be mounted.
    """
    if is_bpffs(mount_point):
        return False
    if _libc.mount(b"bpf", os.fsencode(mount_point), b"bpf", 0, b"mode=0700"):
        number = ctypes.get_errno()
        if number == errno.EPERM:
            raise PrivilegeError(
                f"there is no BPF file system on {mount_point}, and mounting it needs CAP_SYS_ADMIN: "
                f"'mount -t bpf bpf {mount_point}' on the host, as systemd does at boot"
            )
        raise KernelError(f"mount the BPF file system on {mount_point}", number=number)
    return True


def is_bpffs(path: Path) -> bool:
    """Whether the path is on a BPF file system."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs begins with the type, a long
    if _libc.statfs(os.fsencode(path), buffer):
        return False
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF == _BPF_FS_MAGIC
