"""Compressed captures: gzip, bzip2, xz, zstd and lz4, unpacked piece by piece, so that no file can exhaust the memory.

Data that are cut short are read up to that point. Damaged data are refused, because after a wrong checksum no byte can
be trusted. (zstd and lz4 data have a checksum only if they were written with it.)
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from dossim.model.errors import CaptureError

_PIECE = 1 << 20
# xz and zstd headers state how much memory unpacking needs: at most 128 MiB at every level of both (without --long,
# zstd itself refuses larger windows).
_XZ_MEMORY, _ZSTD_WINDOW_LOG = 192 << 20, 27
_LONGEST_MAGIC = 6


class _Decompressor(Protocol):
    """The common interface of bz2, lzma, zstd and lz4."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(piece) < max_length
        return piece


# lz4 and bz2 raise EOFError, RuntimeError or OSError for invalid data.
_DAMAGED = (zlib.error, lzma.LZMAError, OSError, RuntimeError, EOFError, ValueError)


def _decompressor(kind: str) -> _Decompressor:
    match kind:
        case "gzip":
            return _Gzip()
        case "bzip2":
            return bz2.BZ2Decompressor()
        case "xz":
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
        case "lz4":
            import lz4.frame  # in dossim[sim], like zstd; most captures need neither

            lz4_decompressor: _Decompressor = lz4.frame.LZ4FrameDecompressor()
            return lz4_decompressor
        case _:
            return _Zstd()


class _Zstd:
    """zstd's decompressor, with the errors of the others for invalid data."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        self._error = zstd.ZstdError
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        self._zstd: _Decompressor = zstd.ZstdDecompressor(options=options)

    @property
    def eof(self) -> bool:
        return self._zstd.eof

    @property
    def unused_data(self) -> bytes:
        return self._zstd.unused_data

    @property
    def needs_input(self) -> bool:
        return self._zstd.needs_input

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return self._zstd.decompress(data, max_length)
        except self._error as error:
            raise ValueError(str(error)) from error


def compression_of(first: bytes) -> str:
    """The compression of a file that begins with these bytes; "" for none of the above."""
    if first[:2] == b"\x1f\x8b":
        return "gzip"
    if first[:3] == b"BZh":
        return "bzip2"
    if first[:6] == b"\xfd7zXZ\0":
        return "xz"
    if first[:4] == b"\x04\x22\x4d\x18":
        return "lz4"
    # pzstd begins with a skippable frame
    return "zstd" if first[:4] == b"\x28\xb5\x2f\xfd" or (first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5) else ""


def unpacked(name: str, kind: str, chunks: Iterator[bytes], warn: Callable[[str], None]) -> Iterator[bytes]:
    """The unpacked ``chunks`` in pieces of at most 1 MiB; all members (streams, frames) in sequence.

    Raises CaptureError for damaged data; ``warn`` gets a sentence if they are cut short, or followed by other data.
    """
    try:
        rest = yield from _member(kind, b"", chunks)
        while rest is not None:
            rest = _next_member(rest, chunks)
            if not rest:
                return
            if compression_of(rest) != kind:
                warn(f"{name}: something else follows the {kind} data; it was not read")
                return
            rest = yield from _member(kind, rest, chunks)
    except _DAMAGED as error:
        raise CaptureError(f"{name}: the {kind} data are damaged: {error}; copy the file again") from error
    warn(f"{name}: the {kind} data are cut short; what they hold up to there was read")


def _member(kind: str, data: bytes, chunks: Iterator[bytes]) -> Generator[bytes, None, bytes | None]:
    """The pieces of one member; returns the bytes after it, None if the input ends within it."""
    decompressor = _decompressor(kind)
    while not decompressor.eof:
        if decompressor.needs_input and not data:
            data = next(chunks, b"")
            if not data:
                return None
        piece = decompressor.decompress(data, _PIECE)
        data = b""
        if piece:
            yield piece
    return decompressor.unused_data or b""


def _next_member(rest: bytes, chunks: Iterator[bytes]) -> bytes:
    """The bytes after a member without zero padding (tapes, xz); enough of them to recognise the format."""
    rest = rest.lstrip(b"\0")
    while len(rest) < _LONGEST_MAGIC and (chunk := next(chunks, b"")):
        rest = (rest + chunk).lstrip(b"\0")
    return rest
