"""Capture files of every shape, from frames: byte orders, sections, interfaces, other blocks, captures in payloads."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from tests.support.frames import ME4, ethernet, ipv4, segment

_T = 1_700_000_000
_ETHERNET = 1


def pcap_file(frames: Sequence[bytes], lengths: Sequence[int], rng: random.Random) -> bytes:
    """The frames with at most so many bytes each."""
    order, (magic, header) = rng.choice("<>"), rng.choice(((0xA1B2C3D4, 16), (0xA1B23C4D, 16), (0xA1B2CD34, 24)))
    found = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262_144, _ETHERNET)]
    for number, (frame, length) in enumerate(zip(frames, lengths, strict=True)):
        kept = frame[:length]
        found.append(struct.pack(f"{order}IIII", _T + number, number % 1000, len(kept), len(frame)))
        found.append(bytes(header - 16) + kept)
    return b"".join(found)


def pcapng_file(frames: Sequence[bytes], lengths: Sequence[int], rng: random.Random) -> bytes:
    """As :func:`pcap_file`, with blocks of all kinds."""
    found, order, interfaces, last_order = [], "<", 0, ""
    for number, (frame, length) in enumerate(zip(frames, lengths, strict=True)):
        if not last_order or rng.random() < 0.03:
            order = last_order = rng.choice("<>")
            found.append(_block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)))
            interfaces = 0
        while not interfaces or rng.random() < 0.05:
            found.append(_block(order, 1, _interface(order, rng)))
            interfaces += 1
        if rng.random() < 0.05:
            found.append(_block(order, rng.choice((4, 5, 0x0BAD, 77)), rng.randbytes(4 * rng.randint(0, 40))))
        found.append(_packet(order, number, frame, length, interfaces, rng))
    return b"".join(found)


def _interface(order: str, rng: random.Random) -> bytes:
    resolution = rng.choice((b"", struct.pack(f"{order}HHB3x", 9, 1, rng.choice((6, 9, 3, 0x8A)))))
    return struct.pack(f"{order}HHI", _ETHERNET, 0, 0) + resolution


def _packet(order: str, number: int, frame: bytes, length: int, interfaces: int, rng: random.Random) -> bytes:
    kept = frame[:length]
    padded = kept + bytes(-len(kept) % 4)
    if length >= len(frame) and rng.random() < 0.1:
        return _block(order, 3, struct.pack(f"{order}I", len(frame)) + padded)
    fields = struct.pack(f"{order}IIIII", rng.randrange(interfaces), 0, number * 1000, len(kept), len(frame))
    flags = struct.pack(f"{order}HHI4x", 2, 4, rng.choice((0, 1, 2, 0x10))) if rng.random() < 0.1 else b""
    return _block(order, 6, fields + padded + flags)


def _block(order: str, kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


def hiding(capture: bytes, rng: random.Random) -> bytes:
    """A frame in whose payload a capture is, or as much of it as a packet takes."""
    payload = bytes(rng.randint(0, 40)) + capture[: rng.randint(100, 60_000)]
    buf = segment(17, "203.0.113.7", ME4, (1024, 9), payload)
    return ethernet(ipv4(buf, source="203.0.113.7", destination=ME4, protocol=17), 0x0800)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut short, or with bytes that are others."""
    at = rng.randrange(rng.choice((60, len(content))))
    if rng.random() < 0.5:
        return content[:at]
    return content[:at] + rng.randbytes(4) + content[at + 4 :]
