"""The first window of a capture, which shows the addresses of the host if nothing else names them."""

from __future__ import annotations

from dossim.cluster.split import Shard
from dossim.cluster.storage import opened
from dossim.cluster.walk import Walk
from dossim.packet.capture import Capture, capture_of


def beginning_of(name: str, skip_unknown: bool) -> Capture:
    """As one process reads it. Raises CaptureError."""
    with opened(name) as content:
        walk = Walk(content, name, Shard(0, 0, content.size), None, None)
        for piece, taken in walk.windows():
            return capture_of(name, piece.buf, taken.records, (), skip_unknown=skip_unknown)
    return Capture.from_frames([])
