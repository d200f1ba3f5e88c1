"""The supported link types, and how their packets are turned into Ethernet frames in place.

An Ethernet header fits before every payload: it overwrites the header it replaces and the file's record header, which
has been read by then. So nothing is copied.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dossim.packet import cooked, reframe, wifi
from dossim.packet.linknames import link_name
from dossim.packet.nflog import nflog
from dossim.packet.reframe import Packet, Part, Result

I64 = npt.NDArray[np.int64]

ETHERNET = 1
_ETHER_HEADER = 14
_FIRST_ETHERTYPE = 0x0600
IEEE802_11, RADIOTAP, PPI = 105, 127, 192


def _ethernet(packet: Packet) -> Result:
    return Part(b"", 0)


def _ppi(packet: Packet) -> Result:
    return wifi.ppi(packet, _IN_PPI, IEEE802_11)


_IN_PPI: dict[int, Callable[[Packet], Result]] = {
    0: reframe.loopback,
    ETHERNET: _ethernet,
    9: reframe.ppp,
    12: reframe.raw,  # DLT_RAW on BSDs and Linux
    14: reframe.raw,  # DLT_RAW on OpenBSD
    50: reframe.ppp_hdlc,
    51: reframe.ppp_ether,
    101: reframe.raw,
    104: reframe.c_hdlc,
    IEEE802_11: wifi.ieee802_11,
    108: reframe.loopback,
    113: cooked.linux_sll,
    119: wifi.prism_or_avs,
    RADIOTAP: wifi.radiotap,
    163: wifi.prism_or_avs,
    166: reframe.ppp_pppd,
    204: reframe.ppp_with_dir,
    205: reframe.c_hdlc_with_dir,
    228: reframe.ipv4,
    229: reframe.ipv6,
    239: nflog,
    276: cooked.linux_sll2,
}
DECODERS: Mapping[int, Callable[[Packet], Result]] = {**_IN_PPI, PPI: _ppi}


_RAW, _LOOPBACK = (0,), (0, 1, 2, 3)
_SLL, _SLL2 = (0, 1, 2, 3, 14, 15), (0, 1, 8, 9, 10, 19)
# The bytes that the decoder's result depends on; the last one is the last that the decoder reads.
_DECIDED_BY: dict[int, tuple[int, ...]] = {
    0: _LOOPBACK, 108: _LOOPBACK, 12: _RAW, 14: _RAW, 101: _RAW, 228: _RAW, 229: _RAW, 113: _SLL, 276: _SLL2,
}  # fmt: skip
_MOST_KEYS = 512


@dataclass
class Reframer:
    """Turns packets into Ethernet frames in place. ``at``, ``length`` and ``wire_length`` are changed as well;
    ``kept``: which packets became frames. ``skipped``: how many did not, by reason.
    """

    buf: memoryview
    at: I64
    length: npt.NDArray[np.int32]
    wire_length: npt.NDArray[np.int32]
    big_endian: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.bool_]
    skipped: Counter[str]

    def run(self, link: int, rows: I64) -> None:
        """Converts all packets of one link type."""
        if link == ETHERNET:
            return
        for row in self._together(link, rows).tolist():
            self._one(link, row)

    def _packet(self, row: int) -> Packet:
        at = int(self.at[row])
        buf = bytes(self.buf[at : at + int(self.length[row])])
        return Packet(buf, int(self.wire_length[row]), bool(self.big_endian[row]))

    def _together(self, link: int, rows: I64) -> I64:
        """Decode packets together that agree in all deciding bytes; returns those to be decoded one by one."""
        decided_by = _DECIDED_BY.get(link)
        if decided_by is None:
            return rows
        long_enough = self.length[rows] > decided_by[-1]
        groups = self._groups(rows[long_enough], decided_by)
        if groups is None:
            return rows
        left = [rows[~long_enough]]
        for group in groups:
            packet = self._packet(int(group[0]))
            try:
                # Only the bytes that they agree in, so that no others can affect the result.
                part = DECODERS[link](packet._replace(buf=packet.buf[: decided_by[-1] + 1]))
            except (IndexError, struct.error):
                left.append(group)
                continue
            if isinstance(part, str):
                self._leave_out(group, part)
            elif part.start > decided_by[-1] + 1 or int.from_bytes(part.header[12:], "big") < _FIRST_ETHERTYPE:
                left.append(group)  # its length or later bytes matter as well
            else:
                self._put(group, part)
        return np.concatenate(left)

    def _groups(self, rows: I64, decided_by: tuple[int, ...]) -> list[I64] | None:
        """Groups that agree in the deciding bytes; None if so many that decoding one by one takes no longer."""
        if not len(rows):
            return []
        data = np.frombuffer(self.buf, np.uint8)
        key = np.zeros(len(rows), np.int64)
        for place in decided_by:
            key = key << 8 | data[self.at[rows] + place]
        order = np.argsort(key, kind="stable")
        bounds = np.flatnonzero(np.diff(key[order])) + 1
        return None if len(bounds) > _MOST_KEYS else np.split(rows[order], bounds)

    def _put(self, rows: I64, part: Part) -> None:
        data = np.frombuffer(self.buf, np.uint8)
        header = np.frombuffer(part.header, np.uint8)
        grown = len(header) - part.start
        self.at[rows] -= grown
        self.length[rows] += grown
        self.wire_length[rows] += grown
        for place, value in enumerate(header):
            data[self.at[rows] + place] = value

    def _leave_out(self, rows: I64, why: str) -> None:
        self.kept[rows] = False
        self.skipped[why] += len(rows)

    def _one(self, link: int, row: int) -> None:
        packet = self._packet(row)
        try:
            part = DECODERS[link](packet)
        except (IndexError, struct.error):
            if len(packet.buf) < packet.wire:  # the capture cut its header: only its arrival is known
                self.length[row], self.wire_length[row] = 0, max(packet.wire, _ETHER_HEADER)
                return
            part = f"too short for its {link_name(link)} header"
        end = 0 if isinstance(part, str) else packet.wire - part.trailer
        if isinstance(part, Part) and end < part.start:
            part = f"too short for its {link_name(link)} header"
        if isinstance(part, str):
            self.kept[row] = False
            self.skipped[part] += 1
            return
        size = len(part.header)
        at = int(self.at[row]) + part.start - size
        self.buf[at : at + size] = part.header
        self.at[row] = at
        self.length[row] = size + max(min(len(packet.buf), end) - part.start, 0)
        self.wire_length[row] = size + end - part.start + part.missing
