"""Link types other than Ethernet: their frames get an Ethernet header, so that the rest of the project knows one kind.

Numbers and layouts: https://www.tcpdump.org/linktypes.html. The destination is a group address where the original
header says broadcast or multicast, all zero otherwise (the replayer puts the victim's there); the source is zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dossim.errors import CaptureError
from dossim.packet.records import Records

ETHERNET = 1
_NULL, _LOOP = 0, 108
_RAW = {12, 14, 101}
_IPV4, _IPV6 = 228, 229
_LINUX_SLL, _LINUX_SLL2 = 113, 276

_UNICAST, _GROUP, _BROADCAST = bytes(6), b"\x01" + bytes(5), b"\xff" * 6
_SOURCE = bytes(6)
_ETHERTYPE_OF_VERSION = {4: b"\x08\x00", 6: b"\x86\xdd"}
# SLL packet types: to us, broadcast, multicast, to somebody else, from us.
_DESTINATION = {1: _BROADCAST, 2: _GROUP}

Columns = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]


def as_ethernet(name: str, octets: bytes, records: Records) -> Columns:
    """``(data, offset, length, wire_length)`` of the records as Ethernet frames; Ethernet files are not copied."""
    kinds = set(np.unique(records.link).tolist())
    unknown = kinds - _RAW - {ETHERNET, _NULL, _LOOP, _IPV4, _IPV6, _LINUX_SLL, _LINUX_SLL2}
    if unknown:
        raise CaptureError(
            f"{name}: link type {min(unknown)} is not known here; Ethernet, raw IP, Linux cooked (SLL, SLL2) or "
            f"BSD loopback would be right"
        )
    data = np.frombuffer(octets, np.uint8)
    if kinds <= {ETHERNET}:
        return data, records.offset, records.length, records.wire_length
    frames = [
        _reframed(int(link), octets[start : start + size])
        for link, start, size in zip(records.link, records.offset.tolist(), records.length.tolist(), strict=True)
    ]
    length = np.array([len(frame) for frame in frames], np.int32)
    offset = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])[:-1].astype(np.int64)
    wire_length = records.wire_length + (length - records.length)  # the header that was put in front counts as well
    return np.frombuffer(b"".join(frames), np.uint8), offset, length, wire_length


def _reframed(link: int, packet: bytes) -> bytes:
    if link == ETHERNET:
        return packet
    if link == _LINUX_SLL:
        return _DESTINATION.get(packet[1] if len(packet) > 1 else 0, _UNICAST) + _SOURCE + packet[14:]
    if link == _LINUX_SLL2:
        kind = packet[10] if len(packet) > 10 else 0
        return _DESTINATION.get(kind, _UNICAST) + _SOURCE + packet[:2] + packet[20:]
    if link in (_NULL, _LOOP):
        packet = packet[4:]
    version = packet[0] >> 4 if packet else 4
    ethertype = _ETHERTYPE_OF_VERSION.get({_IPV4: 4, _IPV6: 6}.get(link, version), b"\x08\x00")
    return _UNICAST + _SOURCE + ethertype + packet
