"""What an entry keeps of a TCP connection (``struct ip_ct_tcp``), and a segment as conntrack reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dossim.packet.fields import TCP_HEADER
from dossim.packet.parse import number
from dossim.pipeline.conntrack.states import CtDirection
from dossim.pipeline.conntrack.tcp_states import Kind, TcpState

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

_END, _NOP, _WINDOW, _SACK_PERMITTED, _SACK = 0, 1, 3, 4, 5
_MOST_SCALE = 14  # TCP_MAX_WSCALE
_TIMESTAMP_ALONE = bytes([1, 1, 8, 10])  # and eight bytes of timestamps: not searched for SACK blocks
_WORD = 1 << 32


def before(a: int, b: int) -> bool:
    """Whether sequence number a precedes b, modulo 2^32 (``include/net/tcp.h``)."""
    return (a - b) % _WORD > _WORD // 2 - 1


def after(a: int, b: int) -> bool:
    return before(b, a)


@dataclass
class Side:
    """One end of the connection (``struct ip_ct_tcp_state``). Names as the kernel's, without ``td_``.

    ``end``: the highest sequence number + length it has sent; ``maxend``: how far it may send; ``maxwin``: the largest
    window it offered; ``maxack``: the highest it acknowledged, None before any.
    """

    end: int = 0
    maxend: int = 0
    maxwin: int = 0
    maxack: int | None = None
    scale: int = 0
    has_scale: bool = False
    sack_permitted: bool = False
    liberal: bool = False
    unacknowledged: bool = False
    close_init: bool = False


@dataclass
class Last:
    """The last segment of note. ``kind``, ``direction``: of the last that was accepted or ignored; the numbers are
    those of the last ACK that was accepted, or of the last that was ignored.
    """

    kind: Kind = Kind.NONE
    direction: CtDirection = CtDirection.ORIGINAL
    seq: int = 0
    ack: int = 0
    end: int = 0
    window: int = 0
    scale: int = 0
    has_scale: bool = False
    sack_permitted: bool = False
    expects_challenge_ack: bool = False
    simultaneous_open: bool = False


@dataclass
class TcpFlow:
    """``sides`` is indexed by direction."""

    state: TcpState = TcpState.NONE
    sides: list[Side] = field(default_factory=lambda: [Side(), Side()])
    last: Last = field(default_factory=Last)
    retransmissions: int = 0


@dataclass(frozen=True)
class Options:
    scale: int | None = None
    sack_permitted: bool = False


@dataclass(frozen=True)
class TcpSegment:
    """``end`` is the sequence number after the segment: + its data, + 1 each for SYN and FIN."""

    buf: bytes
    seq: int
    ack: int
    flags: int
    window: int
    header: int  # bytes, options included
    end: int

    @property
    def kind(self) -> Kind:
        if self.flags & RST:
            return Kind.RST
        if self.flags & SYN:
            return Kind.SYNACK if self.flags & ACK else Kind.SYN
        if self.flags & FIN:
            return Kind.FIN
        return Kind.ACK if self.flags & ACK else Kind.NONE

    @property
    def has_options(self) -> bool:
        return self.header > TCP_HEADER

    def options(self) -> Options:
        """``tcp_options``: the last of each kind counts."""
        scale: int | None = None
        sack_permitted = False
        for kind, body in self._options():
            if kind == _SACK_PERMITTED and not body:
                sack_permitted = True
            elif kind == _WINDOW and len(body) == 1:
                scale = min(body[0], _MOST_SCALE)
        return Options(scale, sack_permitted)

    def highest_sack(self) -> int:
        """``tcp_sack``: the highest right edge of the first SACK option, if above the acknowledgment number."""
        options, highest = self.buf[TCP_HEADER : self.header], self.ack
        if len(options) == 12 and options[:4] == _TIMESTAMP_ALONE:
            return highest
        for kind, body in self._options():
            if kind == _SACK and body and not len(body) % 8:
                for at in range(0, len(body), 8):
                    edge = number(body, at + 4, 4)
                    highest = edge if after(edge, highest) else highest
                return highest
        return highest

    def _options(self) -> list[tuple[int, bytes]]:
        """As far as they can be read: kind and body of each."""
        found: list[tuple[int, bytes]] = []
        at = TCP_HEADER
        while at < self.header:
            kind = self.buf[at]
            if kind == _END:
                break
            if kind == _NOP:
                at += 1
                continue
            length = self.buf[at + 1] if at + 1 < self.header else 0
            if length < 2 or at + length > self.header:
                break
            found.append((kind, self.buf[at + 2 : at + length]))
            at += length
        return found


def read_segment(buf: bytes) -> TcpSegment:
    """The segment in ``buf``, of at least 20 bytes; nothing is judged."""
    flags, header = buf[13], (buf[12] >> 4) * 4
    seq = number(buf, 4, 4)
    length = len(buf) - header + bool(flags & SYN) + bool(flags & FIN)
    return TcpSegment(buf, seq, number(buf, 8, 4), flags, number(buf, 14, 2), header, (seq + length) % _WORD)
