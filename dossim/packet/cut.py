"""Frames that the capture cut: bytes that were on the wire but are not in the file.

Such a frame has its full length, and its missing bytes are unknown. Reading one of them raises CutError, so a result
found without that error holds for every frame that begins like this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, SupportsIndex, overload

if TYPE_CHECKING:
    from dossim.packet.capture import Capture

ETHERNET_LEAST = 14  # the least that a socket can send: the Ethernet header
# The largest MTU (ETH_MAX_MTU, 65,535) after an Ethernet header: the most that a socket sends (packet_snd).
ETHERNET_MOST = 65_549
_VLAN = b"\x81\x00"  # four more bytes for 802.1Q only (packet_extra_vlan_len_allowed)
_VLAN_TAG = 4
LARGEST = ETHERNET_MOST + _VLAN_TAG


class CutError(Exception):
    """A byte that the capture cut was needed. Never leaves the model: the caller returns *undetermined*."""


class CutBytes(bytes):
    """Bytes of which some are unknown: those with a 1 in ``hidden``, which has the same length.

    Indexing, reading numbers and iterating raise CutError at an unknown byte. A slice without one is plain bytes.
    Whatever reads the memory directly (``b"".join``, comparison) sees zeros; use :func:`joined` and :func:`visible`.
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
    """The same as plain bytes. Raises CutError if one of them is unknown."""
    return data.__bytes__() if isinstance(data, CutBytes) else data


def joined(parts: Iterable[bytes]) -> bytes:
    """All parts concatenated; unknown bytes stay unknown."""
    kept = list(parts)
    data = b"".join(kept)
    if not any(isinstance(part, CutBytes) for part in kept):
        return data
    return CutBytes(data, b"".join(part.hidden if isinstance(part, CutBytes) else bytes(len(part)) for part in kept))


def on_wire(frame: bytes, wire_length: int) -> bytes:
    """A frame with its length on the wire: as it is, or as CutBytes if the capture has fewer bytes."""
    missing = wire_length - len(frame)
    if missing <= 0:
        return frame
    return CutBytes(frame + bytes(missing), bytes(len(frame)) + b"\1" * missing)


def frame_on_wire(capture: Capture, number: int) -> bytes:
    """As :func:`on_wire`, for one packet of a capture. A frame too long to be sent is cut one byte after the limit."""
    frame = capture.frame(number)
    return on_wire(frame, min(int(capture.wire_length[number]), most_sendable(frame) + 1))


def captured_length(frame: bytes) -> int:
    """How many bytes at the start of a frame are known."""
    return frame.hidden.find(1) if isinstance(frame, CutBytes) else len(frame)


def most_sendable(frame: bytes) -> int:
    """The length of the longest frame that begins like this one and that a socket can send."""
    return ETHERNET_MOST + (_VLAN_TAG if bytes.__getitem__(frame, slice(12, 14)) == _VLAN else 0)


def why_not_sendable(frame: bytes, wire_length: int) -> str:
    """Why no device sends or receives such a frame; "" if one can."""
    if wire_length < ETHERNET_LEAST:
        return f"a frame of {wire_length} bytes is shorter than an Ethernet header ({ETHERNET_LEAST} bytes)"
    most = most_sendable(frame)
    return f"longer than the longest frame that can be sent ({most:,} bytes)" if wire_length > most else ""
