"""How the transport treats a packet for this host. Stage ``socket``; the result does not depend on a listener.

``net/ipv4/tcp_ipv4.c`` (``tcp_v4_rcv``), ``udp.c`` (``__udp4_lib_rcv``), ``icmp.c`` (``icmp_rcv``);
``net/ipv6/udp.c``, ``icmp.c``, ``ip6_input.c`` (``ip6_protocol_deliver_rcu``), ``exthdrs.c`` (``ipv6_rthdr_rcv``),
``reassembly.c`` (``ipv6_frag_rcv``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dossim.model.disposition import Fate
from dossim.model.host import Host, Listener
from dossim.packet.fields import (
    DESTINATION,
    EXTENSION_HEADERS,
    FRAGMENT,
    FRAGMENT_HEADER,
    HOP_BY_HOP,
    ICMP,
    ICMP_HEADER,
    ICMPV6,
    IP,
    IPV6_HEADER,
    NO_NEXT,
    PROTOCOL_NAMES,
    ROUTING,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    UDPLITE,
    IPv4,
    IPv6,
    LinkType,
    Transport,
)
from dossim.packet.parse import extension_length, internet_checksum, number, transport_checksum_ok, transport_of
from dossim.pipeline.options6 import why_bad_options
from dossim.pipeline.reassembly import Whole
from dossim.pipeline.stages import Context, Destination, PacketState, Step

GROUPS = (Destination.BROADCAST, Destination.MULTICAST)
# Up to this length a checksum is verified at once, not only when the data is read (CHECKSUM_BREAK, skbuff.h).
CHECKSUM_BREAK = 76
# Routing header types that a host rejects by default (rpl_seg_enabled, seg6_enabled).
SEGMENT_ROUTING = (3, 4)


@dataclass(frozen=True)
class Segment:
    """The transport's input: the bytes after all IP headers, and how they arrived."""

    ip: IP
    buf: bytes
    link_type: LinkType
    is_for_group: bool
    host: Host
    is_tracked: bool = True


def check(state: PacketState, context: Context) -> Step:
    ip = state.ip
    assert ip is not None, "only IP packets get here"
    transport = transport_of(ip) if isinstance(ip, IPv4) else _after_extension_headers(ip, state)
    if isinstance(transport, str):
        return Step(Fate.DROPPED, state, "extension headers", transport)
    name = PROTOCOL_NAMES.get(transport.protocol, f"protocol {transport.protocol}") if transport else "packet"
    if transport is None or (transport.protocol, ip.version) not in _HANDLERS:
        return Step(Fate.DELIVERED, state, name, "its handler is not modelled: the host answers or ignores it")
    is_for_group = state.destination in GROUPS
    segment = Segment(ip, transport.buf, state.link_type, is_for_group, context.host, not state.untracked)
    why = _HANDLERS[transport.protocol, ip.version](segment)
    if why:
        return Step(Fate.DROPPED, state, f"{name} header and checksum", why)
    return Step(Fate.DELIVERED, state, f"{name} header and checksum", _who_listens(transport, context.host))


def _who_listens(transport: Transport, host: Host) -> str:
    if transport.ports is None:
        return "handled by the host"
    listens = Listener(transport.protocol, transport.ports[1]) in host.listen
    return "a socket listens" if listens else "no socket listens"


# -- TCP, UDP ----------------------------------------------------------------------------------------------------------


def _why_bad_tcp(segment: Segment) -> str:
    """``tcp_v4_rcv``, ``tcp_v6_rcv``."""
    buf = segment.buf
    if segment.link_type is not LinkType.HOST:
        return f"TCP in a {segment.link_type} frame"
    if len(buf) < TCP_HEADER:
        return "TCP header cut short"
    data_offset = (buf[12] >> 4) * 4
    if data_offset < TCP_HEADER or data_offset > len(buf):
        return f"TCP data offset {data_offset}"
    return "" if transport_checksum_ok(segment.ip, TCP, buf) else "bad TCP checksum"


def _why_bad_udp4(segment: Segment) -> str:
    """``__udp4_lib_rcv``. A checksum of 0 means none."""
    length, why = _udp_length(segment.buf, zero_means_all=False)
    if why:
        return why
    buf = segment.buf[:length]
    has_checksum = number(buf, 6, 2) != 0
    return "bad UDP checksum" if has_checksum and not transport_checksum_ok(segment.ip, UDP, buf) else ""


def _why_bad_udp6(segment: Segment) -> str:
    """``__udp6_lib_rcv``. A socket rejects a datagram without a checksum. Without a socket, the kernel reports that
    first.

    A group's datagram goes to the sockets that have joined it, and there are none.
    """
    length, why = _udp_length(segment.buf, zero_means_all=True)
    if why:
        return why
    buf = segment.buf[:length]
    if not number(buf, 6, 2):
        is_refused = Listener(UDP, number(buf, 2, 2)) in segment.host.listen
        return "UDP over IPv6 without checksum" if is_refused and not segment.is_for_group else ""
    return "" if transport_checksum_ok(segment.ip, UDP, buf) else "bad UDP checksum"


def _udp_length(buf: bytes, *, zero_means_all: bool) -> tuple[int, str]:
    """The length of the datagram in the packet, or why it is invalid."""
    if len(buf) < UDP_HEADER:
        return 0, "UDP header cut short"
    length = number(buf, 4, 2)
    if length == 0 and zero_means_all:  # a jumbogram
        length = len(buf)
    if length < UDP_HEADER or length > len(buf):
        return 0, f"UDP length {length} of {len(buf)} bytes"
    return length, ""


def _why_bad_udplite(segment: Segment) -> str:
    """``udplite_checksum_init`` (``include/net/udplite.h``): a checksum over the stated part, 0 meaning all.

    There is no UDP-Lite socket. Except for IPv4 unicast, the kernel finds that before it verifies the checksum of a
    longer datagram. (For UDP, conntrack has verified the checksum already.)
    """
    buf = segment.buf
    if len(buf) < UDP_HEADER:
        return "UDP-Lite header cut short"
    covered = number(buf, 4, 2) or len(buf)
    if not UDP_HEADER <= covered <= len(buf):
        return f"UDP-Lite coverage {covered} of {len(buf)} bytes"
    if not number(buf, 6, 2):
        return "UDP-Lite without checksum"
    is_verified = covered == len(buf) <= CHECKSUM_BREAK or (segment.ip.version == 4 and not segment.is_for_group)
    is_good = transport_checksum_ok(segment.ip, UDPLITE, buf[:covered], length=len(buf))
    return "bad UDP-Lite checksum" if is_verified and not is_good else ""


# -- ICMP --------------------------------------------------------------------------------------------------------------


def _why_bad_icmp(segment: Segment) -> str:
    """``icmp_rcv``: a message with a good checksum counts as delivered, however it is handled.

    Conntrack verifies the checksum first if the header is complete (``icmp_error``), and includes the IP header in the
    sum (``nf_ip_checksum``): so a message of nothing but zeros has a good sum.
    """
    summed_up = b"\xff\xff" if segment.is_tracked and len(segment.buf) >= ICMP_HEADER else b""
    return "" if internet_checksum(summed_up, segment.buf) == 0 else "bad ICMP checksum"


def _why_bad_icmpv6(segment: Segment) -> str:
    """``icmpv6_rcv``, likewise."""
    return "" if transport_checksum_ok(segment.ip, ICMPV6, segment.buf) else "bad ICMPv6 checksum"


_HANDLERS: dict[tuple[int, int], Callable[[Segment], str]] = {
    (TCP, 4): _why_bad_tcp,
    (TCP, 6): _why_bad_tcp,
    (UDP, 4): _why_bad_udp4,
    (UDP, 6): _why_bad_udp6,
    (UDPLITE, 4): _why_bad_udplite,
    (UDPLITE, 6): _why_bad_udplite,
    (ICMP, 4): _why_bad_icmp,
    (ICMPV6, 6): _why_bad_icmpv6,
}


# -- IPv6 extension headers --------------------------------------------------------------------------------------------


def _after_extension_headers(ip: IPv6, state: PacketState) -> Transport | str | None:
    """The transport, or why a header causes a drop, or None at a header without a handler.

    A hop-by-hop header is handled at the start of a received packet only, and was at ``ip-input``. Authentication has
    no handler.
    """
    buf, kind, at = ip.buf, ip.next_header, IPV6_HEADER
    received = state.packet.ip
    if isinstance(received, IPv6) and received.next_header == HOP_BY_HOP:
        kind, at = buf[at], at + extension_length(kind, buf[at + 1])
    has_been_fragment = isinstance(state.reassembly, Whole)
    if isinstance(state.reassembly, Whole):
        # nf_ct_frag6_reasm moves the transport header there, whatever headers were before the fragment header.
        at = state.reassembly.transport_at
    while kind in (DESTINATION, ROUTING, FRAGMENT):
        why = _why_bad_header(ip, kind, at, state, has_been_fragment=has_been_fragment)
        if why:
            return why
        has_been_fragment |= kind == FRAGMENT
        kind, at = buf[at], at + extension_length(kind, buf[at + 1])
    if kind == NO_NEXT:
        return "no next header"
    return None if kind in EXTENSION_HEADERS else Transport(kind, at, buf[at:])


def _why_bad_header(ip: IPv6, kind: int, at: int, state: PacketState, *, has_been_fragment: bool) -> str:
    if kind == DESTINATION:
        return why_bad_options(ip, at, hop_by_hop=False)
    if kind == ROUTING:
        return _why_bad_routing(ip, at, state)
    return _why_bad_fragment(ip, at, has_been_fragment=has_been_fragment)


def _why_bad_routing(ip: IPv6, at: int, state: PacketState) -> str:
    """``ipv6_rthdr_rcv``: only a header with no segments left is skipped."""
    buf = ip.buf
    if len(buf) < at + 8 or len(buf) < at + extension_length(ROUTING, buf[at + 1]):
        return "routing header is longer than the packet"
    if state.destination is Destination.MULTICAST or state.link_type is not LinkType.HOST:
        return "routing header to a group"
    kind, segments_left = buf[at + 2], buf[at + 3]
    if kind in SEGMENT_ROUTING or segments_left:
        return f"routing header of type {kind} with {segments_left} segments left"
    return ""


def _why_bad_fragment(ip: IPv6, at: int, *, has_been_fragment: bool) -> str:
    """``ipv6_frag_rcv``: fragments that defragmentation left to the stack; only one that is the whole datagram is
    accepted.
    """
    if has_been_fragment or ip.payload_length == 0 or len(ip.buf) < at + FRAGMENT_HEADER:
        return "misplaced or cut fragment header"
    return "malformed fragment" if number(ip.buf, at + 2, 2) & 0xFFF9 else ""
