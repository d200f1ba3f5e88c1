"""What an XDP program reads of a frame (``bpf/include/parse.h``), and what it leaves unknown.

A program sees single frames, before defragmentation and before all checks of the kernel. What raw may see differently
counts as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from dossim.packet.cut import CutError
from dossim.packet.fields import (
    AUTHENTICATION,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    EXTENSION_HEADERS,
    FRAGMENT,
    FRAGMENT_HEADER,
    HIDDEN,
    HOP_BY_HOP,
    ICMP,
    ICMP_HEADER,
    ICMPV6,
    IP,
    IPV4_HEADER,
    IPV6_HEADER,
    NO_NEXT,
    SCTP,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    Ethernet,
    IPv4,
    IPv6,
    Transport,
)
from dossim.packet.parse import extension_length, number, parse_ipv4, parse_ipv6
from enforcer.model.vocabulary import Word

MAX_TAGS = 2
MAX_EXTENSION_HEADERS = 8
# Without the whole header the ports are unknown; those of other protocols are not read.
PORT_HEADERS = {TCP: TCP_HEADER, UDP: UDP_HEADER, SCTP: 12}
ICMP_OF = {4: ICMP, 6: ICMPV6}


class Missing(Word):
    """A field that a packet has but the program cannot know."""

    PROTOCOL = "protocol"
    PORTS = "ports"
    ICMP_TYPE = "ICMP type"


@dataclass(frozen=True)
class Known:
    """What is known apart from the addresses. ``transport`` None: nothing. ``missing`` None: everything; ``why`` states
    the reason if not.
    """

    transport: Transport | None
    missing: Missing | None = None
    why: str = ""

    @property
    def ports(self) -> tuple[int, int] | None:
        """Source and destination port, if they are known."""
        if self.transport is None or self.missing or self.transport.protocol not in PORT_HEADERS:
            return None
        return self.transport.ports


def readable_ip(link: Ethernet | None) -> IP | None:
    """The IP header of a frame, if it is valid enough for a decision. Up to two tags with VLAN id 0 are skipped."""
    if link is None or len(link.tags) > MAX_TAGS or any(tag.id for tag in link.tags):
        return None
    if link.ethertype == ETHERTYPE_IPV4:
        ip4 = parse_ipv4(link.payload)
        return ip4 if ip4 is not None and _is_sound4(ip4) else None
    if link.ethertype == ETHERTYPE_IPV6:
        ip6 = parse_ipv6(link.payload)
        return ip6 if ip6 is not None and ip6.version == 6 else None
    return None


def _is_sound4(ip: IPv4) -> bool:
    """A total length beyond the frame or a wrong checksum does not matter: a packet that never reaches raw may be
    dropped.
    """
    return ip.version == 4 and IPV4_HEADER <= ip.header_length <= min(ip.total_length, len(ip.buf))


def known_transport(ip: IP, *, by_device: bool) -> Known:
    """What is known apart from the addresses. The program for devices (``bpf/xdp_offload.bpf.c``) knows less.

    The transport is HIDDEN if the capture cut the extension headers before it.
    """
    if isinstance(ip, IPv4):
        if by_device and ip.protocol == 0:
            return Known(None, Missing.PROTOCOL, "protocol 0 stands for any in a device")
        return _known(4, _transport4(ip))
    if by_device and ip.next_header in EXTENSION_HEADERS and ip.next_header != NO_NEXT:
        return Known(None, Missing.PROTOCOL, "a device does not parse extension headers")
    try:
        found = _after_extension_headers(ip)
    except CutError:
        return Known(HIDDEN)
    return _known(6, found) if isinstance(found, Transport) else Known(None, Missing.PROTOCOL, found)


def _known(version: int, transport: Transport) -> Known:
    if transport.protocol == ICMP_OF[version]:
        missing, least = Missing.ICMP_TYPE, ICMP_HEADER
    else:
        missing, least = Missing.PORTS, PORT_HEADERS.get(transport.protocol, 0)
    if not least:
        return Known(transport)
    if transport.fragment_offset:
        return Known(transport, missing, "later fragment")
    there = len(transport.buf)
    return Known(transport) if there >= least else Known(transport, missing, f"{there} of {least} bytes of its header")


def _transport4(ip: IPv4) -> Transport:
    """A fragment that is not the last is trimmed to a multiple of eight bytes (``ip_frag_queue``): raw may never see
    the rest.
    """
    end = ip.total_length
    if ip.more_fragments:
        end -= (end - ip.header_length) % 8
    return Transport(ip.protocol, ip.header_length, ip.buf[ip.header_length : end], ip.offset)


def _after_extension_headers(ip: IPv6) -> Transport | str:
    """``parse_extensions()``: at most eight headers, each with its first eight bytes present and its length within the
    packet; or why the protocol is unknown.

    The protocol in a later fragment does not count, because reassembly uses that of the first. If headers other than
    hop-by-hop precede the fragment header, Linux misreads the reassembled datagram. iptables looks for the protocol
    after an authentication header, nftables does not.
    """
    is_jumbogram = ip.payload_length == 0 and ip.next_header == HOP_BY_HOP
    end = len(ip.buf) if is_jumbogram else IPV6_HEADER + ip.payload_length
    buf, kind, at = ip.buf[:end], ip.next_header, IPV6_HEADER
    kinds: list[int] = []
    while kind in EXTENSION_HEADERS and kind != NO_NEXT:
        if len(kinds) == MAX_EXTENSION_HEADERS:
            return f"more than {MAX_EXTENSION_HEADERS} extension headers"
        if kind == AUTHENTICATION:
            return "authentication header"
        if len(buf) < at + FRAGMENT_HEADER:
            return "its extension headers break off"
        if kind == FRAGMENT:
            field = number(buf, at + 2, 2)
            if field & 0xFFF8:
                return "later fragment"
            if field & 1 and kinds not in ([], [HOP_BY_HOP]):
                return "first fragment after extension headers"
        kinds.append(kind)
        following, at = buf[at], at + extension_length(kind, buf[at + 1])
        if at > end and not is_jumbogram:
            return "its extension headers break off"
        kind = following
    return Transport(kind, at, buf[at:])
