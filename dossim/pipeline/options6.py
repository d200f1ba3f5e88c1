"""Options of IPv6 hop-by-hop and destination headers (``net/ipv6/exthdrs.c``: ``ipv6_parse_hopopts``,
``ip6_parse_tlv``).
"""

from __future__ import annotations

from dossim.packet.fields import IPV6_HEADER, IPv6
from dossim.packet.parse import number

PAD1, PADN, ROUTER_ALERT, CALIPSO, IOAM, JUMBO = 0x00, 0x01, 0x05, 0x07, 0x31, 0xC2
MAX_PADDING = 7
MAX_OPTIONS = 8  # net.ipv6.max_hbh_opts_number, max_dst_opts_number


def why_bad_hop_by_hop(ip: IPv6) -> str:
    """Why the hop-by-hop header directly after the IPv6 header causes a drop; "" if it does not."""
    return why_bad_options(ip, IPV6_HEADER, hop_by_hop=True)


def why_bad_options(ip: IPv6, at: int, *, hop_by_hop: bool) -> str:
    """Why the options header at ``at`` causes a drop; "" if it does not."""
    buf = ip.buf
    if len(buf) < at + 8 or len(buf) < at + (buf[at + 1] + 1) * 8:
        return "options header is longer than the packet"
    end = at + (buf[at + 1] + 1) * 8
    at, padding, options = at + 2, 0, 0
    while at < end:
        kind = buf[at]
        length = 1 if kind == PAD1 else buf[at + 1] + 2 if at + 1 < end else end
        if at + length > end:
            return "an option is longer than its header"
        if kind in (PAD1, PADN):
            padding += length
            if padding > MAX_PADDING or any(buf[at + 2 : at + length]):
                return "padding of more than 7 bytes or not of zeros"
        else:
            options, padding = options + 1, 0
            why = _why_bad_option(ip, at, hop_by_hop=hop_by_hop)
            if options > MAX_OPTIONS or why:
                return why or f"more than {MAX_OPTIONS} options"
        at += length
    return ""


def _why_bad_option(ip: IPv6, at: int, *, hop_by_hop: bool) -> str:
    kind, length = ip.buf[at], ip.buf[at + 1]
    if hop_by_hop and kind == ROUTER_ALERT:
        return "" if length == 2 else "malformed router alert"
    if hop_by_hop and kind == CALIPSO:
        return "security label of a domain this host does not know"
    if hop_by_hop and kind == IOAM:
        return "misaligned IOAM option" if at % 4 else ""
    if hop_by_hop and kind == JUMBO:
        return _why_bad_jumbo(ip, at)
    # The two highest bits of an unknown option's type say what to do: 0 skips it, all others discard (RFC 8200, 4.2).
    return f"unknown option {kind:#04x} requires discarding" if kind & 0xC0 else ""


def _why_bad_jumbo(ip: IPv6, at: int) -> str:
    if ip.buf[at + 1] != 4 or at % 4 != 2:
        return "malformed jumbo option"
    length = number(ip.buf, at + 2, 4)
    if length <= 0xFFFF or ip.payload_length:
        return "jumbo option on a packet that is not a jumbogram"
    return "jumbogram beyond the frame" if length > len(ip.buf) - IPV6_HEADER else ""


def jumbo_length(ip: IPv6) -> int:
    """The end of a packet with valid hop-by-hop options, from the jumbo option if there is one."""
    end = IPV6_HEADER + (ip.buf[IPV6_HEADER + 1] + 1) * 8
    at = IPV6_HEADER + 2
    while at < end:
        if ip.buf[at] == JUMBO:
            return IPV6_HEADER + number(ip.buf, at + 2, 4)
        at += 1 if ip.buf[at] == PAD1 else ip.buf[at + 1] + 2
    return len(ip.buf)
