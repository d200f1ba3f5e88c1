"""The XDP program's decision in Python, for tests: it reads the maps' bytes as bpf/include/abi.h lays them out.

It follows ``may_drop()`` and ``verdict_of()`` of bpf/xdp_untracked.bpf.c step by step, and does not use the code that
creates the maps. Addresses are given as classes, because their look-up is tested separately.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from enforcer.backends.xdp.state.generation import Contents, Elements
from enforcer.model.abi import MAX_SKIPS, PROTOCOL_UNKNOWN
from tests.support.ruletables import Packet

ROW = struct.Struct("=8Q")
POLICY = ("deny", "skip", "match_protocol", "match_ports", "match_icmp", "portless")
SOURCE, DESTINATION, ICMP, ICMPV6 = range(4)  # enum port_directory; the first two are enum side as well
WITH_PORTS = (6, 17, 132)


@dataclass(frozen=True)
class Twin:
    """The program, with the contents of its maps."""

    contents: Contents

    def dropped_by(self, packet: Packet, source: int, destination: int) -> int | None:
        """The bit that drops a packet whose addresses have these classes; None if it passes."""
        if not source and not self._setting("drop_unlisted"):
            return None
        if not self._address_row(source, SOURCE, packet.family) & self._policy("deny"):
            return None
        left = self._row("protocols", PROTOCOL_UNKNOWN if packet.protocol is None else packet.protocol)
        left &= self._address_row(source, SOURCE, packet.family)
        if self._setting("match_destination"):
            left &= self._address_row(destination, DESTINATION, packet.family)
        indeterminate = 0
        if packet.protocol is None:
            indeterminate = self._policy("match_protocol")
            left |= indeterminate
        elif packet.protocol in WITH_PORTS:
            if packet.ports is None:
                indeterminate = self._policy("match_ports")
            else:
                left &= self._ports(packet, SOURCE) & self._ports(packet, DESTINATION)
        else:
            left &= self._policy("portless")
            if packet.protocol == {4: 1, 6: 58}[packet.family]:
                if packet.icmp is None:
                    indeterminate = self._policy("match_icmp")
                else:
                    kind, code = packet.icmp
                    left &= self._pair(ICMP if packet.family == 4 else ICMPV6, kind << 8 | code)[0]
        return self._first(left & self._words(), indeterminate)

    def _first(self, left: int, indeterminate: int) -> int | None:
        for _ in range(MAX_SKIPS + 1):
            bit = (left & -left).bit_length() - 1
            if bit < 0 or indeterminate >> bit & 1:
                return None
            if self._policy("deny") >> bit & 1:
                return bit
            if not self._setting("may_skip") or not self._policy("skip") >> bit & 1:
                return None
            left &= self._row("tiers", bit)
        return None

    def _ports(self, packet: Packet, side: int) -> int:
        assert packet.ports is not None
        wanted, unwanted = self._pair(side, packet.ports[side])
        if not self._setting("match_named_ports"):
            return wanted
        address = (packet.source, packet.destination)[side]
        key = address.packed.ljust(16, b"\0") + struct.pack("!H", packet.ports[side])
        key += bytes([packet.protocol or 0, side, packet.family, 0, 0, 0])
        found = self._named.get(key)
        named = _pair_of(found) if found else (0, 0)
        return (wanted | named[0]) & ~(unwanted | named[1])

    @cached_property
    def _named(self) -> dict[bytes, bytes]:
        return dict(zip(*self.contents.hashes["named"], strict=True))

    def _pair(self, directory: int, number: int) -> tuple[int, int]:
        """The row of port_rows for a port, from a directory, perhaps through a page."""
        place = len(POLICY) * ROW.size + 4 * (256 * directory + (number >> 8))
        (found,) = struct.unpack_from("=I", self.contents.arrays["policy"].data, place)
        if found >> 31:
            page = _element(self.contents.arrays["port_pages"], found & 0x7FFFFFFF)
            (found,) = struct.unpack_from("=H", page, 2 * (number & 0xFF))
        return _pair_of(_element(self.contents.arrays["port_rows"], found))

    def _address_row(self, number: int, side: int, family: int) -> int:
        place = (side if family == 4 else 2 + side) * ROW.size
        return _row_of(_element(self.contents.arrays["rows"], number)[place : place + ROW.size])

    def _policy(self, field: str) -> int:
        place = POLICY.index(field) * ROW.size
        return _row_of(_element(self.contents.arrays["policy"], 0)[place : place + ROW.size])

    def _row(self, name: str, number: int) -> int:
        return _row_of(_element(self.contents.arrays[name], number))

    def _words(self) -> int:
        """The bits of the words that the program reads."""
        return (1 << 64 * self._setting("row_words")) - 1

    def _setting(self, name: str) -> int:
        settings: Mapping[str, int] = self.contents.settings
        return settings[name]


def _element(elements: Elements, number: int) -> bytes:
    assert 0 <= number < len(elements), "a lookup beyond the map"
    return elements.data[number * elements.size : (number + 1) * elements.size]


def _row_of(buf: bytes) -> int:
    a, b, c, d, e, f, g, h = ROW.unpack(buf)
    low = a | b << 64 | c << 128 | d << 192
    return low | (e | f << 64 | g << 128 | h << 192) << 256 if e or f or g or h else low


def _pair_of(buf: bytes) -> tuple[int, int]:
    return _row_of(buf[: ROW.size]), _row_of(buf[ROW.size :])
