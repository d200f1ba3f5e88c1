"""Which packets may meet on each other, by their addresses. Pure.

Fragments of one datagram have the same two addresses, and so have the packets of one connection in both directions; an
ICMP error belongs to the connection of the packet that it quotes. Packets between other addresses never meet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dossim.packet.capture import Capture
from dossim.packet.columns import Columns, parse_columns
from dossim.packet.fields import EXTENSION_HEADERS, ICMP, ICMP_HEADER, ICMPV6, IPV4_HEADER, IPV6_HEADER

Bool = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_ERRORS4 = (3, 4, 5, 11, 12)
_ERRORS6_BELOW, _REDIRECT = 128, 137
_FRAGMENT = 0x3FFF
_MIX = np.uint64(0x9E37_79B9_7F4A_7C15)


def pairs_of(capture: Capture, *, states: bool) -> tuple[U64, Bool]:
    """A number for the two addresses of each packet, and whether these are not known, so that it may meet any other.
    With ``states`` conntrack is followed: of an ICMP error it is those of the packet that it quotes.
    """
    columns = parse_columns(capture)
    pairs = np.zeros(len(capture), np.uint64)
    is_cut = capture.wire_length > capture.length
    unknown: Bool = is_cut.copy()
    _four(columns, pairs, unknown, is_cut, states=states)
    _six(columns, pairs, unknown, is_cut, states=states)
    return pairs, unknown


def _four(columns: Columns, pairs: U64, unknown: Bool, is_cut: Bool, *, states: bool) -> None:
    buf, ip = columns.buf, columns.ipv4
    whole = ip.available >= IPV4_HEADER
    source, destination = ip.source.astype(np.uint64), ip.destination.astype(np.uint64)
    mine = _pair((source, source), (destination, destination))
    open_ = np.zeros(len(ip.rows), np.bool_)
    if states:
        icmp = ip.protocol == ICMP
        error = icmp & np.isin(buf.u8(ip.start + ip.header_length), _ERRORS4)
        at = ip.start + ip.header_length + ICMP_HEADER
        source, destination = buf.u32(at + 12).astype(np.uint64), buf.u32(at + 16).astype(np.uint64)
        mine = np.where(error, _pair((source, source), (destination, destination)), mine)
        open_ = icmp & (is_cut[ip.rows] | (ip.fragment & _FRAGMENT != 0))
    pairs[ip.rows[whole]] = mine[whole]
    unknown[ip.rows[whole]] = open_[whole]


def _six(columns: Columns, pairs: U64, unknown: Bool, is_cut: Bool, *, states: bool) -> None:
    buf, ip = columns.buf, columns.ipv6
    whole = ip.available >= IPV6_HEADER
    mine = _pair(ip.source, ip.destination)
    open_ = np.zeros(len(ip.rows), np.bool_)
    if states:
        icmp, kind = ip.next_header == ICMPV6, buf.u8(ip.start + IPV6_HEADER)
        at = ip.start + IPV6_HEADER + ICMP_HEADER
        quoted = _pair((buf.u64(at + 8), buf.u64(at + 16)), (buf.u64(at + 24), buf.u64(at + 32)))
        mine = np.where(icmp & (kind < _ERRORS6_BELOW), quoted, mine)
        open_ = icmp & (is_cut[ip.rows] | (kind == _REDIRECT))
        open_ |= np.isin(ip.next_header, list(EXTENSION_HEADERS))  # what is after them is not looked at
    pairs[ip.rows[whole]] = mine[whole]
    unknown[ip.rows[whole]] = open_[whole]


def _pair(one: tuple[U64, U64], other: tuple[U64, U64]) -> U64:
    """The same for both orders."""
    return np.asarray(_mixed(one) + _mixed(other), np.uint64)


def _mixed(address: tuple[U64, U64]) -> U64:
    high, low = address
    value = (high ^ high >> np.uint64(31)) * _MIX + low
    value = (value ^ value >> np.uint64(29)) * _MIX
    return np.asarray(value ^ value >> np.uint64(32), np.uint64)
