"""Arbitrary bytes as captures: the only exception is CaptureError, and no record exceeds the file.

Whole files are built and then mutated: bytes overwritten, removed, repeated, truncated. Half of them keep their
structure and have absurd values (lengths, link types, interfaces, times, options); the others are only bytes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dossim.model.errors import CaptureError
from dossim.packet.about import describe
from dossim.packet.capture import Capture, Reading, read_capture
from dossim.packet.linkdecoders import DECODERS
from tests.support.examples import examples
from tests.support.frames import ethernet, ipv4, segment

LIMIT = 4 << 20
MOST_BYTES = 4096
LINKS = [*DECODERS, 147, 189, 0xFFFF]
ODD32 = st.sampled_from([0, 1, 3, 12, 13, 16, 28, 31, 32, 64, 0xFFFF, 262_144, 262_145, 1 << 31, 0xFFFF_FFFF])
u32 = st.one_of(ODD32, st.integers(0, 80), st.integers(0, 0xFFFF_FFFF))
DATAGRAM = ipv4(
    segment(17, "192.0.2.1", "192.0.2.2", (53, 53), b"data"), source="192.0.2.1", destination="192.0.2.2", protocol=17
)
payloads = st.one_of(st.binary(max_size=40), st.sampled_from([DATAGRAM, ethernet(DATAGRAM, 0x0800)]))
pack = st.sampled_from([bytes, bytes, bytes, gzip.compress, bz2.compress, lzma.compress, lz4.frame.compress])


@st.composite
def link_packets(draw: st.DrawFn, link: int) -> bytes:
    """A packet that begins roughly like those of its link type."""
    payload = draw(payloads)
    header = {
        113: struct.pack(">HHH8sH", draw(st.integers(0, 7)), draw(st.sampled_from([1, 803, 824])), 6, b"", 0x0800),
        276: struct.pack(">HHIHBB8s", 0x86DD, 0, 1, draw(st.sampled_from([1, 803])), draw(st.integers(0, 7)), 6, b""),
        127: struct.pack("<BBHI", 0, 0, draw(st.integers(0, 40)), draw(u32)),
        192: struct.pack("<BBHI", 0, 0, draw(st.integers(0, 40)), draw(st.sampled_from(LINKS))),
        239: b"\x02\0\0\0" + struct.pack("<HH", draw(st.integers(0, 40)), draw(st.integers(0, 20))),
        105: bytes([draw(st.sampled_from([0x08, 0x88, 0x48, 0x80, 0xB4])), draw(st.integers(0, 255))]),
        9: draw(st.sampled_from([b"\xff\x03\x00\x21", b"\x00\x57", b"\x21", b"\xff"])),
        51: struct.pack(">BBHHH", 0x11, 0, 1, draw(st.integers(0, 99)), 0x21),
    }.get(link, b"")
    return header + payload


@st.composite
def pcaps(draw: st.DrawFn) -> bytes:
    order, link = draw(st.sampled_from("<>")), draw(st.sampled_from(LINKS))
    magic = draw(st.sampled_from([0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34]))
    upper = draw(st.sampled_from([0, 0, 0x2400_0000, 0xF400_0000]))
    buf = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, draw(u32), upper | link)
    for packet in draw(st.lists(link_packets(link), max_size=5)):
        captured = draw(st.one_of(st.just(len(packet)), u32)) if draw(st.booleans()) else len(packet)
        buf += struct.pack(f"{order}IIII", draw(u32), draw(u32), captured, draw(st.one_of(st.just(captured), u32)))
        buf += bytes(8 if magic == 0xA1B2CD34 else 0) + packet
    return buf


def block(order: str, kind: int, body: bytes, size: int | None = None) -> bytes:
    body += bytes(-len(body) % 4)
    size = len(body) + 12 if size is None else size
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


@st.composite
def options(draw: st.DrawFn, order: str) -> bytes:
    buf = b""
    for code, value in draw(st.lists(st.tuples(st.integers(0, 15), st.binary(max_size=9)), max_size=4)):
        length = draw(st.one_of(st.just(len(value)), st.integers(0, 0xFFFF))) if draw(st.booleans()) else len(value)
        buf += struct.pack(f"{order}HH", code, length) + value + bytes(-len(value) % 4)
    return buf


@st.composite
def _bodies(draw: st.DrawFn, kind: int, order: str, link: int) -> bytes:
    if kind == 0x0A0D0D0A:
        return struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)
    if kind == 1:
        return struct.pack(f"{order}HHI", link, 0, draw(ODD32)) + draw(options(order))
    packet = draw(link_packets(link))
    captured = draw(st.one_of(st.just(len(packet)), st.just(len(packet)), u32))
    if kind == 3:
        return struct.pack(f"{order}I", captured) + packet
    if kind not in (2, 6):
        return packet
    number = draw(st.sampled_from([0, 0, 0, 1, 7]))
    front = struct.pack(f"{order}I", number) if kind == 6 else struct.pack(f"{order}HH", number, 0)
    body = front + struct.pack(f"{order}IIII", draw(ODD32), draw(ODD32), captured, draw(u32)) + packet
    return body + bytes(-len(body) % 4) + draw(options(order))


@st.composite
def pcapngs(draw: st.DrawFn) -> bytes:
    order = draw(st.sampled_from("<>"))
    buf = block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    link = draw(st.sampled_from(LINKS))
    kinds = [1, *draw(st.lists(st.sampled_from([1, 2, 3, 5, 6, 6, 6, 0x0A0D0D0A, 0xBAD]), max_size=5))]
    for kind in kinds:
        body = draw(_bodies(kind, order, link))
        buf += block(order, kind, body, draw(u32) if draw(st.integers(0, 9)) == 0 else None)
    return buf


@st.composite
def changed(draw: st.DrawFn, files: st.SearchStrategy[bytes]) -> bytes:
    """A file, compressed or not, and accidental or malicious changes of it."""
    buf = bytearray(draw(pack)(draw(files)))
    for _ in range(draw(st.integers(0, 3))):
        if not buf:
            break
        at = draw(st.integers(0, len(buf) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            buf[at] = draw(st.integers(0, 255))
        elif kind == 1:
            buf[at : at + 4] = struct.pack("<I", draw(u32))
        elif kind == 2:
            del buf[at : at + draw(st.integers(1, 40))]
        else:
            buf[at:at] = buf[at : at + draw(st.integers(1, 200))]
    return bytes(buf[:MOST_BYTES])


MAGICS = [
    b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x0a\x0d\x0d\x0a", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x50\x2a\x4d\x18",
]  # fmt: skip
only_bytes = st.builds(bytes.__add__, st.sampled_from([b"", *MAGICS]), st.binary(max_size=300))


def assert_sound(capture: Capture) -> None:
    count = len(capture)
    columns = (capture.offset, capture.length, capture.wire_length, capture.record, capture.timestamp_ns)
    assert [len(column) for column in columns] == [count] * 5
    assert (capture.length >= 0).all()
    assert (capture.wire_length >= capture.length).all()
    assert (capture.offset >= 0).all()
    assert (capture.offset + capture.length <= len(capture.data)).all()
    assert (np.diff(capture.record) > 0).all()
    assert count + sum(capture.skipped.values()) == sum(capture.link_types.values())
    assert all("\n" not in sentence for sentence in describe(capture))


def check(path: Path, buf: bytes) -> None:
    path.write_bytes(buf)
    for reading in (Reading(max_size=LIMIT), Reading(max_size=LIMIT, skip_unknown=True)):
        error = ""
        try:
            assert_sound(read_capture(path, reading))
        except CaptureError as refused:
            error = str(refused)
        assert not error or error.startswith(f"{path}: ")
        assert "\n" not in error


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.cap"


KINDS: dict[str, tuple[Callable[[], st.SearchStrategy[bytes]], int]] = {
    "pcap": (lambda: changed(pcaps()), 200),
    "pcapng": (lambda: changed(pcapngs()), 200),
    "bytes": (lambda: only_bytes, 100),
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_declared_errors_come_out(path: Path, kind: str) -> None:
    files, usual = KINDS[kind]

    @settings(max_examples=examples(usual, nightly=100_000))
    @given(buf=files())
    def holds(buf: bytes) -> None:
        check(path, buf)

    holds()
