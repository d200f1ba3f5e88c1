"""A file whose read never returns, as on an unreachable file server: a minimal FUSE server (linux/fuse.h)."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOOKUP, _GETATTR, _OPEN, _INIT, _OPENDIR, _READDIR = 1, 3, 14, 26, 27, 28
_NOFLUSH = 1 << 5  # FOPEN_NOFLUSH: even a killed process waits for its flush
_DIRECTORY, _FILE = 0o40755, 0o100644
_ROOT, _ONLY = 1, 2
_SIZE_BYTES = 100
_HEADER = struct.Struct("<IIQQIIII")
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hanging_file(folder: Path, name: str, *, answers: int | None = None) -> Iterator[threading.Event]:
    """A file system at ``folder`` with one file. It stops answering after that many answers, or else once the file was
    opened. The event is set once somebody waits for the next one.
    """
    folder.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if _libc.mount(b"enftest", os.fsencode(folder), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), f"mounting {folder}")
    waited_for, over = threading.Event(), threading.Event()
    server = threading.Thread(target=_serve, args=(device, name.encode(), answers, waited_for, over))
    server.start()
    try:
        yield waited_for
    finally:
        _libc.umount2(os.fsencode(folder), _MNT_DETACH)
        over.set()
        server.join()
        os.close(device)  # processes that still wait get ECONNABORTED
        folder.rmdir()


def _serve(device: int, name: bytes, answers: int | None, waited_for: threading.Event, over: threading.Event) -> None:
    """Answers that many requests, or until the file was opened.

    Later requests are left unread, so that a fatal signal ends a waiting process, as with NFS. It would not if the FUSE
    server had read the request (fs/fuse/dev.c ``request_wait_answer``).
    """
    poll = select.poll()
    poll.register(device, select.POLLIN)
    answered, is_open = -1, False  # FUSE_INIT, the kernel's own, is not counted
    while not over.is_set():
        if not poll.poll(50):
            continue
        if is_open if answers is None else answered >= answers:
            waited_for.set()
            over.wait()
            return
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return  # unmounted
        _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
        is_open = opcode == _OPEN
        answer = _answer(opcode, node, request[_HEADER.size :], name)
        error, content = (-38, b"") if answer is None else (0, answer)  # ENOSYS
        answered += 1
        with suppress(OSError):  # the requesting process may have ended
            os.write(device, struct.pack("<IiQ", 16 + len(content), error, unique) + content)


def _answer(opcode: int, node: int, body: bytes, name: bytes) -> bytes | None:
    if opcode == _INIT:
        return struct.pack("<IIII HH I I H H I 7I", 7, 31, 0, 0, 8, 8, 1 << 16, 1, 0, 0, 0, *([0] * 7))
    if opcode == _LOOKUP:
        return struct.pack("<QQQQII", _ONLY, 0, 1, 1, 0, 0) + _attributes(_ONLY) if body.rstrip(b"\0") == name else None
    if opcode == _GETATTR:
        return struct.pack("<QII", 1, 0, 0) + _attributes(node)
    if opcode in (_OPEN, _OPENDIR):
        return struct.pack("<QII", 1, _NOFLUSH if opcode == _OPEN else 0, 0)
    if opcode == _READDIR:
        offset = struct.unpack_from("<QQ", body)[1]
        entry = struct.pack("<QQII", _ONLY, 1, len(name), 8) + name
        return b"" if offset else entry + b"\0" * (-len(entry) % 8)
    return None


def _attributes(node: int) -> bytes:
    mode, size = (_DIRECTORY, 0) if node == _ROOT else (_FILE, _SIZE_BYTES)
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
