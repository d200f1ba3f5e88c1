"""The tuple of a packet: what an entry is found by, in both directions.

``nf_ct_get_tuple``, ``nf_ct_invert_tuple`` and ``get_l4proto`` of ``net/netfilter/nf_conntrack_core.c``;
``gre_pkt_to_tuple``; ``icmp_pkt_to_tuple`` and the ``invmap`` of both versions of ICMP.
"""

from __future__ import annotations

from typing import NamedTuple

from dossim.packet.fields import (
    EXTENSION_HEADERS,
    FRAGMENT,
    FRAGMENT_HEADER,
    ICMP,
    ICMP_HEADER,
    ICMPV6,
    IP,
    IPV4_HEADER,
    IPV6_HEADER,
    NO_NEXT,
    PORTS_LENGTH,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    IPv4,
)
from dossim.packet.parse import extension_length, number

GRE = 47
GRE_VERSION_1 = 1
_GRE_BASE, _GRE_PPTP, _GRE_PPP = 4, 8, 0x880B
# DCCP had a tracker until Linux 6.16; since then it is tracked by its addresses alone.
_PORTS = frozenset({TCP, UDP, UDPLITE, SCTP})

# Request and reply, both ways: ICMP echo, timestamp, information, address mask; ICMPv6 echo, node information.
INVERSE_TYPE: dict[int, dict[int, int]] = {
    ICMP: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    ICMPV6: {128: 129, 129: 128, 139: 140, 140: 139},
}


class FlowTuple(NamedTuple):
    """``struct nf_conntrack_tuple``. Addresses are packed, 4 or 16 bytes long.

    ``source_key`` and ``destination_key`` are the ports; of ICMP the id, and type and code; of PPTP's GRE the call id
    is the second one; 0 of all other protocols.
    """

    source: bytes
    destination: bytes
    protocol: int
    source_key: int = 0
    destination_key: int = 0

    @property
    def version(self) -> int:
        return 4 if len(self.source) == 4 else 6

    @property
    def icmp_type(self) -> int:
        return self.destination_key >> 8

    def inverted(self) -> FlowTuple | None:
        """The tuple of the other direction; None for ICMP that is neither request nor reply."""
        if self.protocol in INVERSE_TYPE:
            inverse = INVERSE_TYPE[self.protocol].get(self.icmp_type)
            if inverse is None:
                return None
            keys = self.source_key, inverse << 8 | self.destination_key & 0xFF
        else:
            keys = self.destination_key, self.source_key
        return FlowTuple(self.destination, self.source, self.protocol, *keys)


class Payload(NamedTuple):
    """What the packet carries, as conntrack finds it. ``at`` is where it begins in the IP packet."""

    protocol: int
    at: int


def payload_of(ip: IP) -> Payload | None:
    """``get_l4proto`` of a packet at -200: of a later fragment and of unreadable extension headers there is none."""
    if isinstance(ip, IPv4):
        return None if ip.offset else Payload(ip.protocol, ip.header_length)
    return payload6(ip.buf, 0)


def payload4(buf: bytes, at: int) -> Payload | None:
    """``ipv4_get_l4proto`` of a quoted packet: neither its version nor a shortest header length is asked for."""
    if len(buf) < at + IPV4_HEADER or number(buf, at + 6, 2) & 0x1FFF:
        return None
    begin = at + (buf[at] & 0x0F) * 4
    return None if begin > len(buf) else Payload(buf[at + 9], begin)


def payload6(buf: bytes, at: int) -> Payload | None:
    """``ipv6_get_l4proto`` and ``ipv6_skip_exthdr``: the payload may begin beyond the end of the packet."""
    if len(buf) < at + 7:
        return None
    kind, begin = buf[at + 6], at + IPV6_HEADER
    while kind in EXTENSION_HEADERS:
        if kind == NO_NEXT or len(buf) < begin + 2:
            return None
        if kind == FRAGMENT:
            if len(buf) < begin + 4 or number(buf, begin + 2, 2) & 0xFFF8:
                return None
            length = FRAGMENT_HEADER
        else:
            length = extension_length(kind, buf[begin + 1])
        kind, begin = buf[begin], begin + length
    return Payload(kind, begin)


def tuple_at(buf: bytes, at: int, version: int, payload: Payload) -> FlowTuple | None:
    """``nf_ct_get_tuple`` of the packet whose IP header is at ``at``; None where its addresses or ports are not there.

    What a packet carries runs to the end of ``buf``.
    """
    first, size = (at + 12, 4) if version == 4 else (at + 8, 16)
    if len(buf) < first + 2 * size:
        return None
    addresses = bytes(buf[first : first + size]), bytes(buf[first + size : first + 2 * size])
    keys = _keys(payload.protocol, buf[payload.at :])
    return None if keys is None else FlowTuple(*addresses, payload.protocol, *keys)


def _keys(protocol: int, buf: bytes) -> tuple[int, int] | None:
    if protocol in _PORTS:
        return None if len(buf) < PORTS_LENGTH else (number(buf, 0, 2), number(buf, 2, 2))
    if protocol in INVERSE_TYPE:
        return None if len(buf) < ICMP_HEADER else (number(buf, 4, 2), number(buf, 0, 2))
    if protocol == GRE:
        return _gre_keys(buf)
    return 0, 0


def _gre_keys(buf: bytes) -> tuple[int, int] | None:
    """Only version 1, PPTP's, has a key. Of the source it is known only to a helper, which is not modelled."""
    if len(buf) < _GRE_BASE or number(buf, 0, 2) & 7 != GRE_VERSION_1 or len(buf) < _GRE_PPTP:
        return 0, 0
    return (0, number(buf, 6, 2)) if number(buf, 2, 2) == _GRE_PPP else None
