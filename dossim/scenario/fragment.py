"""Fragments of one frame, as a sender with a small MTU would make them. Pure, on bytes."""

from __future__ import annotations

from dossim.packet.fields import ETHER_HEADER, FRAGMENT, FRAGMENT_HEADER, IPV4_HEADER, IPV6_HEADER, VLAN_TAG
from dossim.scenario.template import seal_header, u16, u32

_MORE4, _MORE6 = 0x2000, 1
_UNIT = 8  # offsets count units of 8 bytes


def fragments_of(frame: bytes, *, mtu: int, ident: int, tags: int = 0) -> list[bytes]:
    """The frame's IP packet (without options or extension headers) in pieces of at most ``mtu`` bytes each."""
    network = ETHER_HEADER + VLAN_TAG * tags
    six = frame[network] >> 4 == 6
    header_length = IPV6_HEADER if six else IPV4_HEADER
    room = mtu - header_length - (FRAGMENT_HEADER if six else 0)
    room -= room % _UNIT
    header, payload = frame[: network + header_length], frame[network + header_length :]
    make = _piece6 if six else _piece4
    return [
        make(header, network, payload[at : at + room], at, ident, more=at + room < len(payload))
        for at in range(0, len(payload), room)
    ]


def _piece4(header: bytes, network: int, part: bytes, at: int, ident: int, *, more: bool) -> bytes:
    frame = bytearray(header + part)
    frame[network + 2 : network + 4] = u16(IPV4_HEADER + len(part))
    frame[network + 4 : network + 6] = u16(ident)
    frame[network + 6 : network + 8] = u16(at // _UNIT | (_MORE4 if more else 0))
    seal_header(frame, network)
    return bytes(frame)


def _piece6(header: bytes, network: int, part: bytes, at: int, ident: int, *, more: bool) -> bytes:
    frame = bytearray(header)
    fragment = bytes((frame[network + 6], 0)) + u16(at | (_MORE6 if more else 0)) + u32(ident)
    frame[network + 4 : network + 6] = u16(len(fragment) + len(part))
    frame[network + 6] = FRAGMENT
    return bytes(frame) + fragment + part
