"""Frames changed at random, in columns: a million a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dossim.packet.capture import PADDING, Capture
from tests.support.frame_strategies import SHORTEST

WIDTH = 160  # bytes of a frame
_HEADERS = 110  # bytes in which it is changed: two VLAN tags, IPv6, two extension headers, TCP
_VALUES = np.array([0, 1, 6, 17, 44, 58, 60, 0x45, 0x46, 0x60, 0x7F, 0xE0, 0xFF], np.uint8)
_FRAGMENTS = np.array([[0x20, 0], [0x20, 0], [0x20, 1], [0, 1], [0x1F, 0xFF]], np.uint8)  # the first, others

Bytes = npt.NDArray[np.uint8]


def mutated(frames: Sequence[bytes], seed: int, count: int) -> Capture:
    """So many of the frames, each once at least as it is if there is room, with up to three bytes changed, the sum of
    its IPv4 header corrected or not; some are fragments, some are cut, by the capture or on the wire.
    """
    rng = np.random.default_rng(seed)
    short = [frame[:WIDTH] for frame in frames]
    rows = np.zeros((len(short), WIDTH), np.uint8)
    for row, frame in zip(rows, short, strict=True):
        row[: len(frame)] = np.frombuffer(frame, np.uint8)
    chosen = np.concatenate([np.arange(len(short)), rng.integers(len(short), size=count)])[:count]
    data, length = rows[chosen], np.array([len(frame) for frame in short], np.int32)[chosen]
    changed = np.arange(count) >= len(short)
    for _ in range(3):
        of = np.flatnonzero(changed & (rng.random(count) < 0.3))
        at = (rng.random(len(of)) * np.minimum(length[of], _HEADERS)).astype(np.int64)
        random_bytes = rng.integers(256, size=len(of), dtype=np.uint8)
        data[of, at] = np.where(rng.random(len(of)) < 0.5, random_bytes, rng.choice(_VALUES, len(of)))
    split = np.flatnonzero(changed & (data[:, 14] >> 4 == 4) & (rng.random(count) < 0.1))
    data[split, 20:22] = _FRAGMENTS[rng.integers(len(_FRAGMENTS), size=len(split))]
    data[changed & (rng.random(count) < 0.03), 34:] = 0  # a message of ICMP with a sum that is nearly always bad
    seal(data, np.flatnonzero(rng.random(count) < 0.9))
    is_cut = changed & (rng.random(count) < 0.05)
    length[is_cut] = np.maximum((length[is_cut] * rng.random(is_cut.sum())).astype(np.int32), SHORTEST)
    missing = np.where(rng.random(count) < 0.1, rng.integers(1, 1500, size=count), 0).astype(np.int32)
    missing[rng.random(count) < 0.002] = 70_000  # no device sends such a frame
    return Capture(
        path="<generated>",
        sha256="",
        data=np.concatenate([data.ravel(), np.zeros(PADDING, np.uint8)]),
        offset=np.arange(count, dtype=np.int64) * WIDTH,
        length=length,
        wire_length=length + missing,
        record=np.arange(count, dtype=np.int64),
        timestamp_ns=np.zeros(count, np.int64),
    )


def seal(data: Bytes, rows: npt.NDArray[np.int64]) -> None:
    """Correct the sums of the IPv4 headers of these rows, of untagged frames."""
    rows = rows[(data[rows, 12] == 8) & (data[rows, 13] == 0) & (data[rows, 14] >> 4 == 4)]
    data[rows, 24:26] = 0
    header = data[rows, 14:74].copy()
    header[np.arange(60) >= (header[:, :1] & 15).astype(np.int64) * 4] = 0
    total = header.view(">u2").sum(axis=1, dtype=np.int64)
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    data[rows, 24:26] = (0xFFFF - total).astype(">u2").view(np.uint8).reshape(-1, 2)
