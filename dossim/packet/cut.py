"""Frames that the capture cut: bytes that were on the wire and are not in the file.

Such a frame has its full length, and nobody knows what its missing bytes are. Reading one of them raises CutError, so
whatever is found without that error holds for every frame that begins like this one: the bytes that are there decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, SupportsIndex, overload

if TYPE_CHECKING:
    from dossim.packet.capture import Capture

ETHERNET_LEAST = 14  # bytes of a frame that a socket can send: its header
# The largest MTU (ETH_MAX_MTU, 65,535) after an Ethernet header: what a socket sends at most (packet_snd).
ETHERNET_MOST = 65_549
_VLAN = b"\x81\x00"  # four bytes more for 802.1Q (packet_extra_vlan_len_allowed); no other tag has them
_VLAN_TAG = 4
LARGEST = ETHERNET_MOST + _VLAN_TAG


class CutError(Exception):
    """A byte that the capture cut off was needed. Never leaves the model: the caller's answer is *undetermined*."""


class CutBytes(bytes):
    """Bytes of which some are not known: those with a 1 in ``hidden``, which is as long.

    Single bytes, numbers and iteration raise CutError where they touch an unknown byte. A slice without one is plain
    bytes. What reads memory directly (``b"".join``, comparison) sees zeros: :func:`joined` and :func:`visible` do not.
    """

    hidden: bytes

    def __new__(cls, data: bytes, hidden: bytes) -> CutBytes:
        made = super().__new__(cls, bytes.__getitem__(data, slice(None)))
        made.hidden = hidden
        return made

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: SupportsIndex | slice) -> int | bytes:
        hidden = self.hidden[key]
        if isinstance(key, slice):
            assert isinstance(hidden, bytes)
            part = super().__getitem__(key)
            return CutBytes(part, hidden) if 1 in hidden else part
        if hidden:
            raise CutError
        return super().__getitem__(key)

    def __bytes__(self) -> bytes:
        if 1 in self.hidden:
            raise CutError
        return super().__getitem__(slice(None))

    def __iter__(self) -> Iterator[int]:
        return iter(bytes(self))


def visible(data: bytes) -> bytes:
    """The bytes as plain ones. Raises CutError when one of them is not known."""
    return data.__bytes__() if isinstance(data, CutBytes) else data


def joined(parts: Iterable[bytes]) -> bytes:
    """All parts after each other; unknown bytes stay unknown."""
    kept = list(parts)
    data = b"".join(kept)
    if not any(isinstance(part, CutBytes) for part in kept):
        return data
    return CutBytes(data, b"".join(part.hidden if isinstance(part, CutBytes) else bytes(len(part)) for part in kept))


def on_wire(frame: bytes, wire_length: int) -> bytes:
    """A frame in the length it had on the wire: as it is, or as CutBytes where the capture has fewer bytes."""
    missing = wire_length - len(frame)
    if missing <= 0:
        return frame
    return CutBytes(frame + bytes(missing), bytes(len(frame)) + b"\1" * missing)


def frame_on_wire(capture: Capture, number: int) -> bytes:
    """The same of one packet of a capture. Of a frame that is too long to be sent, one byte too many is enough."""
    frame = capture.frame(number)
    return on_wire(frame, min(int(capture.wire_length[number]), most_sendable(frame) + 1))


def captured_length(frame: bytes) -> int:
    """How many of a frame's bytes are known, from its first one on."""
    return frame.hidden.find(1) if isinstance(frame, CutBytes) else len(frame)


def most_sendable(frame: bytes) -> int:
    """The largest frame that begins like this one and that a socket sends."""
    return ETHERNET_MOST + (_VLAN_TAG if bytes.__getitem__(frame, slice(12, 14)) == _VLAN else 0)


def why_not_sendable(frame: bytes, wire_length: int) -> str:
    """Why no device sends or receives such a frame; "" when one can."""
    if wire_length < ETHERNET_LEAST:
        return f"a frame of {wire_length} bytes is shorter than an Ethernet header ({ETHERNET_LEAST} bytes)"
    most = most_sendable(frame)
    return f"longer than the longest frame that can be sent ({most:,} bytes)" if wire_length > most else ""
