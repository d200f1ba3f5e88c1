"""From the driver to the first netfilter hook: VLAN tags, protocol handlers, IP header checks. Stage ``ip-input``.

``net/core/dev.c`` (``__netif_receive_skb_core``), ``net/ipv4/arp.c`` (``arp_rcv``, ``arp_process``),
``net/ipv4/ip_input.c`` (``ip_rcv_core``), ``net/ipv6/ip6_input.c`` (``ip6_rcv_core``). The host has no VLAN interfaces.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address
from typing import TypeVar

from dossim.model.disposition import Fate
from dossim.packet.fields import (
    ETHER_HEADER,
    ETHERTYPE_ARP,
    ETHERTYPE_FIRST,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPES_VLAN,
    HOP_BY_HOP,
    IP,
    IPV4_HEADER,
    IPV6_HEADER,
    VLAN_TAG,
    Arp,
    Ethernet,
    IPv4,
    IPv6,
)
from dossim.packet.parse import header_checksum_ok, parse_arp, parse_ipv4, parse_ipv6
from dossim.pipeline.options6 import jumbo_length, why_bad_hop_by_hop
from dossim.pipeline.stages import Context, PacketState, Step
from enforcer.model.vocabulary import Stage

ETHERNET_HARDWARE = (1, 6)  # ARPHRD_ETHER, ARPHRD_IEEE802
ARP_OPERATIONS = (1, 2)  # request, reply
_IP = TypeVar("_IP", IPv4, IPv6)
_LOOPBACK6 = IPv6Address("::1")


def check(state: PacketState, context: Context) -> Step:
    link = state.packet.link
    if link is None:
        return _drop(state, "the frame", f"shorter than an Ethernet header ({ETHER_HEADER} bytes): cannot be sent")
    protocol, other_host, why = _untag(link)
    if why:
        return _drop(state, "VLAN tags", why)
    if protocol == ETHERTYPE_ARP:
        return _arp(state, link, other_host=other_host)
    if protocol not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
        kind = "802.3 length" if protocol < ETHERTYPE_FIRST else f"ethertype {protocol:#06x}"
        return _drop(state, kind, "no protocol handler")
    if other_host:
        return _drop(state, "VLAN tags", "for a VLAN without an interface: another host's")
    return _ip4(state, link) if protocol == ETHERTYPE_IPV4 else _ip6(state, link)


def _untag(link: Ethernet) -> tuple[int, bool, str]:
    """(protocol, whether a VLAN id made it another host's, why it was dropped).

    Tags with id 0 carry a priority only and are taken off one after the other (``skb_vlan_untag``, which wants two
    bytes after each tag); the first with an id is the last one removed.
    """
    length = len(link.payload) + VLAN_TAG * len(link.tags)
    for at, tag in enumerate(link.tags):
        length -= VLAN_TAG
        if length < 2:
            return 0, False, "truncated after a VLAN tag"
        if tag.id:
            inner = link.tags[at + 1].type if at + 1 < len(link.tags) else link.ethertype
            return inner, True, ""
    if link.ethertype in ETHERTYPES_VLAN:
        return 0, False, "VLAN tag cut short"
    return link.ethertype, False, ""


def _arp(state: PacketState, link: Ethernet, *, other_host: bool) -> Step:
    arp = parse_arp(link.payload)
    if other_host:
        return Step(Fate.DELIVERED, state, "ARP", "another host's: ignored")
    if arp is None:
        return _drop(state, "ARP", "cut short")
    why = _why_bad_arp(arp)
    return _drop(state, "ARP", why) if why else Step(Fate.DELIVERED, state, "ARP", "handled by the host")


def _why_bad_arp(arp: Arp) -> str:
    if (arp.hardware_length, arp.protocol_length) != (6, 4):
        return "its addresses are not of Ethernet and IPv4"
    if arp.hardware not in ETHERNET_HARDWARE or arp.protocol != ETHERTYPE_IPV4:
        return "not of Ethernet and IPv4"
    if arp.operation not in ARP_OPERATIONS:
        return f"operation {arp.operation} is neither request nor reply"
    if arp.target.is_multicast or arp.target.is_loopback:
        return "its target is a multicast or loopback address"
    return ""


def _ip4(state: PacketState, link: Ethernet) -> Step:
    ip = state.packet.ip
    if not isinstance(ip, IPv4):
        ip = parse_ipv4(link.payload)
    if ip is None:
        return _drop(state, "IPv4 header", f"frame ends before {IPV4_HEADER} bytes")
    why = _why_bad_ipv4(ip)
    if why:
        return _drop(state, "IPv4 header", why)
    return _accept(state, link, _trimmed(ip, ip.total_length))


def _why_bad_ipv4(ip: IPv4) -> str:
    """``ip_rcv_core``, in its order."""
    if ip.header_length < IPV4_HEADER or ip.version != 4:
        return f"version {ip.version}, header length {ip.header_length}"
    if len(ip.buf) < ip.header_length:
        return "frame ends inside the header"
    if not header_checksum_ok(ip):
        return "bad header checksum"
    if len(ip.buf) < ip.total_length:
        return f"total length {ip.total_length} is beyond the frame"
    if ip.total_length < ip.header_length:
        return f"total length {ip.total_length} is shorter than the header"
    return ""


def _ip6(state: PacketState, link: Ethernet) -> Step:
    ip = state.packet.ip
    if not isinstance(ip, IPv6):
        ip = parse_ipv6(link.payload)
    if ip is None:
        return _drop(state, "IPv6 header", f"frame ends before {IPV6_HEADER} bytes")
    why = _why_bad_ipv6(ip)
    if why:
        return _drop(state, "IPv6 header", why)
    trimmed = _trimmed(ip, _length6(ip))
    if ip.next_header == HOP_BY_HOP:
        why = why_bad_hop_by_hop(trimmed)
        if why:
            return _drop(state, "hop-by-hop options", why)
        trimmed = _trimmed(trimmed, jumbo_length(trimmed))
    return _accept(state, link, trimmed)


def _why_bad_ipv6(ip: IPv6) -> str:
    """``ip6_rcv_core``, in its order. The scope of a multicast address is the low half of its second byte."""
    if ip.version != 6:
        return f"version {ip.version}"
    if _LOOPBACK6 in (ip.source, ip.destination):
        return "::1 from outside"
    if ip.destination.is_multicast and ip.destination.packed[1] & 0x0F in (0, 1):
        return "destination multicast of scope 0 or 1"
    if ip.source.is_multicast:
        return "multicast source"
    if _length6(ip) > len(ip.buf):
        return f"payload length {ip.payload_length} is beyond the frame"
    return ""


def _length6(ip: IPv6) -> int:
    """The length of the packet. A jumbogram has 0 in the header and extends to the end of the frame."""
    if ip.payload_length == 0 and ip.next_header == HOP_BY_HOP:
        return len(ip.buf)
    return IPV6_HEADER + ip.payload_length


def _trimmed(ip: _IP, length: int) -> _IP:
    return ip if length >= len(ip.buf) else replace(ip, buf=ip.buf[:length])


def _accept(state: PacketState, link: Ethernet, ip: IP) -> Step:
    accepted = replace(state, ip=ip, link_type=link.link_type)
    return Step(Stage.DEFRAG, accepted, f"IPv{ip.version} header", "sound")


def _drop(state: PacketState, looked_at: str, why: str) -> Step:
    return Step(Fate.DROPPED, state, looked_at, why)
