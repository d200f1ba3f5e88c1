"""UDP and UDP-Lite: ``net/netfilter/nf_conntrack_proto_udp.c`` (Linux 6.18)."""

from __future__ import annotations

from dossim.packet.fields import UDP, UDP_HEADER
from dossim.packet.parse import number
from dossim.pipeline.conntrack.checksum import transport_sum_ok
from dossim.pipeline.conntrack.entry import SECOND_NS, Entry, Seen, UdpFlow
from dossim.pipeline.conntrack.states import Accepted, CtDirection, Reason, Refused, Tracked

_STREAM_AFTER_S = 2


def track_udp(entry: Entry, direction: CtDirection, seen: Seen) -> Tracked:
    """``nf_conntrack_udp_packet``: an answered flow is a stream, and assured, once it has lasted two seconds."""
    refused = check_udp(seen)
    if refused is not None:
        return refused
    if not entry.confirmed:
        entry.udp = UdpFlow(seen.time_ns + _STREAM_AFTER_S * SECOND_NS)
    assert entry.udp is not None, "every entry of UDP has one"
    is_stream = entry.seen_reply and seen.time_ns > entry.udp.stream_ns
    entry.refresh(seen.time_ns, seen.settings.udp_timeout_stream if is_stream else seen.settings.udp_timeout)
    entry.assured |= is_stream
    return Accepted()


def check_udp(seen: Seen) -> Refused | None:
    """``udp_error``. The checksum is over all that the packet carries, also beyond the length of the datagram."""
    buf = seen.buf
    if len(buf) < UDP_HEADER:
        return Refused(Reason.UDP_SHORT, f"{len(buf)} bytes")
    length = number(buf, 4, 2)
    if not UDP_HEADER <= length <= len(buf):
        return Refused(Reason.UDP_LENGTH, f"length {length} of {len(buf)} bytes")
    if number(buf, 6, 2) and seen.verifies and not transport_sum_ok(seen.ip, UDP, buf):
        return Refused(Reason.UDP_CHECKSUM)
    return None


def track_udplite(entry: Entry, direction: CtDirection, seen: Seen) -> Tracked:
    """``nf_conntrack_udplite_packet``: a stream from its first answer on."""
    refused = check_udplite(seen)
    if refused is not None:
        return refused
    timeout = seen.settings.udp_timeout_stream if entry.seen_reply else seen.settings.udp_timeout
    entry.refresh(seen.time_ns, timeout)
    entry.assured |= entry.seen_reply
    return Accepted()


def check_udplite(seen: Seen) -> Refused | None:
    """``udplite_error``. It sums up the pseudo header of UDP (17), so a checksum that is right for UDP-Lite (136) is
    wrong for conntrack.
    """
    buf = seen.buf
    if len(buf) < UDP_HEADER:
        return Refused(Reason.UDPLITE_SHORT, f"{len(buf)} bytes")
    covered = number(buf, 4, 2) or len(buf)
    if not UDP_HEADER <= covered <= len(buf):
        return Refused(Reason.UDPLITE_COVERAGE, f"coverage {covered} of {len(buf)} bytes")
    if not number(buf, 6, 2):
        return Refused(Reason.UDPLITE_NO_CHECKSUM)
    if seen.verifies and not transport_sum_ok(seen.ip, UDP, buf, covered=covered):
        return Refused(Reason.UDPLITE_CHECKSUM)
    return None
