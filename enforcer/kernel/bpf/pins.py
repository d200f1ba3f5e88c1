"""Pins: paths in the BPF file system that keep programs, maps and links in the kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enforcer.kernel.bpf.libbpf import check, libbpf
from enforcer.model.errors import KernelError, PrivilegeError, ran_out


def pin(fd: int, path: Path) -> None:
    """Pin a program, map or link in a mounted BPF file system."""
    check(libbpf().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def open_pinned(path: Path) -> int:
    """A new descriptor of what is pinned. Raises FileNotFoundError if nothing is, PrivilegeError if that is unknown."""
    fd = libbpf().bpf_obj_get(os.fsencode(path))
    if fd < 0:
        raise open_error(path, -fd)
    return int(fd)


def open_error(path: Path, number: int) -> Exception:
    """What the error number means for a pin that could not be opened."""
    if number == errno.EPERM:  # kernel.unprivileged_bpf_disabled, before Linux 6.2
        return PrivilegeError(f"{path}: opening what is pinned needs CAP_BPF; run as root")
    if number == errno.ENOENT or not path.exists():
        return FileNotFoundError(errno.ENOENT, "nothing is pinned", str(path))
    return KernelError(f"open {path}", number=number)


@contextmanager
def no_such_pin() -> Iterator[None]:
    """End the block early if nothing is pinned, or an object of another type.

    KernelError passes through if the process or the host has run out of descriptors or memory, which says nothing
    about the pin.
    """
    try:
        yield
    except FileNotFoundError:
        return
    except KernelError as error:
        if ran_out(error):
            raise
