"""The source of a capture's bytes: a file, a pipe or stdin, plain or compressed, up to a size limit."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dossim.model.errors import CaptureError
from dossim.packet.unpack import compression_of, unpacked

STDIN = "-"
# Columns are gathered without checking the length of a frame; they may read this much past the last one.
PADDING = 256
LIMIT = 2 << 30
MORE = "a larger --max-size"
_CHUNK = 1 << 18
# The least memory that the arrays need for each packet: tiny records must count too.
PACKET_COST = 64
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True)
class Reading:
    """How a capture is read.

    ``max_size`` in bytes, unpacked; None: LIMIT, or half of the available memory if that is less. ``why`` and ``more``
    are for its error message: where the limit comes from, and how to raise it. ``any_file`` also accepts stdin (``-``),
    pipes and devices: for files named on a command line. ``skip_unknown`` leaves out packets of unsupported link types,
    which are an error otherwise.
    """

    max_size: int | None = None
    why: str = "the limit that --max-size sets"
    more: str = MORE
    any_file: bool = False
    skip_unknown: bool = False


@dataclass(frozen=True)
class Limit:
    """``size`` in bytes; ``why`` states where the number comes from."""

    size: int
    why: str
    more: str = MORE

    @property
    def packets(self) -> int:
        return self.size // PACKET_COST

    def exceeded(self, name: str, packed: str = "") -> CaptureError:
        return CaptureError(
            f"{name}: {f'the {packed} data unpack to' if packed else 'the capture has'} more than {_size(self.size)}, "
            f"{self.why}; use {self.more}, or a part of the capture (editcap -c)"
        )

    def too_many(self, name: str) -> CaptureError:
        return CaptureError(
            f"{name}: more than {self.packets:,} packets, the most for {_size(self.size)} ({PACKET_COST} bytes each), "
            f"{self.why}; use {self.more}, or a part of the capture (editcap -c)"
        )


@dataclass(frozen=True)
class Content:
    """``buf`` are the unpacked ``size`` bytes and PADDING zero bytes; ``sha256`` is of the bytes before unpacking."""

    buf: bytearray
    size: int
    sha256: str
    limit: Limit
    warnings: tuple[str, ...] = ()


def read_source(name: str, reading: Reading) -> Content:
    """Read and unpack. Raises CaptureError if the source cannot be read, is damaged or too large, or not a regular
    file.
    """
    limit = limit_of(reading)
    chunks, close = _opened(name, any_file=reading.any_file)
    shown = display_name(name)
    digest = hashlib.sha256()
    buf, warnings = bytearray(), list[str]()
    try:
        first, chunks = _peeked(_hashed(chunks, digest.update, limit, shown))
        packed = compression_of(first)
        for part in unpacked(shown, packed, chunks, warnings.append) if packed else chunks:
            if len(buf) + len(part) > limit.size:
                raise limit.exceeded(shown, packed)
            buf += part
        size = len(buf)
        buf += bytes(PADDING)
    except OSError as error:
        raise CaptureError(f"{shown}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise CaptureError(
            f"{shown}: {_size(len(buf))} were read, more does not fit into memory; use a smaller capture"
        ) from error
    finally:
        close()
    return Content(buf, size, digest.hexdigest(), limit, tuple(warnings))


def display_name(name: str) -> str:
    return "stdin" if name == STDIN else name


def limit_of(reading: Reading) -> Limit:
    """How much may be read; without a ``max_size`` it depends on the memory available now."""
    if reading.max_size is not None:
        return Limit(reading.max_size, reading.why, reading.more)
    available = _available_memory()
    if available is not None and available // 2 < LIMIT:
        return Limit(available // 2, "half of the memory that is available here")
    return Limit(LIMIT, "the limit unless --max-size sets another")


def _available_memory() -> int | None:
    """How many more bytes this process may use, by the host and by its control group; None if neither states it."""
    found = []
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    # For a container, which sees its own group there. Its current usage is mostly page cache, which can be reclaimed.
    with suppress(OSError, ValueError):  # "max" means no limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(found, default=None)


def _opened(name: str, *, any_file: bool) -> tuple[Iterator[bytes], Callable[[], None]]:
    """The bytes in chunks, and a function that closes the source. Raises CaptureError."""
    if name == STDIN and any_file:
        return _stdin(), lambda: None
    try:
        # Without O_NONBLOCK, opening a named pipe without a writer would block.
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if any_file else os.O_NONBLOCK))
    except (OSError, ValueError) as error:
        raise CaptureError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    kind = _KINDS.get(stat.S_IFMT(os.fstat(descriptor).st_mode))
    if kind and not any_file:
        os.close(descriptor)
        raise CaptureError(f"{name}: {kind} cannot be read here; expected a regular file")
    return iter(lambda: os.read(descriptor, _CHUNK), b""), lambda: os.close(descriptor)


def _stdin() -> Iterator[bytes]:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise CaptureError("stdin: it is closed; a capture is read from there for -")
    if stream.isatty():
        raise CaptureError("stdin: it is a terminal; pipe a capture into it, as with 'zcat x.pcap.gz | dossim ... -'")
    return iter(lambda: stream.read1(_CHUNK), b"")


def _hashed(chunks: Iterator[bytes], update: Callable[[bytes], None], limit: Limit, name: str) -> Iterator[bytes]:
    came = 0
    for chunk in chunks:
        came += len(chunk)
        if came > limit.size:
            raise limit.exceeded(name)
        update(chunk)
        yield chunk


def _peeked(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, enough for any magic number, and all chunks; a read from a pipe may return few bytes."""
    first = b""
    while len(first) < 16 and (chunk := next(chunks, b"")):
        first += chunk

    def everything() -> Iterator[bytes]:
        if first:
            yield first
        yield from chunks

    return first, everything()


def size(value: int | str) -> int:
    """A number of bytes, with K, M, G or T for powers of 1024. Raises ValueError."""
    read = re.fullmatch(r"([0-9]{1,18})([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
    if read is None or not int(read[1]):
        raise ValueError(f"{value!r} is not a size; expected a number of bytes, such as 500M or 4G")
    return int(read[1]) << 10 * " KMGT".index(read[2].upper() or " ")


def _size(count: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.4g} {unit}"
    return f"{count} bytes"
