"""TCP: ``nf_conntrack_tcp_packet`` of ``net/netfilter/nf_conntrack_proto_tcp.c`` (Linux 6.18)."""

from __future__ import annotations

from dossim.packet.fields import TCP, TCP_HEADER
from dossim.pipeline.conntrack.checksum import transport_sum_ok
from dossim.pipeline.conntrack.entry import Entry, Seen
from dossim.pipeline.conntrack.settings import Settings
from dossim.pipeline.conntrack.states import Accepted, CtDirection, Reason, Refused, Remark, Reopens, Tracked
from dossim.pipeline.conntrack.tcp_flow import ACK, FIN, RST, SYN, URG, Side, TcpFlow, TcpSegment, before, read_segment
from dossim.pipeline.conntrack.tcp_states import IGNORE, INVALID, Kind, TcpState, next_state
from dossim.pipeline.conntrack.tcp_window import Ignored, InWindow, OutOfWindow, judge_window, take_options

_VALID_FLAGS = frozenset(
    {SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG}
)  # tcp_valid_flags
_JUDGED_FLAGS = FIN | SYN | RST | ACK | URG  # the others may be set or not
_CLOSING = frozenset(
    {TcpState.FIN_WAIT, TcpState.LAST_ACK, TcpState.TIME_WAIT, TcpState.CLOSE, TcpState.CLOSE_WAIT}
)  # tcp_can_early_drop
_SHRINKS_ABOVE_S = 120
_FLAG_NAMES = "FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"


def track_tcp(entry: Entry, direction: CtDirection, seen: Seen) -> Tracked:
    refused = check_tcp(seen)
    if refused is not None:
        return refused
    segment = read_segment(seen.buf)
    remark: Remark | None = None
    if not entry.confirmed:
        begun = _begin(segment, seen.settings)
        if isinstance(begun, Refused):
            return begun
        entry.tcp = begun
        remark = Remark.TCP_PICKED_UP if segment.kind is Kind.ACK else None
    assert entry.tcp is not None, "every entry of TCP has one"
    return _Step(entry, entry.tcp, direction, segment, seen, remark).take()


def check_tcp(seen: Seen) -> Refused | None:
    """``tcp_error``, and the header of 20 bytes before it."""
    buf = seen.buf
    if len(buf) < TCP_HEADER:
        return Refused(Reason.TCP_SHORT, f"{len(buf)} bytes")
    header = (buf[12] >> 4) * 4
    if not TCP_HEADER <= header <= len(buf):
        return Refused(Reason.TCP_DATA_OFFSET, f"data offset {header} of {len(buf)} bytes")
    if seen.verifies and not transport_sum_ok(seen.ip, TCP, buf):
        return Refused(Reason.TCP_CHECKSUM)
    if buf[13] & _JUDGED_FLAGS not in _VALID_FLAGS:
        return Refused(Reason.TCP_FLAGS, flag_names(buf[13]))
    return None


def flag_names(flags: int) -> str:
    """``SYN+ACK``; ``none`` without any."""
    return "+".join(name for bit, name in enumerate(_FLAG_NAMES) if flags >> bit & 1) or "none"


def _begin(segment: TcpSegment, settings: Settings) -> TcpFlow | Refused:
    """``tcp_new``: a SYN, or with tcp_loose an ACK of a connection that is under way."""
    flow = TcpFlow()
    sender = flow.sides[CtDirection.ORIGINAL]
    match next_state(CtDirection.ORIGINAL, segment.kind, TcpState.NONE):
        case TcpState.SYN_SENT:
            take_options(sender, segment)
            offered = 0
        case TcpState():
            if not settings.tcp_loose:
                return Refused(Reason.TCP_NOT_LOOSE)
            for side in flow.sides:
                side.sack_permitted = side.liberal = True
            offered = segment.window or 1
        case _:
            return Refused(Reason.TCP_NOT_OPENING, flag_names(segment.flags))
    sender.end = segment.end
    sender.maxwin = segment.window or 1
    sender.maxend = (segment.end + offered) % (1 << 32)
    return flow


class _Step:
    """One segment on its entry."""

    def __init__(
        self,
        entry: Entry,
        flow: TcpFlow,
        direction: CtDirection,
        segment: TcpSegment,
        seen: Seen,
        remark: Remark | None,
    ) -> None:
        self.entry = entry
        self.flow = flow
        self.direction = direction
        self.segment = segment
        self.seen = seen
        self.remark = remark

    def take(self) -> Tracked:
        """By the state table, then by the window."""
        flow, old = self.flow, self.flow.state
        new = next_state(self.direction, self.segment.kind, old)
        if new == INVALID:
            return Refused(Reason.TCP_STATE, f"{flag_names(self.segment.flags)} in {old.name}")
        if new == IGNORE or (new is TcpState.SYN_SENT and old >= TcpState.TIME_WAIT):
            if new is TcpState.SYN_SENT and self._may_reopen():
                return Reopens()
            if not self._resynchronises():
                return self._ignore()
            old, new = TcpState.SYN_SENT, TcpState.SYN_RECV
        assert isinstance(new, TcpState), "invalid and ignored are done"
        if new is TcpState.TIME_WAIT and self._is_challenge_ack(old):
            flow.last.expects_challenge_ack = False
            return Accepted(Remark.TCP_CHALLENGE_ACK)
        if new is TcpState.SYN_SENT2:
            flow.last.simultaneous_open = True
        is_ack_of_reply = self.direction is CtDirection.REPLY and self.segment.kind is Kind.ACK
        if new is TcpState.SYN_RECV and is_ack_of_reply and flow.last.simultaneous_open:
            new = TcpState.ESTABLISHED
        if new is TcpState.CLOSE and self.segment.kind is Kind.RST:
            reset = self._reset(old)
            if isinstance(reset, Refused):
                return reset
            new, is_believed = reset
            if is_believed:
                return self._accept(old, new)
        return self._by_window(old, new)

    def _by_window(self, old: TcpState, new: TcpState) -> Tracked:
        settings = self.seen.settings
        match judge_window(self.flow, self.direction, self.segment, liberal=settings.tcp_be_liberal):
            case InWindow():
                return self._accept(old, new)
            case Ignored(remark):
                return Accepted(remark)
            case OutOfWindow(reason, detail):
                self._out_of_window()
                return Refused(reason, detail)

    def _may_reopen(self) -> bool:
        """A SYN to a connection that one side closed, or that its own RST ended."""
        last = self.flow.last
        is_own_reset = last.direction is self.direction and last.kind is Kind.RST
        return is_own_reset or any(side.close_init for side in self.flow.sides)

    def _resynchronises(self) -> bool:
        """A SYN+ACK that acknowledges a SYN which was ignored: both ends are in step, the entry was not."""
        last = self.flow.last
        answers = last.kind is Kind.SYN and last.direction is not self.direction and self.segment.ack == last.end
        if self.segment.kind is not Kind.SYNACK or not answers:
            return False
        last.expects_challenge_ack = False
        liberal = self.flow.sides[self.direction].liberal
        self.flow.sides[last.direction] = Side(
            end=last.end,
            maxend=last.end,
            maxwin=last.window or 1,
            scale=last.scale,
            has_scale=last.has_scale,
            sack_permitted=last.sack_permitted,
        )
        self.flow.sides[self.direction] = Side(liberal=liberal)
        return True

    def _ignore(self) -> Tracked:
        """The entry may be out of step: it notes the segment and lets it pass."""
        last, segment, old = self.flow.last, self.segment, self.flow.state
        last.kind, last.direction = segment.kind, self.direction
        last.seq, last.end, last.window = segment.seq, segment.end, segment.window
        if segment.kind is Kind.SYN and self.direction is CtDirection.ORIGINAL:
            options = segment.options()
            last.scale, last.has_scale = options.scale or 0, options.scale is not None
            last.sack_permitted = options.sack_permitted
            last.simultaneous_open = False
            last.expects_challenge_ack = old is TcpState.LAST_ACK
        if old is TcpState.SYN_SENT and segment.kind is Kind.ACK and self.direction is CtDirection.REPLY:
            last.ack = segment.ack
        return Accepted(Remark.TCP_IGNORED)

    def _is_challenge_ack(self, old: TcpState) -> bool:
        """RFC 5961: the answer to a SYN that was ignored must not be taken for the acknowledgment of a FIN."""
        last = self.flow.last
        after_syn = last.direction is not self.direction and last.kind is Kind.SYN and last.expects_challenge_ack
        return old is TcpState.LAST_ACK and self.segment.kind is Kind.ACK and after_syn

    def _reset(self, old: TcpState) -> Refused | tuple[TcpState, bool]:
        """A RST: the state it leads to, and whether that is believed without a look at the window."""
        flow, last, seq = self.flow, self.flow.last, self.segment.seq
        if flow.state in _CLOSING:
            return TcpState.CLOSE, True
        new = TcpState.CLOSE
        maxack = flow.sides[self.direction.other].maxack
        is_established = flow.state is TcpState.ESTABLISHED and self.entry.assured
        if maxack is not None and last.kind is not Kind.SYN:
            if seq == 0 and not is_established:
                return new, False
            if before(seq, maxack) and not self.seen.settings.tcp_ignore_invalid_rst:
                return Refused(Reason.TCP_RST_OLD, f"{seq} below {maxack}")
            is_of_train = last.kind is Kind.ACK and last.direction is self.direction and seq == last.end
            if not is_established or seq == maxack or is_of_train:
                return new, False
            new = old  # a RST that is not exact: wait for a challenge ACK
        return new, self._answers_ignored(old)

    def _answers_ignored(self, old: TcpState) -> bool:
        """A RST that answers a SYN, an ACK or a challenge ACK which was let through.

        That the SYN must be the other side's is a late fix: 6.18.44 has it, 6.11 has not.
        """
        last = self.flow.last
        is_others = last.direction is not self.direction
        after_syn = self.entry.seen_reply and last.kind is Kind.SYN and is_others
        after_ack = not self.entry.assured and last.kind is Kind.ACK
        if (after_syn or after_ack) and self.segment.ack == last.end:
            return True
        is_after_challenge = last.kind is Kind.ACK and last.direction is CtDirection.REPLY
        return old is TcpState.SYN_SENT and is_after_challenge and self.segment.seq == last.ack

    def _accept(self, old: TcpState, new: TcpState) -> Tracked:
        flow, entry, kind = self.flow, self.entry, self.segment.kind
        flow.last.kind, flow.last.direction = kind, self.direction
        flow.state = new
        if old is not new and new is TcpState.FIN_WAIT:
            flow.sides[self.direction].close_init = True
        timeout = self._timeout(new)
        if not entry.seen_reply:
            if kind is Kind.RST:  # the only answer is a RST: there is no connection
                return Accepted(Remark.TCP_DELETED, deletes=True)
            if kind is Kind.SYN and old is TcpState.SYN_SENT:  # a repeated SYN does not keep the entry
                return Accepted(self.remark)
            if new is TcpState.ESTABLISHED:
                timeout = min(timeout, self.seen.settings.tcp_timeout_unacknowledged)
        elif old in (TcpState.SYN_RECV, TcpState.ESTABLISHED) and new is TcpState.ESTABLISHED:
            entry.assured = True
        entry.refresh(self.seen.time_ns, timeout)
        return Accepted(self.remark)

    def _timeout(self, new: TcpState) -> int:
        settings, flow = self.seen.settings, self.flow
        usual = settings.tcp_timeouts[new]
        if flow.retransmissions >= settings.tcp_max_retrans and usual > settings.tcp_timeout_max_retrans:
            return settings.tcp_timeout_max_retrans
        if self.segment.kind is Kind.RST:
            return settings.tcp_timeouts[TcpState.CLOSE]
        if any(side.unacknowledged for side in flow.sides) and usual > settings.tcp_timeout_unacknowledged:
            return settings.tcp_timeout_unacknowledged
        return min(usual, settings.tcp_timeout_max_retrans) if flow.last.window == 0 else usual

    def _out_of_window(self) -> None:
        """``nf_tcp_handle_invalid``: a FIN or RST of each side out of the window shortens the life of the entry."""
        last, kind, settings = self.flow.last, self.segment.kind, self.seen.settings
        ends = (Kind.RST, Kind.FIN)
        if not self.entry.assured or kind not in ends:
            return
        if last.direction is self.direction or last.kind not in ends:
            last.kind, last.direction = kind, self.direction
            return
        left = self.entry.expires_s(self.seen.time_ns)
        if left >= _SHRINKS_ABOVE_S and left > settings.tcp_timeout_unacknowledged:
            self.entry.refresh(self.seen.time_ns, settings.tcp_timeout_unacknowledged)
