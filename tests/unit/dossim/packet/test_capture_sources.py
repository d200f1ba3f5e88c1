"""Sources of captures: compressed, truncated, endless, not a regular file; never read beyond a limit."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import resource
import socket
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest

from dossim.model.errors import CaptureError
from dossim.packet import source
from dossim.packet.capture import Reading, read_capture

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Write = Callable[[bytes], Path]
FRAMES = [bytes([number]) * (60 + number) for number in range(20)]
PLAIN = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(
    struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame for frame in FRAMES
)
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(buf: bytes) -> Path:
        path = tmp_path / "x.cap"
        path.write_bytes(buf)
        return path

    return written


@pytest.mark.parametrize("kind", PACK)
def test_compressed(write: Write, kind: str) -> None:
    buf = PACK[kind](PLAIN)
    capture = read_capture(write(buf))
    assert ([capture.frame(number) for number in range(20)], capture.warnings) == (FRAMES, ())
    assert capture.sha256 == hashlib.sha256(buf).hexdigest()


@pytest.mark.parametrize("kind", PACK)
def test_members_one_after_the_other(write: Write, kind: str) -> None:
    """As ``cat a.gz b.gz``, pigz, pzstd and pixz write them, and with trailing zeros as padding."""
    buf = b"".join(PACK[kind](PLAIN[at : at + 100]) for at in range(0, len(PLAIN), 100))
    for padding in (b"", bytes(512)):
        capture = read_capture(write(buf + padding))
        assert (len(capture), capture.warnings) == (20, ())


@pytest.mark.parametrize("kind", PACK)
def test_compressed_and_cut_short(write: Write, kind: str) -> None:
    """As a killed ``tcpdump | gzip`` leaves it: read to its end, with a warning; an error without a file header."""
    buf = PACK[kind](PLAIN[:800]) + PACK[kind](PLAIN[800:])
    whole = 0
    for size in range(len(buf) - 1, 5, -7):
        path = write(buf[:size])
        try:
            capture = read_capture(path)
        except CaptureError as error:
            message = str(error)
            assert "not a capture, it is empty" in message or "the file header is cut short" in message
            continue
        said = any(f"the {kind} data are cut short; what they hold up to there was read" in w for w in capture.warnings)
        assert said or any("something else follows" in warning for warning in capture.warnings) or len(capture) < 20
        assert [capture.frame(number) for number in range(len(capture))] == FRAMES[: len(capture)]
        whole += 1
    assert whole > 2


@pytest.mark.parametrize("kind", PACK)
def test_compressed_and_damaged(write: Write, kind: str) -> None:
    """After a wrong checksum any byte may be wrong: nothing of the file is used."""
    with_checksum: dict[str, Callable[[bytes], bytes]] = {
        "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
        "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
    }
    buf = bytearray(with_checksum.get(kind, PACK[kind])(PLAIN))
    buf[-7 if kind == "gzip" else len(buf) // 2] ^= 0xFF
    with pytest.raises(CaptureError, match=f"the {kind} data are damaged: .*; copy the file again"):
        read_capture(write(bytes(buf)))


@pytest.mark.parametrize("kind", PACK)
def test_something_else_after_compressed_data(write: Write, kind: str) -> None:
    capture = read_capture(write(PACK[kind](PLAIN) + b"-- signature --"))
    assert len(capture) == 20
    assert capture.warnings[0].endswith(f"something else follows the {kind} data; it was not read")


@pytest.mark.parametrize("kind", PACK)
def test_data_that_unpack_to_very_much(write: Write, kind: str) -> None:
    """Refused at the limit, without allocating more memory than that."""
    bomb = PACK[kind](PLAIN) + PACK[kind](bytes(12 << 20)) * 32
    assert len(bomb) < 3 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        CaptureError, match=f"the {kind} data unpack to more than 8 MiB, the limit that --max-size sets"
    ):
        read_capture(write(bomb), Reading(max_size=8 << 20))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB; all data would be 384 MiB


def test_a_header_that_wants_much_memory(write: Write) -> None:
    """The file sets the size of zstd's window and xz's dictionary: gigabytes are refused."""
    frame = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 30})
    with pytest.raises(CaptureError, match=r"the zstd data are damaged: .*too much memory"):
        read_capture(write(frame.compress(PLAIN) + frame.flush()))
    stream = bytearray(lzma.compress(PLAIN))
    header = slice(12, 12 + (stream[12] + 1) * 4 - 4)  # of the first block; its checksum follows it
    assert stream[14:16] == b"\x21\x01"  # LZMA2, whose property is the size of the dictionary
    stream[16] = 40  # 4 GiB
    stream[header.stop : header.stop + 4] = struct.pack("<I", zlib.crc32(stream[header]))
    with pytest.raises(CaptureError, match="the xz data are damaged: Memory usage limit exceeded"):
        read_capture(write(bytes(stream)))


def test_memory_that_is_available_is_a_limit(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_available_memory", lambda: 4000)
    message = r"the capture has more than 1.953 KiB, half of the memory that is available here; use a larger --max-size"
    path = write(PLAIN + PLAIN[24:])
    with pytest.raises(CaptureError, match=message):
        read_capture(path)
    assert len(read_capture(path, Reading(max_size=1 << 20))) == 40


def test_tiny_records_are_not_free(write: Write) -> None:
    """A million empty records need more memory than 16 MB of file suggest."""
    many = PLAIN[:24] + bytes(16) * 10_000
    with pytest.raises(CaptureError, match=r"more than 3,125 packets, the most for 195.3 KiB \(64 bytes each\)"):
        read_capture(write(many), Reading(max_size=200_000))
    blocks = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + struct.pack("<III", 5, 12, 12) * 9_000
    assert len(read_capture(write(blocks), Reading(max_size=200_000))) == 0  # blocks that are no packets cost nothing


def test_an_endless_file_ends_at_the_limit() -> None:
    with pytest.raises(CaptureError, match="/dev/zero: the capture has more than 1 MiB"):
        read_capture("/dev/zero", Reading(max_size=1 << 20, any_file=True))


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "nul"])
def test_what_a_scenario_names_is_a_regular_file(tmp_path: Path, kind: str) -> None:
    """Reading does not wait for a pipe without a writer."""
    path = tmp_path / "x.pcap"
    if kind == "pipe":
        os.mkfifo(path)
        wanted = "a named pipe cannot be read here; expected a regular file"
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
        wanted = "cannot be read: No such device or address"
    elif kind == "device":
        path.symlink_to("/dev/zero")
        wanted = "a character device cannot be read here; expected a regular file"
    elif kind == "folder":
        path.mkdir()
        wanted = "cannot be read: Is a directory"
    else:
        path = Path("a\0b")
        wanted = "cannot be read: embedded null byte"
    with pytest.raises(CaptureError, match=wanted):
        read_capture(path)


def test_a_dash_is_stdin_on_a_command_line_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CaptureError, match="-: cannot be read: No such file"):
        read_capture("-")
