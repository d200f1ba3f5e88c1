"""What netdev ingress reads of a packet, and what it leaves unknown.

nf_tables sees single packets there, before all checks of IP: it validates the header itself
(``nft_set_pktinfo_ipv4_validate``, ``..._ipv6_validate``), and our chains pass a packet whose header is not valid.
About the rest they know less than an XDP program: what nf_tables reads after the header may be padding, or change with
reassembly.
"""

from __future__ import annotations

from dossim.packet.fields import (
    EXTENSION_HEADERS,
    IP,
    IPV6_HEADER,
    NO_NEXT,
    Ethernet,
    IPv4,
    IPv6,
)
from dossim.packet.parse import transport_of
from dossim.pipeline.xdp_headers import ICMP_OF, PORT_HEADERS, Known, Missing, readable_ip
from dossim.pipeline.xdp_headers import known_transport as known_by_xdp


def sound_ip(link: Ethernet | None) -> IP | None:
    """The IP header of an untagged frame that holds the whole packet; None if the chains pass the frame."""
    if link is None or link.tags:
        return None
    ip = readable_ip(link)
    if isinstance(ip, IPv4):
        return ip if ip.total_length <= len(ip.buf) else None
    if isinstance(ip, IPv6):
        whole = IPV6_HEADER + ip.payload_length <= len(ip.buf)
        return ip if whole and transport_of(ip, skip_authentication=False) is not None else None
    return None


def known_transport(ip: IP) -> Known:
    """What is known apart from the addresses: what an XDP program would know without parsing options and extension
    headers.
    """
    found = known_by_xdp(ip, by_device=False)
    if isinstance(ip, IPv6):
        extended = ip.next_header in EXTENSION_HEADERS and ip.next_header != NO_NEXT
        return Known(None, Missing.PROTOCOL, "extension header") if extended else found
    if found.transport is None or found.missing or not ip.options:
        return found
    if found.transport.protocol == ICMP_OF[4]:
        return Known(found.transport, Missing.ICMP_TYPE, "IP options")
    has_ports = found.transport.protocol in PORT_HEADERS
    return Known(found.transport, Missing.PORTS, "IP options") if has_ports else found
