"""Is a segment in the window? ``tcp_in_window`` of ``net/netfilter/nf_conntrack_proto_tcp.c`` (Linux 6.18).

The windows are those that the host in the middle has seen. Four bounds: sequence number and acknowledgment number, each
from above and from below. Above a bound is invalid; below one, a segment is late, and ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from dossim.pipeline.conntrack.states import CtDirection, Reason, Remark
from dossim.pipeline.conntrack.tcp_flow import ACK, RST, SYN, Side, TcpFlow, TcpSegment, after, before
from dossim.pipeline.conntrack.tcp_states import Kind, TcpState

_LEAST_ACK_WINDOW = 66_000  # MAXACKWINCONST
_WORD = 1 << 32


@dataclass(frozen=True)
class InWindow:
    pass


@dataclass(frozen=True)
class Ignored:
    remark: Remark


@dataclass(frozen=True)
class OutOfWindow:
    reason: Reason
    detail: str


Position = InWindow | Ignored | OutOfWindow


@dataclass
class _Numbers:
    """Those of the segment, as far as they are believed."""

    seq: int
    end: int
    ack: int
    sack: int


def judge_window(flow: TcpFlow, direction: CtDirection, segment: TcpSegment, *, liberal: bool) -> Position:
    """Where the segment lies; if in the window, both sides learn from it. ``liberal``: tcp_be_liberal."""
    sender, receiver = flow.sides[direction], flow.sides[direction.other]
    sack = segment.highest_sack() if receiver.sack_permitted else segment.ack
    if _start(flow, direction, segment, sack):
        return InWindow()
    numbers = _believed(flow, segment, sack, sender, receiver)
    found = _bounds(numbers, sender, receiver)
    if found is not None:
        return InWindow() if liberal or sender.liberal else found
    _learn(flow, direction, segment, numbers)
    return InWindow()


def _start(flow: TcpFlow, direction: CtDirection, segment: TcpSegment, sack: int) -> bool:
    """What is known of a sender before its first segment. True: a SYN of a simultaneous open, which ends the matter."""
    sender, receiver = flow.sides[direction], flow.sides[direction.other]
    opens = bool(segment.flags & SYN)
    if sender.maxwin == 0 and not opens:  # in the middle of a connection
        sender.end = segment.end
        sender.maxwin = (segment.window << sender.scale) or 1
        sender.maxend = (segment.end + sender.maxwin) % _WORD
        if receiver.maxwin == 0:
            receiver.end = receiver.maxend = sack
        elif sack == (receiver.end + 1) % _WORD:  # likely a reply to a keepalive
            receiver.end = sack
        return False
    if sender.maxwin == 0:
        begin_side(sender, receiver, direction, segment)
        return not segment.flags & ACK
    if opens and after(segment.end, sender.end) and flow.state in (TcpState.SYN_SENT, TcpState.SYN_RECV):
        begin_side(sender, receiver, direction, segment)
        return direction is CtDirection.REPLY and not segment.flags & ACK
    return False


def begin_side(sender: Side, receiver: Side, direction: CtDirection, segment: TcpSegment) -> None:
    """``tcp_init_sender``: from a SYN. Both must offer window scaling (RFC 7323)."""
    sender.end = sender.maxend = segment.end
    sender.maxwin = segment.window or 1
    take_options(sender, segment)
    if direction is CtDirection.REPLY and not (sender.has_scale and receiver.has_scale):
        sender.scale = receiver.scale = 0


def take_options(side: Side, segment: TcpSegment) -> None:
    """``tcp_options``: without any, what is known stays; else they replace it, and all flags but ``liberal``."""
    if not segment.has_options:
        return
    options = segment.options()
    side.scale, side.has_scale = options.scale or 0, options.scale is not None
    side.sack_permitted = options.sack_permitted
    side.maxack, side.unacknowledged, side.close_init = None, False, False


def _believed(flow: TcpFlow, segment: TcpSegment, sack: int, sender: Side, receiver: Side) -> _Numbers:
    numbers = _Numbers(segment.seq, segment.end, segment.ack, sack)
    is_reset = bool(segment.flags & RST)
    if not segment.flags & ACK or (is_reset and segment.ack == 0):  # some stacks send RST+ACK with 0
        numbers.ack = numbers.sack = receiver.end
    if is_reset and segment.seq == 0 and flow.state is TcpState.SYN_SENT:  # the answer to a SYN
        numbers.seq = numbers.end = sender.end
    return numbers


def _bounds(numbers: _Numbers, sender: Side, receiver: Side) -> Ignored | OutOfWindow | None:
    lowest_end = (sender.end - receiver.maxwin - 1) % _WORD
    lowest_ack = (receiver.end - max(sender.maxwin, _LEAST_ACK_WINDOW) - 1) % _WORD
    is_ack_over = not before(numbers.sack, (receiver.end + 1) % _WORD)
    if not before(numbers.seq, (sender.maxend + 1) % _WORD):
        overshot = (numbers.end - sender.maxend + 1) % _WORD
        is_whole_but_for_that = receiver.maxwin != 0 and after(numbers.end, lowest_end)
        is_acked_well = after(numbers.sack, lowest_ack) and not is_ack_over
        if is_whole_but_for_that and is_acked_well and overshot <= receiver.maxwin:
            # A sender that sends more than it may: if that is acknowledged, the acknowledgment shall be in the window.
            sender.end, sender.unacknowledged = numbers.end, True
            return Ignored(Remark.TCP_OVERSHOT)
        return OutOfWindow(Reason.TCP_SEQ_OVER, f"{numbers.seq} above {sender.maxend}")
    if is_ack_over:
        return OutOfWindow(Reason.TCP_ACK_OVER, f"{numbers.sack} above {receiver.end}")
    if receiver.maxwin != 0 and not after(numbers.end, lowest_end):
        return Ignored(Remark.TCP_SEQ_UNDER)
    return None if after(numbers.sack, lowest_ack) else Ignored(Remark.TCP_ACK_UNDER)


def _learn(flow: TcpFlow, direction: CtDirection, segment: TcpSegment, numbers: _Numbers) -> None:
    sender, receiver = flow.sides[direction], flow.sides[direction.other]
    window = segment.window if segment.flags & SYN else segment.window << sender.scale
    sender.maxwin = max(sender.maxwin, (window + numbers.sack - numbers.ack) % _WORD)
    if after(numbers.end, sender.end):
        sender.end, sender.unacknowledged = numbers.end, True
    if segment.flags & ACK and (sender.maxack is None or after(numbers.ack, sender.maxack)):
        sender.maxack = numbers.ack
    if receiver.maxwin != 0 and after(numbers.end, sender.maxend):
        receiver.maxwin = (receiver.maxwin + numbers.end - sender.maxend) % _WORD
    offered = (numbers.sack + window) % _WORD
    if after(offered, (receiver.maxend - 1) % _WORD):
        receiver.maxend = offered if window else (offered + 1) % _WORD
    if numbers.ack == receiver.end:
        receiver.unacknowledged = False
    if segment.kind is Kind.ACK:
        _count_retransmissions(flow, direction, segment, numbers)


def _count_retransmissions(flow: TcpFlow, direction: CtDirection, segment: TcpSegment, numbers: _Numbers) -> None:
    last, window = flow.last, segment.window
    now = direction, numbers.seq, numbers.ack, numbers.end, window
    if (last.direction, last.seq, last.ack, last.end, last.window) == now:
        flow.retransmissions += 1
    else:
        last.direction, last.seq, last.ack, last.end, last.window = now
        flow.retransmissions = 0
