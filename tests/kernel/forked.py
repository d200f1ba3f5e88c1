"""Part of a test in a child process: its changes of mounts, capabilities or user end with the child."""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF = 12, 13, 38, 39
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1, 32, 4096, 16384, 1 << 18, 1 << 19, 1 << 20
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_CAPSET = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_libc = ctypes.CDLL(None, use_errno=True)


def forked(act: Callable[[], T]) -> T:
    """Run ``act`` in a child of the calling thread and return its result; an exception fails the test."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer: tuple[object, str] = (act(), "")
        except BaseException:
            answer = (None, traceback.format_exc())
        with open(writer, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, "the child ended without an answer"
    result, problem = pickle.loads(data)
    assert not problem, problem
    return result  # type: ignore[no-any-return]  # pickled by us


def enter(namespace: str) -> None:
    """Enter a named network namespace; there is no way back."""
    with open(f"/run/netns/{namespace}") as file:
        _check(_libc.setns(file.fileno(), _CLONE_NEWNET), f"enter {namespace}")


def own_mounts(propagation: int = MS_PRIVATE) -> None:
    """Enter a new mount namespace, with or without propagation of mounts from outside (MS_SLAVE)."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    mount("none", "/", "", MS_REC | propagation)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    words = [word.encode() if word else None for word in (source, target, kind)]
    _check(_libc.mount(*words, flags, options.encode() or None), f"mount {target}")


def unmount(target: str) -> None:
    _check(_libc.umount2(target.encode(), 2), f"unmount {target}")


def keep_capabilities(*numbers: int) -> None:
    """Drop all other capabilities."""
    held = sum(1 << number for number in numbers)
    low, high = held & 0xFFFFFFFF, held >> 32
    data = struct.pack("=IIIIII", low, low, 0, high, high, 0)
    _check(_libc.capset(struct.pack("=Ii", _CAPSET, 0), data), "capset")


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
