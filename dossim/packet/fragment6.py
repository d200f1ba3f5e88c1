"""The fragment header of an IPv6 packet, as ``nf_ct_frag6_gather`` (``nf_conntrack_reasm.c``) looks for it."""

from __future__ import annotations

from dataclasses import dataclass

from dossim.packet.fields import (
    EXTENSION_HEADERS,
    FRAGMENT,
    FRAGMENT_HEADER,
    ICMP_HEADER,
    ICMPV6,
    IPV6_HEADER,
    NO_NEXT,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    IPv6,
)
from dossim.packet.parse import extension_length, number

# How much of its transport header a first fragment must hold; for other protocols one byte.
_LEAST = {TCP: TCP_HEADER, UDP: UDP_HEADER, ICMPV6: ICMP_HEADER}


@dataclass(frozen=True)
class Fragment6:
    """``at`` is where the fragment header starts in the packet; ``pointer_at`` is the offset of the Next Header byte
    that announces it.
    """

    at: int
    pointer_at: int
    next_header: int
    offset: int
    more: bool
    ident: int
    data: bytes
    is_cut: bool = False


def find_fragment6(ip: IPv6) -> Fragment6 | None:
    """The fragment header; None if defragmentation sees none, or leaves the packet to the stack."""
    if ip.payload_length == 0:  # a jumbogram cannot be fragmented
        return None
    found = _find(ip)
    if found is None:
        return None
    at, pointer_at = found
    if is_transport_cut(ip.buf, FRAGMENT, at):
        return None
    buf = ip.buf
    if len(buf) < at + FRAGMENT_HEADER:
        return Fragment6(at, pointer_at, 0, 0, False, 0, b"", is_cut=True)
    field = number(buf, at + 2, 2)
    return Fragment6(
        at=at,
        pointer_at=pointer_at,
        next_header=buf[at],
        offset=field & 0xFFF8,
        more=bool(field & 1),
        ident=number(buf, at + 4, 4),
        data=buf[at + FRAGMENT_HEADER :],
    )


def _find(ip: IPv6) -> tuple[int, int] | None:
    """``find_prev_fhdr``: the offsets of the fragment header and of the Next Header byte that announces it."""
    buf, kind, at, pointer_at = ip.buf, ip.next_header, IPV6_HEADER, 6
    while kind != FRAGMENT:
        if kind not in EXTENSION_HEADERS or kind == NO_NEXT or len(buf) < at + 2:
            return None
        pointer_at = at
        kind, at = buf[at], at + extension_length(kind, buf[at + 1])
    return None if at > len(buf) else (at, pointer_at)


def is_transport_cut(buf: bytes, kind: int, at: int) -> bool:
    """``ipv6frag_thdr_truncated``: whether a first fragment lacks part of its transport header (RFC 8200, 4.5)."""
    while kind in EXTENSION_HEADERS:
        if kind == NO_NEXT or len(buf) < at + (4 if kind == FRAGMENT else 2):
            return False
        if kind == FRAGMENT and number(buf, at + 2, 2) & 0xFFF8:
            return False
        kind, at = buf[at], at + extension_length(kind, buf[at + 1])
    return at + _LEAST.get(kind, 1) > len(buf)
