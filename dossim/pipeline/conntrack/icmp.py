"""ICMP and ICMPv6: ``net/netfilter/nf_conntrack_proto_icmp.c`` and ``nf_conntrack_proto_icmpv6.c`` (Linux 6.18).

Requests and their replies are flows. An error belongs to the flow of the packet that it quotes. Before any of it, some
messages are decided by themselves (:func:`before_lookup`).
"""

from __future__ import annotations

from dataclasses import dataclass

from dossim.packet.fields import ICMP, ICMP_HEADER, ICMPV6, IP, IPv4
from dossim.pipeline.conntrack.checksum import icmp_sum_ok, transport_sum_ok
from dossim.pipeline.conntrack.entry import Entry, Seen
from dossim.pipeline.conntrack.states import Accepted, CtDirection, Reason, Refused, Tracked
from dossim.pipeline.conntrack.tuples import FlowTuple, payload4, payload6, tuple_at

_HIGHEST_TYPE = 18  # NR_ICMP_TYPES
_ERRORS4 = frozenset({3, 4, 5, 11, 12})  # icmp_is_err
_REQUESTS4 = frozenset({8, 13, 15, 17})
_REQUESTS6 = frozenset({128, 139})
# MLD, router and neighbour discovery; multicast router advertisements and solicitations (RFC 4286), but not their
# terminations: of these 6.18.44 knows, 6.11 does not.
NEIGHBOUR_TYPES = frozenset({130, 131, 132, 133, 134, 135, 136, 143, 151, 152})
_ERRORS6_BELOW = 128
_REDIRECT, _REDIRECT_LENGTH, _REDIRECTED_HEADER = 137, 40, 4  # struct rd_msg; ND_OPT_REDIRECT_HDR


@dataclass(frozen=True)
class Untracked:
    """Neighbour discovery and MLD."""


@dataclass(frozen=True)
class Quotes:
    """An error about a packet of the flow that ``packet`` would be found in: the quoted packet's tuple, inverted."""

    packet: FlowTuple


@dataclass(frozen=True)
class Ordinary:
    """To be looked up like any packet."""


Before = Untracked | Quotes | Ordinary | Refused


def before_lookup(seen: Seen) -> Before:
    """``nf_conntrack_handle_icmp``. ICMP of the other family is ordinary, until its tracker refuses it."""
    if isinstance(seen.ip, IPv4) and seen.protocol == ICMP:
        return _icmp4(seen.ip, seen)
    if not isinstance(seen.ip, IPv4) and seen.protocol == ICMPV6:
        return _icmp6(seen)
    return Ordinary()


def _icmp4(ip: IPv4, seen: Seen) -> Before:
    """``nf_conntrack_icmpv4_error``."""
    buf = seen.buf
    if len(buf) < ICMP_HEADER:
        return Refused(Reason.ICMP_SHORT, f"{len(buf)} bytes")
    if seen.verifies and not icmp_sum_ok(ip, buf):
        return Refused(Reason.ICMP_CHECKSUM)
    if buf[0] > _HIGHEST_TYPE:
        return Refused(Reason.ICMP_TYPE_UNKNOWN, f"type {buf[0]}")
    return _quoted(seen.ip, buf, ICMP_HEADER) if buf[0] in _ERRORS4 else Ordinary()


def _icmp6(seen: Seen) -> Before:
    """``nf_conntrack_icmpv6_error``."""
    buf = seen.buf
    if len(buf) < ICMP_HEADER:
        return Refused(Reason.ICMP_SHORT, f"{len(buf)} bytes")
    if seen.verifies and not transport_sum_ok(seen.ip, ICMPV6, buf):
        return Refused(Reason.ICMP_CHECKSUM)
    kind = buf[0]
    if kind in NEIGHBOUR_TYPES:
        return Untracked()
    if kind == _REDIRECT:
        return _redirect(seen)
    return _quoted(seen.ip, buf, ICMP_HEADER) if kind < _ERRORS6_BELOW else Ordinary()


def _redirect(seen: Seen) -> Before:
    """``nf_conntrack_icmpv6_redirect``: one that quotes the packet in its first option."""
    ip, buf = seen.ip, seen.buf
    assert not isinstance(ip, IPv4), "ICMPv6 over IPv6"
    if len(buf) < _REDIRECT_LENGTH:
        return Refused(Reason.ICMPV6_REDIRECT_SHORT, f"{len(buf)} bytes")
    if buf[1] != 0:
        return Ordinary()
    if ip.hop_limit != 255 or not ip.source.is_link_local:
        return Refused(Reason.ICMPV6_REDIRECT_FORGED)
    if len(buf) < _REDIRECT_LENGTH + 2 or buf[_REDIRECT_LENGTH + 1] == 0:
        return Refused(Reason.ICMPV6_REDIRECT_NO_QUOTE)
    is_quote = buf[_REDIRECT_LENGTH] == _REDIRECTED_HEADER
    return _quoted(ip, buf, _REDIRECT_LENGTH + 8) if is_quote else Ordinary()


def _quoted(ip: IP, buf: bytes, at: int) -> Before:
    """The beginning of ``nf_conntrack_inet_error``."""
    version = 4 if isinstance(ip, IPv4) else 6
    payload = (payload4 if version == 4 else payload6)(buf, at)
    quoted = None if payload is None else tuple_at(buf, at, version, payload)
    if quoted is None:
        return Refused(Reason.ICMP_QUOTE_SHORT)
    inverse = quoted.inverted()
    return Refused(Reason.ICMP_QUOTE_NO_REPLY) if inverse is None else Quotes(inverse)


def track_icmp(entry: Entry, direction: CtDirection, seen: Seen) -> Tracked:
    """``nf_conntrack_icmp_packet``: only a request makes an entry."""
    if not isinstance(seen.ip, IPv4):
        return Refused(Reason.WRONG_FAMILY, "ICMP over IPv6")
    if entry.original.icmp_type not in _REQUESTS4:
        return Refused(Reason.ICMP_NOT_REQUEST, f"type {entry.original.icmp_type}")
    entry.refresh(seen.time_ns, seen.settings.icmp_timeout)
    return Accepted()


def track_icmpv6(entry: Entry, direction: CtDirection, seen: Seen) -> Tracked:
    """``nf_conntrack_icmpv6_packet``, likewise."""
    if isinstance(seen.ip, IPv4):
        return Refused(Reason.WRONG_FAMILY, "ICMPv6 over IPv4")
    if not entry.confirmed and entry.original.icmp_type not in _REQUESTS6:
        return Refused(Reason.ICMP_NOT_REQUEST, f"type {entry.original.icmp_type}")
    entry.refresh(seen.time_ns, seen.settings.icmpv6_timeout)
    return Accepted()
