"""802.11 data frames as Ethernet frames, and the headers that monitor interfaces prepend.

As ``ieee80211_data_to_8023`` does it (net/wireless/util.c): addresses by direction; LLC/SNAP is removed if it has an
ethertype, otherwise the ethertype field gets the length.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dossim.packet.reframe import Packet, Part, Result, shifted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TYPES = ("802.11 management frame", "802.11 control frame", "", "802.11 extension frame")
_NO_DATA, _QOS = 4, 8  # bits of a data frame's subtype
_TO_DS, _FROM_DS, _MORE_FRAGMENTS, _PROTECTED, _ORDER = 0x01, 0x02, 0x04, 0x40, 0x80
_AMSDU = 0x80
_SNAP, _BRIDGE_TUNNEL = b"\xaa\xaa\x03\x00\x00\x00", b"\xaa\xaa\x03\x00\x00\xf8"
_KEPT_IN_SNAP = (0x80F3, 0x8137)  # AARP, IPX


def ieee802_11(packet: Packet, fcs: int = 0, *, padded: bool = False) -> Result:
    """A frame; the last ``fcs`` bytes are the check sequence, ``padded``: its header is padded to a multiple of 4
    bytes.
    """
    buf = packet.buf
    control, flags = buf[0], buf[1]
    if control & 3:
        return "802.11 of an unknown version"
    kind, subtype = control >> 2 & 3, control >> 4
    if kind != 2:
        return _TYPES[kind]
    if subtype & _NO_DATA:
        return "802.11 without data (null function)"
    if flags & _PROTECTED:
        return "encrypted 802.11 frame"
    (sequence,) = struct.unpack_from("<H", buf, 22)
    if flags & _MORE_FRAGMENTS or sequence & 0x0F:
        return "802.11 fragment"
    header = 30 if flags & _TO_DS and flags & _FROM_DS else 24
    if subtype & _QOS:
        if buf[header] & _AMSDU:
            return "802.11 A-MSDU (several packets in one frame)"
        header += 6 if flags & _ORDER else 2
    if padded:
        header = (header + 3) // 4 * 4
    return _payload(packet, _addresses(buf, flags), header, fcs)


def _addresses(buf: bytes, flags: int) -> bytes:
    """Destination and source."""
    first, second, third = buf[4:10], buf[10:16], buf[16:22]
    if flags & _TO_DS:
        return third + (buf[24:30] if flags & _FROM_DS else second)
    return first + (third if flags & _FROM_DS else second)


def _payload(packet: Packet, addresses: bytes, start: int, fcs: int) -> Result:
    length = packet.wire - fcs - start
    if length < 0:
        return "too short for its 802.11 header"
    if length >= 8:
        snap, ethertype = struct.unpack_from(">6sH", packet.buf, start)
        if snap == _BRIDGE_TUNNEL or (snap == _SNAP and ethertype not in _KEPT_IN_SNAP):
            return Part(addresses + ethertype.to_bytes(2, "big"), start + 8, fcs)
    return Part(addresses + (length & 0xFFFF).to_bytes(2, "big"), start, fcs)


_TSFT, _FLAGS, _TX_FLAGS, _MORE_WORDS = 1 << 0, 1 << 1, 1 << 15, 1 << 31
_HAS_FCS, _DATA_PAD, _BAD_FCS = 0x10, 0x20, 0x40


def radiotap(packet: Packet) -> Result:
    """IEEE802_11_RADIOTAP (https://www.radiotap.org): its flags state the check sequence and padding."""
    version, _, length, present = struct.unpack_from("<BBHI", packet.buf)
    if version or length < 8:
        return "damaged radiotap header"
    at, word = 8, present
    while word & _MORE_WORDS and at + 4 <= length:
        (word,) = struct.unpack_from("<I", packet.buf, at)
        at += 4
    if present & _TX_FLAGS:
        return "sent by the host (radiotap TX flags)"
    if present & _TSFT:
        at = (at + 7) // 8 * 8 + 8
    flags = packet.buf[at] if present & _FLAGS and at < length else 0
    if flags & _BAD_FCS:
        return "bad frame check sequence (802.11)"
    inner = ieee802_11(packet.after(length), 4 if flags & _HAS_FCS else 0, padded=bool(flags & _DATA_PAD))
    return shifted(inner, length)


def prism_or_avs(packet: Packet) -> Result:
    """IEEE802_11_PRISM and IEEE802_11_AVS: a header that states its length."""
    version, length = struct.unpack_from(">II", packet.buf)
    if version >> 12 != 0x80211:  # Prism, in the byte order of the machine that captured
        (length,) = struct.unpack_from(">I" if packet.big_endian else "<I", packet.buf, 4)
    return shifted(ieee802_11(packet.after(length)), length)


def ppi(packet: Packet, decoders: Mapping[int, Callable[[Packet], Result]], ieee802_11_type: int) -> Result:
    """PPI: fields about the packet, and the link type of the payload; only the field 802.11-Common matters."""
    version, _, length, link = struct.unpack_from("<BBHI", packet.buf)
    if version or length < 8:
        return "damaged PPI header"
    inner = packet.after(length)
    if link != ieee802_11_type:
        return shifted(decoders[link](inner), length) if link in decoders else "PPI with another link type in it"
    flags = _ppi_flags(packet.buf[:length])
    if flags & 4:
        return "bad frame check sequence (802.11)"
    return shifted(ieee802_11(inner, 4 if flags & 1 else 0), length)


def _ppi_flags(header: bytes) -> int:
    at = 8
    while at + 4 <= len(header):
        kind, length = struct.unpack_from("<HH", header, at)
        if kind == 2 and at + 14 <= len(header):  # 802.11-Common: a time of 8 bytes, then flags
            return int(struct.unpack_from("<H", header, at + 12)[0])
        at += 4 + length
    return 0
