"""The header fields of one packet, as values. :mod:`dossim.packet.parse` fills them in; nothing here decides.

Lengths and offsets are in bytes. Addresses are :mod:`ipaddress` types. A header object exists only if its fixed part
was complete; its variable part (options, extension headers, payload) may be cut short.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from dossim.packet.cut import CutError
from enforcer.model.vocabulary import Word

ETHER_HEADER = 14
VLAN_TAG = 4
IPV4_HEADER = 20  # without options
IPV6_HEADER = 40
ARP_HEADER = 28  # of Ethernet and IPv4

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPES_VLAN = frozenset({0x8100, 0x88A8})  # 802.1Q, 802.1ad: the tags that the kernel removes (eth_type_vlan)
ETHERTYPE_FIRST = 0x0600  # smaller values are 802.3 lengths

ICMP, IGMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 2, 6, 17, 33, 58, 132, 136
# Both ports are in the first four bytes of each.
PORT_PROTOCOLS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})
PORTS_LENGTH = 4
ICMP_HEADER = 8
TCP_HEADER = 20
UDP_HEADER = 8

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
EXTENSION_HEADERS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION})
FRAGMENT_HEADER = 8

PROTOCOL_NAMES = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 33: "DCCP", 58: "ICMPv6", 132: "SCTP", 136: "UDPLite"}


class Layer(Word):
    """The layers of a frame, in the order they are read."""

    NOTHING = "nothing"
    LINK = "link"
    NETWORK = "network"
    TRANSPORT = "transport"


class LinkType(Word):
    """The destination kind of a frame, as in ``skb->pkt_type``; frames to other hosts do not arrive."""

    HOST = "host"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"


@dataclass(frozen=True)
class VlanTag:
    """``type`` is the ethertype of the tag itself, 0x8100 or 0x88a8."""

    type: int
    control: int

    @property
    def id(self) -> int:
        return self.control & 0x0FFF


@dataclass(frozen=True)
class Ethernet:
    """``ethertype`` is the one after the last tag; ``payload`` follows it."""

    destination: bytes
    source: bytes
    tags: tuple[VlanTag, ...]
    ethertype: int
    payload: bytes

    @property
    def link_type(self) -> LinkType:
        if not self.destination[0] & 1:
            return LinkType.HOST
        return LinkType.BROADCAST if self.destination == b"\xff" * 6 else LinkType.MULTICAST


@dataclass(frozen=True)
class Arp:
    hardware: int
    protocol: int
    hardware_length: int
    protocol_length: int
    operation: int
    target: IPv4Address


@dataclass(frozen=True)
class IPv4:
    """``buf`` runs from the header to the end of the frame, or to the packet's own end after trimming."""

    buf: bytes
    version: int
    header_length: int
    tos: int
    total_length: int
    ident: int
    dont_fragment: bool
    more_fragments: bool
    offset: int
    ttl: int
    protocol: int
    checksum: int
    source: IPv4Address
    destination: IPv4Address

    @property
    def is_fragment(self) -> bool:
        return self.more_fragments or self.offset > 0

    @property
    def options(self) -> bytes:
        return self.buf[IPV4_HEADER : self.header_length]

    @property
    def payload(self) -> bytes:
        return self.buf[self.header_length : self.total_length]


@dataclass(frozen=True)
class IPv6:
    """``buf`` as for IPv4. Extension headers are part of the payload."""

    buf: bytes
    version: int
    traffic_class: int
    payload_length: int
    next_header: int
    hop_limit: int
    source: IPv6Address
    destination: IPv6Address


IP = IPv4 | IPv6


@dataclass(frozen=True)
class Transport:
    """The payload of IP as netfilter finds it: after the extension headers, not reassembled.

    ``offset`` is where it starts in the IP packet; ``fragment_offset`` is not 0 for a later fragment, whose transport
    header is in the first one.
    """

    protocol: int
    offset: int
    buf: bytes
    fragment_offset: int = 0

    @property
    def ports(self) -> tuple[int, int] | None:
        """Source and destination port; None if there are none."""
        if self.protocol not in PORT_PROTOCOLS or self.fragment_offset or len(self.buf) < PORTS_LENGTH:
            return None
        return int.from_bytes(self.buf[:2], "big"), int.from_bytes(self.buf[2:4], "big")


class HiddenTransport(Transport):
    """The payload of an IPv6 packet whose extension headers the capture cut: every access raises CutError."""

    def __init__(self) -> None:
        """Sets no field."""

    def __getattribute__(self, name: str) -> Any:
        if name in _OF_TRANSPORT:
            raise CutError
        return super().__getattribute__(name)


_OF_TRANSPORT = frozenset({"protocol", "offset", "buf", "fragment_offset", "ports"})
HIDDEN = HiddenTransport()


@dataclass(frozen=True)
class Packet:
    """One frame as far as it could be read; the rest is None."""

    frame: bytes
    link: Ethernet | None = None
    network: IPv4 | IPv6 | Arp | None = None
    transport: Transport | None = None

    @property
    def ip(self) -> IPv4 | IPv6 | None:
        return None if isinstance(self.network, Arp) else self.network

    @property
    def reach(self) -> Layer:
        """The last layer that could be read."""
        layers = ((self.transport, Layer.TRANSPORT), (self.network, Layer.NETWORK), (self.link, Layer.LINK))
        return next((layer for value, layer in layers if value is not None), Layer.NOTHING)
