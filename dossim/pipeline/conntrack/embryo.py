"""The host's half-open connections: what its TCP answers to a segment for a listening port.

``tcp_rcv_state_process`` (TCP_LISTEN) and ``tcp_check_req`` (``net/ipv4/tcp_input.c``, ``tcp_minisocks.c``), as far as
captured traffic gets: nobody on the wire knows the host's ISN, so a connection does not become established. Not
modelled: SYN cookies of a full backlog, timestamps that run backwards (PAWS), the SYN+ACKs that a timer repeats (they
change nothing in the entry).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dossim.pipeline.conntrack.tcp_flow import ACK, FIN, RST, SYN, TcpSegment, after, before

_WORD = 1 << 32
_LIFE_NS = 63_000_000_000  # five SYN+ACKs repeated after 1, 2, 4, 8, 16 s, and 32 s more (tcp_synack_retries)
_RATE_LIMIT_NS = 500_000_000  # tcp_invalid_ratelimit
# The window of a SYN+ACK: 128 kB of buffer, half of it window, in whole segments of 1,460 bytes (tcp_rmem).
SYNACK_WINDOW = 64_240


@dataclass(frozen=True)
class Embryo:
    """``struct request_sock``. ``opened`` is the SYN it answers; ``limited_ns`` when it last sent what is limited."""

    opened: TcpSegment
    isn: int
    born_ns: int
    limited_ns: int | None = None

    def is_alive(self, time_ns: int) -> bool:
        return time_ns < self.born_ns + _LIFE_NS


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
    segment: TcpSegment, embryo: Embryo | None, isn: int, time_ns: int
) -> tuple[TcpAnswer, Embryo | None]:
    """The answer, and the half-open connection afterwards. ``isn``: of one that would begin now."""
    if embryo is None or not embryo.is_alive(time_ns):
        return _listener(segment, isn, time_ns)
    syn_isn, kind = embryo.opened.seq, segment.flags & (SYN | RST | ACK)
    if segment.seq == syn_isn and kind == SYN:
        allowed, embryo = _limit(embryo, segment, time_ns)
        return SynAck(embryo.opened, embryo.isn) if allowed else None, embryo
    if segment.flags & ACK and segment.ack != (embryo.isn + 1) % _WORD:
        answer, _ = _listener(segment, isn, time_ns)
        return answer, embryo
    if not _in_receive_window(segment, (syn_isn + 1) % _WORD):
        if segment.flags & RST:
            return None, embryo
        allowed, embryo = _limit(embryo, segment, time_ns)
        ack = BareAck((embryo.isn + 1) % _WORD, (syn_isn + 1) % _WORD)
        return ack if allowed else None, embryo
    if segment.seq == syn_isn:
        kind &= ~SYN
    if kind & RST:
        return None, None
    return (Reset(segment), None) if kind & SYN else (None, embryo)


def _listener(segment: TcpSegment, isn: int, time_ns: int) -> tuple[TcpAnswer, Embryo | None]:
    """TCP_LISTEN: a RST to an ACK, a SYN+ACK to a SYN without FIN, nothing else."""
    if segment.flags & RST:
        return None, None
    if segment.flags & ACK:
        return Reset(segment), None
    if segment.flags & SYN and not segment.flags & FIN:
        return SynAck(segment, isn), Embryo(segment, isn, time_ns)
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
