"""Bytes that the capture cut: reading one of them is reported, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from dossim.packet.cut import CutBytes, CutError, captured_length, joined, on_wire, visible, why_not_sendable
from dossim.packet.parse import internet_checksum, number

FRAME = on_wire(b"abcdef", 10)


@pytest.mark.parametrize(
    "read",
    [
        lambda: FRAME[6],
        lambda: FRAME[-1],
        lambda: bytes(FRAME),
        lambda: list(FRAME),
        lambda: any(FRAME[6:8]),
        lambda: number(FRAME, 5, 2),
        lambda: visible(FRAME[4:8]),
        lambda: IPv4Address(FRAME[4:8]),
        lambda: internet_checksum(b"x", FRAME),
        lambda: joined([b"x", FRAME])[7],
        lambda: FRAME[2:][5],
    ],
)
def test_reading_a_byte_that_is_not_there(read: Callable[[], object]) -> None:
    with pytest.raises(CutError):
        read()


def test_all_else_is_as_with_any_bytes() -> None:
    assert (len(FRAME), FRAME[0], FRAME[:6], FRAME[4:6]) == (10, ord("a"), b"abcdef", b"ef")
    assert not isinstance(FRAME[:6], CutBytes)
    assert captured_length(FRAME) == 6
    assert on_wire(b"abc", 3) == on_wire(b"abc", 2) == b"abc"
    again = joined([FRAME, b"gh"])
    assert (len(again), again[10:]) == (12, b"gh")


@pytest.mark.parametrize(
    ("length", "ethertype", "sendable"),
    [
        (0, b"\x08\x00", False), (13, b"\x08\x00", False), (14, b"\x08\x00", True), (65549, b"\x08\x00", True),
        (65550, b"\x08\x00", False), (65553, b"\x81\x00", True), (65554, b"\x81\x00", False),
        (65550, b"\x88\xa8", False),
    ],
)  # fmt: skip
def test_what_can_be_sent(length: int, ethertype: bytes, sendable: bool) -> None:
    assert (why_not_sendable(bytes(12) + ethertype, length) == "") is sendable
