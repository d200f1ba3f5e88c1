"""Enters another network namespace with the calling thread, and always returns."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enforcer.model.errors import KernelError

_CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def entered(namespace: Path | str) -> Iterator[None]:
    """Run the block in ``namespace`` (a file such as /run/netns/NAME), then return to the thread's own namespace.

    Raises FileNotFoundError if there is no such namespace, KernelError if the kernel refuses. If the thread cannot
    return, the process ends, because everything it does next would affect the wrong network.
    """
    own = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(target, str(namespace))
        finally:
            os.close(target)
        try:
            yield
        finally:
            _go_back(own)
    finally:
        os.close(own)


def unshare() -> None:
    """Move the calling thread into a new network namespace, for good: of use in a thread of its own.

    Raises KernelError if the kernel refuses.
    """
    if _libc.unshare(_CLONE_NEWNET):
        raise KernelError("creating a network namespace", number=ctypes.get_errno())


def current_inode() -> int:
    """The inode that identifies the calling thread's network namespace."""
    return os.stat(OWN).st_ino


def _go_back(own: int) -> None:
    try:
        _setns(own, OWN)
    except KernelError as error:
        print(f"cannot return to the own network namespace, giving up: {error}", file=sys.stderr, flush=True)
        os._exit(4)


def _setns(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise KernelError(f"entering network namespace {name}", number=ctypes.get_errno())
