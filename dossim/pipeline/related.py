"""Which packets of a capture have to be walked to explain one of them."""

from __future__ import annotations

from dossim.packet.capture import Capture
from dossim.packet.cut import CutError, frame_on_wire
from dossim.packet.fields import ICMP, ICMPV6, IP
from dossim.packet.fragments import may_be_fragments
from dossim.packet.parse import parse, seen_transport
from dossim.pipeline.cut import possible_datagrams
from enforcer.model.nets import IPAddress

# Of these nothing is quoted: echo, timestamp, information and address mask, and their replies.
_NO_ERRORS = {ICMP: frozenset({0, 8, 13, 14, 15, 16, 17, 18}), ICMPV6: frozenset(range(128, 256)) - {137}}


def related(capture: Capture, number: int, *, tracked: bool = False) -> list[int]:
    """The packet and, for a fragment, every packet that may belong to its datagram. With ``tracked`` policy, also what
    was there before: what may be of the same flow, or of the flow that an ICMP error quotes.

    No other packet affects its fate. Whether a packet that the capture cut is a fragment may be unknown.
    """
    found = _of_datagram(capture, number)
    return sorted({*found, *_before(capture, number, found[-1])}) if tracked else found


def _of_datagram(capture: Capture, number: int) -> list[int]:
    mine = possible_datagrams(frame_on_wire(capture, number))
    if mine is None:
        return [number]
    keys = {index: possible_datagrams(frame_on_wire(capture, index)) for index in _perhaps_fragments(capture)}
    return sorted({number} | {index for index, key in keys.items() if key is not None and _may_meet(key, mine)})


def _perhaps_fragments(capture: Capture) -> list[int]:
    """All fragments, also those that only end their datagram, and all packets that the capture cut."""
    cut = (capture.wire_length > capture.length).nonzero()[0].tolist()
    return sorted({*may_be_fragments(capture), *cut})


def _may_meet(key: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether both keys, or beginnings of keys, can belong to one datagram."""
    known = min(len(key), len(other))
    return key[:known] == other[:known]


def _before(capture: Capture, number: int, last: int) -> list[int]:
    """The packets up to ``last``, the last that belongs to the packet's datagram, which have the same two addresses; or
    all of them, if the packet may quote one.
    """
    ip = _ip_of(capture, number)
    mine = None if ip is None or _may_quote(ip) else _both(ip)
    return [index for index in range(last + 1) if mine is None or _may_be_of(capture, index, mine)]


def _may_be_of(capture: Capture, index: int, both: frozenset[IPAddress]) -> bool:
    ip = _ip_of(capture, index)
    return ip is None or _both(ip) == both


def _both(ip: IP) -> frozenset[IPAddress]:
    return frozenset((ip.source, ip.destination))


def _ip_of(capture: Capture, number: int) -> IP | None:
    try:
        return parse(frame_on_wire(capture, number)).ip
    except CutError:
        return None


def _may_quote(ip: IP) -> bool:
    """Whether the packet may be an ICMP error: also a fragment, and what cannot be read."""
    try:
        found = seen_transport(ip, skip_authentication=True)
        if found is None or found.fragment_offset:
            return True
        return found.protocol in _NO_ERRORS and (not found.buf or found.buf[0] not in _NO_ERRORS[found.protocol])
    except CutError:
        return True
