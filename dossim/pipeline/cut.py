"""What is unknown about a packet that the capture cut, as a phrase, and which datagrams it may belong to.

A check that reads a missing byte raises CutError; the packet is *undetermined* from that stage on.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from dossim.packet.cut import CutBytes, CutError, captured_length
from dossim.packet.fields import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ICMP,
    ICMP_HEADER,
    ICMPV6,
    IPV6_HEADER,
    PROTOCOL_NAMES,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    UDPLITE,
    IPv4,
)
from dossim.packet.fragment6 import find_fragment6
from dossim.packet.parse import parse_ethernet, parse_ipv4, parse_ipv6, transport_of
from enforcer.model.vocabulary import Stage

if TYPE_CHECKING:
    from dossim.pipeline.stages import PacketState

# Which datagrams a packet may belong to: the beginning of a datagram's key; () may belong to any.
KeyPrefix = tuple[int | IPv4Address | IPv6Address, ...]

_HEADERS = {TCP: TCP_HEADER, UDP: UDP_HEADER, UDPLITE: UDP_HEADER, ICMP: ICMP_HEADER, ICMPV6: ICMP_HEADER}
_LOOKED_AT = {
    Stage.IP_INPUT: "its header is incomplete",
    Stage.DEFRAG: "whether it is a fragment, and of what, is not known",
    Stage.CONNTRACK: "its conntrack state is not known",
    Stage.ROUTE: "its IP options are incomplete",
    Stage.SOCKET: "its payload after the IP header is unknown",
}


def why_open(stage: Stage, state: PacketState) -> str:
    """Why the result of a stage is unknown: ``cut by the capture at 96 of 1,514 bytes: its TCP checksum is …``."""
    frame = state.packet.frame
    what = _LOOKED_AT.get(stage, "what a failsafe or an entry matches on is not known")
    if stage is Stage.SOCKET:
        what = _of_transport(state) or what
    if not isinstance(frame, CutBytes):
        return part_cut(what)
    return cut_at(captured_length(frame), len(frame), what)


def cut_at(captured: int, length: int, what: str) -> str:
    return f"cut by the capture at {captured:,} of {length:,} bytes: {what}"


def part_cut(what: str) -> str:
    return f"a part of its datagram was cut by the capture: {what}"


def checksum_unknown(protocol: int) -> str:
    return f"its {PROTOCOL_NAMES[protocol]} checksum is not known"


def _of_transport(state: PacketState) -> str:
    """The missing part of a transport segment: its header, or what its checksum covers."""
    try:
        found = transport_of(state.ip) if state.ip is not None else None
        if found is None or found.protocol not in _HEADERS:
            return ""
        if captured_length(found.buf) < _HEADERS[found.protocol]:
            return f"its {PROTOCOL_NAMES[found.protocol]} header is incomplete"
        return checksum_unknown(found.protocol)
    except CutError:
        return "its extension headers are incomplete"


def possible_datagrams(frame: bytes) -> KeyPrefix | None:
    """The datagrams a frame may be a fragment of, whatever its missing bytes are; None if it is not a fragment."""
    if not isinstance(frame, CutBytes):
        return _key_of(frame)
    try:
        return _key_of(frame)
    except CutError:
        return ()


def _key_of(frame: bytes) -> KeyPrefix | None:
    link = parse_ethernet(frame)
    if link is None:
        return None
    if link.ethertype == ETHERTYPE_IPV4:
        return _key4(link.payload)
    return _key6(link.payload) if link.ethertype == ETHERTYPE_IPV6 else None


def _key4(buf: bytes) -> KeyPrefix | None:
    try:
        ip = parse_ipv4(buf)
    except CutError:
        return (4,)
    return key4(ip) if ip is not None and ip.is_fragment else None


def key4(ip: IPv4) -> KeyPrefix:
    """``struct frag_v4_compare_key``, without the fields that are equal for all packets of an interface."""
    return (4, ip.source, ip.destination, ip.ident, ip.protocol)


def _key6(buf: bytes) -> KeyPrefix | None:
    try:
        ip = parse_ipv6(buf[: IPV6_HEADER + (buf[4] << 8 | buf[5])]) if len(buf) >= IPV6_HEADER else None
    except CutError:
        return (6,)
    if ip is None:
        return None
    try:
        found = find_fragment6(ip)
    except CutError:
        return (6, ip.source, ip.destination)
    return None if found is None or found.is_cut else (6, ip.source, ip.destination, found.ident)
