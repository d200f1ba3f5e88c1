"""The source of a capture's bytes: a file, a pipe or stdin, plain or compressed, up to a size limit."""

from __future__ import annotations

import hashlib
import io
import os
import re
import select
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType

from dossim.model.errors import CaptureError
from dossim.packet.unpack import compression_of, unpacked

STDIN = "-"
# Columns are gathered without checking the length of a frame; they may read this much past the last one.
PADDING = 256
LIMIT = 2 << 30
MORE = "a larger --max-size"
_CHUNK = 1 << 18
_HEADER = 28  # bytes: enough to tell compressions and formats apart, and for the header of a pcap file
# Compressed data that unpack to more than this, and to so many times their size, are no capture of a network.
_EXPANSION = 1000
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
    """``size`` in bytes, unpacked; None: any, of compressed data up to a thousand times their size. ``why`` states
    where the number comes from.
    """

    size: int | None
    why: str
    more: str = MORE

    @property
    def packets(self) -> int | None:
        return None if self.size is None else self.size // PACKET_COST

    def require(self, name: str, came: int, packed: str, taken: int) -> None:
        """Raises CaptureError if ``came`` bytes, unpacked from ``taken``, are more than may be read."""
        if self.size is not None:
            if came > self.size:
                raise self._exceeded(name, packed)
        elif packed and came > max(LIMIT, _EXPANSION * taken):
            raise CaptureError(
                f"{name}: the {packed} data unpack to more than {_EXPANSION:,} times their size; if that is right, use "
                "--max-size with the largest size that is read"
            )

    def _exceeded(self, name: str, packed: str = "") -> CaptureError:
        return CaptureError(
            f"{name}: {f'the {packed} data unpack to' if packed else 'the capture has'} more than "
            f"{_size(self.size or 0)}, {self.why}; use {self.more}, or a part of the capture (editcap -c)"
        )

    def too_many(self, name: str) -> CaptureError:
        return CaptureError(
            f"{name}: more than {self.packets:,} packets, the most for {_size(self.size or 0)} ({PACKET_COST} bytes "
            f"each), {self.why}; use {self.more}, or a part of the capture (editcap -c)"
        )


@dataclass(frozen=True)
class Content:
    """``buf`` are the unpacked ``size`` bytes and PADDING zero bytes; ``first`` the first of them; ``sha256`` is of the
    bytes before unpacking; "" if not all of them were read, of a pipe.
    """

    buf: bytearray
    size: int
    first: bytes
    sha256: str
    limit: Limit
    warnings: tuple[str, ...] = ()


class Source:
    """The bytes of a capture, unpacked. Raises CaptureError if they cannot be read, are damaged or more than ``limit``
    allows, or if it is not a regular file.

    ``update``: gets the bytes before unpacking, for a hash. ``first``: at least the first 28 bytes, fewer if there are
    no more. ``size``: of a regular file, in bytes; else None. ``identity``: that of no other file, zeros for stdin.
    ``taken``: how many bytes were read so far, before unpacking. ``warnings`` is complete after the last byte.
    """

    def __init__(
        self, name: str, reading: Reading, limit: Limit, update: Callable[[memoryview], None] | None = None
    ) -> None:
        self.shown = display_name(name)
        self.warnings: list[str] = []
        self.taken = self._came = 0
        self._is_at_end = False
        self._limit, self._update = limit, update
        self._file = _opened(name, any_file=reading.any_file)
        self.size, self.identity = self._file.size, self._file.identity
        try:
            with self._faults():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        chunks = self._chunks()
        first = _peeked(chunks, _HEADER)
        self._packed = compression_of(first)
        self._pieces: Iterator[bytes] = iter(())
        if self._packed:
            self._pieces = unpacked(self.shown, self._packed, chain([first], chunks), self.warnings.append)
            first = _peeked(self._pieces, _HEADER)
        self.first = first[:_HEADER]
        self._left = memoryview(first)

    def _chunks(self) -> Iterator[bytes]:
        chunk = memoryview(bytearray(_CHUNK))
        while count := self._into(chunk):
            yield bytes(chunk[:count])

    def _into(self, view: memoryview) -> int:
        count = self._file.read(view)
        self._is_at_end = not count
        self.taken += count
        if self._limit.size is not None:  # what is packed counts as well: an endless file ends somewhere
            self._limit.require(self.shown, self.taken, "", self.taken)
        if self._update is not None:
            self._update(view[:count])
        return count

    def fill(self, view: memoryview) -> int:
        """Puts the next bytes there; how many, 0 after the last. Raises CaptureError."""
        with self._faults():
            if not self._left and self._packed:
                self._left = memoryview(next(self._pieces, b""))
            if not self._left and not self._packed:
                return self._into(view)
            count = min(len(view), len(self._left))
            view[:count] = self._left[:count]
            self._left = self._left[count:]
        self._came += count
        self._limit.require(self.shown, self._came, self._packed, self.taken)
        return count

    @property
    def descriptor(self) -> int | None:
        """Of a file whose next bytes may be read elsewhere as well, as they are; :meth:`has_read` has to be told."""
        is_whole = self._packed or self._left or self._update is not None or self._limit.size is not None
        return None if is_whole else self._file.descriptor

    def has_read(self, count: int) -> None:
        """So many bytes were read elsewhere."""
        self.taken += count
        self._came += count

    def read_rest(self) -> bool:
        """Reads what nobody wants, for the hash, if it ends: that of a regular file. Whether all has been read."""
        rest = self._chunks() if self.size is not None and not self._is_at_end else iter(())
        with self._faults():
            for _ in rest:
                pass
        return self._is_at_end

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CaptureError(f"{self.shown}: cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_source(name: str, reading: Reading) -> Content:
    """All bytes. Raises CaptureError as :class:`Source` does, and if they do not fit into memory."""
    limit = limit_of(reading)
    digest = hashlib.sha256()
    buf = bytearray()
    try:
        with Source(name, reading, limit, digest.update) as source:
            part = memoryview(bytearray(_CHUNK))
            while count := source.fill(part):
                buf += part[:count]
            is_whole = source.read_rest()
            size = len(buf)
            buf += bytes(PADDING)
    except MemoryError as error:
        raise CaptureError(
            f"{display_name(name)}: {_size(len(buf))} were read, more does not fit into memory; use a smaller capture"
        ) from error
    sha256 = digest.hexdigest() if is_whole else ""
    return Content(buf, size, source.first, sha256, limit, tuple(source.warnings))


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


def streamed(reading: Reading) -> Limit:
    """How much may be read piece by piece: anything, unless a ``max_size`` is given."""
    return Limit(reading.max_size, reading.why, reading.more)


_Read = Callable[[memoryview], int]


@dataclass(frozen=True)
class _File:
    """``read`` puts the next bytes into a buffer. ``size``: of a regular file; ``identity``: what identifies it.
    ``descriptor``: None of a stream of this process, which has none.
    """

    read: _Read
    close: Callable[[], None]
    size: int | None
    identity: tuple[int, int]
    descriptor: int | None


def _opened(name: str, *, any_file: bool) -> _File:
    """Raises CaptureError."""
    if name == STDIN and any_file:
        return _stdin()
    try:
        # Without O_NONBLOCK, opening a named pipe without a writer would block.
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if any_file else os.O_NONBLOCK))
    except (OSError, ValueError) as error:
        raise CaptureError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    found = os.fstat(descriptor)
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind and not any_file:
        os.close(descriptor)
        raise CaptureError(f"{name}: {kind} cannot be read here; expected a regular file")
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    identity = found.st_dev, found.st_ino
    return _File(_from(descriptor), lambda: os.close(descriptor), size, identity, descriptor)


def _from(descriptor: int) -> _Read:
    arrival = select.poll()
    arrival.register(descriptor, select.POLLIN)

    def read(view: memoryview) -> int:
        while True:
            try:
                return os.readv(descriptor, [view])
            except BlockingIOError:  # O_NONBLOCK of another process that has it, too
                arrival.poll()

    return read


def _stdin() -> _File:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise CaptureError("stdin: it is closed; a capture is read from there for -")
    if stream.isatty():
        raise CaptureError("stdin: it is a terminal; pipe a capture into it, as with 'zcat x.pcap.gz | dossim ... -'")
    descriptor: int | None = None
    read: _Read
    try:
        # Not through the stream: a thread that waits there holds its lock, which aborts the interpreter at its exit.
        descriptor = stream.fileno()
        read = _from(descriptor)
    except io.UnsupportedOperation:  # a stream of this process, which has no descriptor
        read = stream.readinto1
    return _File(read, lambda: None, None, (0, 0), descriptor)


def _peeked(chunks: Iterator[bytes], least: int) -> bytes:
    """The next bytes, at least so many if there are; a read from a pipe may return few."""
    first = b""
    while len(first) < least and (chunk := next(chunks, b"")):
        first += chunk
    return first


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
