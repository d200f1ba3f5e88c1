"""Captures taken with a snapshot length: the same frames, with fewer bytes of some of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dossim.packet.capture import Capture

# Where headers end and fields begin: cuts there find more than random ones.
EDGES = (0, 6, 13, 14, 15, 18, 24, 26, 33, 34, 35, 36, 38, 42, 46, 50, 53, 54, 55, 58, 60, 62, 66, 74, 94, 96)


def cut_at(frames: Sequence[bytes], lengths: Sequence[int]) -> Capture:
    """The frames with at most so many bytes each; their lengths on the wire are kept."""
    kept = [frame[:length] for frame, length in zip(frames, lengths, strict=True)]
    return replace(Capture.from_frames(kept), wire_length=np.array([len(frame) for frame in frames], np.int32))


def random_cuts(frames: Sequence[bytes], rng: random.Random) -> list[int]:
    """The length to keep of each frame: some stay whole, some are cut where a field ends, some anywhere."""
    return [_cut(frame, rng) for frame in frames]


def _cut(frame: bytes, rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.2:
        return len(frame)
    return rng.choice(EDGES) if kind < 0.7 else rng.randint(0, len(frame))
