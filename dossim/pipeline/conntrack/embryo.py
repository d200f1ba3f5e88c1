"""The host's half-open connections: what its TCP answers to a segment for a listening port.

``tcp_rcv_state_process`` (TCP_LISTEN) and ``tcp_check_req`` (``net/ipv4/tcp_input.c``, ``tcp_minisocks.c``), as far as
captured traffic gets: nobody on the wire knows the host's ISN, so a connection does not become established. Not
modelled: SYN cookies of a full backlog, timestamps that run backwards (PAWS).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dossim.packet.fields import IP
from dossim.pipeline.conntrack.tcp_flow import ACK, FIN, RST, SYN, TcpSegment, after, before

_WORD = 1 << 32
_FIRST_TIMEOUT_NS = 1_000_000_000  # TCP_TIMEOUT_INIT; each is twice the one before
_RETRIES = 5  # tcp_synack_retries
_RATE_LIMIT_NS = 500_000_000  # tcp_invalid_ratelimit
# The window of a SYN+ACK: 128 kB of buffer, half of it window, in whole segments of 1,460 bytes (tcp_rmem).
SYNACK_WINDOW = 64_240


@dataclass(frozen=True)
class Embryo:
    """``struct request_sock``. ``opened`` is the SYN it answers, ``ip`` that packet; ``limited_ns`` when it last sent
    what is limited; ``due_ns`` when its timer expires next, after ``timeouts`` times.
    """

    opened: TcpSegment
    ip: IP
    isn: int
    due_ns: int
    timeouts: int = 0
    limited_ns: int | None = None

    def repeated(self, time_ns: int) -> tuple[int | None, Embryo | None]:
        """``reqsk_timer_handler``: when by ``time_ns`` the timer repeats the SYN+ACK, if it does; and what is left."""
        if time_ns < self.due_ns:
            return None, self
        if self.timeouts == _RETRIES:
            return None, None
        count = self.timeouts + 1
        return self.due_ns, replace(self, timeouts=count, due_ns=self.due_ns + (_FIRST_TIMEOUT_NS << count))


@dataclass(frozen=True)
class SynAck:
    """Answers ``to`` with the sequence number ``isn``."""

    to: TcpSegment
    isn: int


@dataclass(frozen=True)
class Reset:
    """As ``tcp_v4_send_reset`` writes it."""

    to: TcpSegment


@dataclass(frozen=True)
class BareAck:
    seq: int
    ack: int


TcpAnswer = SynAck | Reset | BareAck | None


def answer_closed(segment: TcpSegment) -> TcpAnswer:
    """Where no socket is: a RST, but none to a RST."""
    return None if segment.flags & RST else Reset(segment)


def answer_listening(
    segment: TcpSegment, ip: IP, embryo: Embryo | None, isn: int, time_ns: int
) -> tuple[TcpAnswer, Embryo | None]:
    """The answer, and the half-open connection afterwards. ``isn``: of one that would begin now."""
    if embryo is None:
        return _listener(segment, ip, isn, time_ns)
    syn_isn, kind = embryo.opened.seq, segment.flags & (SYN | RST | ACK)
    if segment.seq == syn_isn and kind == SYN:
        allowed, embryo = _limit(embryo, segment, time_ns)
        if not allowed:
            return None, embryo
        postponed = replace(embryo, due_ns=time_ns + (_FIRST_TIMEOUT_NS << embryo.timeouts))
        return SynAck(embryo.opened, embryo.isn), postponed
    if segment.flags & ACK and segment.ack != (embryo.isn + 1) % _WORD:
        answer, _ = _listener(segment, ip, isn, time_ns)
        return answer, embryo
    if not _in_receive_window(segment, (syn_isn + 1) % _WORD):
        if segment.flags & RST:
            return None, embryo
        allowed, embryo = _limit(embryo, segment, time_ns)
        ack = BareAck((embryo.isn + 1) % _WORD, (syn_isn + 1) % _WORD)
        return ack if allowed else None, embryo
    if segment.seq == syn_isn:
        kind &= ~SYN
    if kind & RST:  # only an exact one ends it (measured, 6.18.44)
        return None, None if segment.seq == (syn_isn + 1) % _WORD else embryo
    return (Reset(segment), None) if kind & SYN else (None, embryo)


def _listener(segment: TcpSegment, ip: IP, isn: int, time_ns: int) -> tuple[TcpAnswer, Embryo | None]:
    """TCP_LISTEN: a RST to an ACK, a SYN+ACK to a SYN without FIN, nothing else."""
    if segment.flags & RST:
        return None, None
    if segment.flags & ACK:
        return Reset(segment), None
    if segment.flags & SYN and not segment.flags & FIN:
        return SynAck(segment, isn), Embryo(segment, ip, isn, time_ns + _FIRST_TIMEOUT_NS)
    return None, None


def _limit(embryo: Embryo, segment: TcpSegment, time_ns: int) -> tuple[bool, Embryo]:
    """``tcp_oow_rate_limited``: data without SYN is not limited."""
    if segment.seq != segment.end and not segment.flags & SYN:
        return True, embryo
    last = embryo.limited_ns
    if last is not None and 0 <= time_ns - last < _RATE_LIMIT_NS:
        return False, embryo
    return True, replace(embryo, limited_ns=time_ns)


def _in_receive_window(segment: TcpSegment, first: int) -> bool:
    """``tcp_in_window``."""
    end = (first + SYNACK_WINDOW) % _WORD
    if segment.seq == first or (after(segment.end, first) and before(segment.seq, end)):
        return True
    return segment.seq == end == segment.end
