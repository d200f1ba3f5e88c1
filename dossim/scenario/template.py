"""Template: one packet built by Scapy, then copied many times with other addresses, ports and numbers.

Scapy takes some 200 µs to build a packet; a copy takes a few. Every copy gets correct checksums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from dossim.packet.fields import ETHER_HEADER, ICMP, ICMPV6, IPV4_HEADER, IPV6_HEADER, TCP, UDP, VLAN_TAG
from dossim.packet.parse import internet_checksum
from enforcer.model.nets import IPAddress

HOST_MAC = "02:00:00:00:00:01"  # replay writes the real one
OUTSIDE_MAC = "02:00:00:00:00:02"

_CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}


def ethernet(*, vlan: Sequence[int] = (), destination: str = HOST_MAC) -> Packet:
    """An Ethernet header towards the host, with VLAN tags from the outside in."""
    header: Packet = Ether(dst=destination, src=OUTSIDE_MAC)
    for tag in vlan:
        header = header / Dot1Q(vlan=tag)
    return header


class Template:
    """``packet`` starts with IP or IPv6 without options or extension headers, and has a transport."""

    def __init__(self, packet: Packet, *, vlan: Sequence[int] = ()) -> None:
        self._buf = bytes(ethernet(vlan=vlan) / packet)
        self._network = ETHER_HEADER + VLAN_TAG * len(vlan)
        self._six = self._buf[self._network] >> 4 == 6
        self._transport = self._network + (IPV6_HEADER if self._six else IPV4_HEADER)
        self._protocol = self._buf[self._network + (6 if self._six else 9)]

    def stamp(
        self, source: IPAddress, destination: IPAddress, patches: Mapping[int, bytes], *, ident: int = 1
    ) -> bytes:
        """A copy. ``patches`` are bytes by their offset in the transport header; ``ident`` is IPv4's."""
        frame = bytearray(self._buf)
        first = self._network + (8 if self._six else 12)
        addresses = source.packed + destination.packed
        frame[first : first + len(addresses)] = addresses
        if not self._six:
            frame[self._network + 4 : self._network + 6] = u16(ident)
            seal_header(frame, self._network)
        for offset, buf in patches.items():
            frame[self._transport + offset : self._transport + offset + len(buf)] = buf
        self._seal_transport(frame, addresses)
        return bytes(frame)

    def _seal_transport(self, frame: bytearray, addresses: bytes) -> None:
        at = self._transport + _CHECKSUM_AT[self._protocol]
        frame[at : at + 2] = b"\0\0"
        segment = bytes(frame[self._transport :])
        pseudo = b"" if self._protocol == ICMP else addresses + len(segment).to_bytes(4, "big") + u32(self._protocol)
        # In UDP a checksum of 0 means "no checksum", so a computed 0 is sent as 0xffff (RFC 768).
        checksum = internet_checksum(pseudo, segment) or (0xFFFF if self._protocol == UDP else 0)
        frame[at : at + 2] = u16(checksum)


def seal_header(frame: bytearray, at: int) -> None:
    """Set the checksum of the IPv4 header (without options) at ``at``."""
    frame[at + 10 : at + 12] = b"\0\0"
    frame[at + 10 : at + 12] = u16(internet_checksum(bytes(frame[at : at + IPV4_HEADER])))


def u16(value: int) -> bytes:
    return (value & 0xFFFF).to_bytes(2, "big")


def u32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "big")
