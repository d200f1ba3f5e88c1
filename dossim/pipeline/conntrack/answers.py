"""What the host answers to a packet that it was delivered, as a packet: conntrack sees it too, in the other direction.

TCP: a RST of a closed port, the SYN+ACK of a listening one. ICMP: echo and timestamp replies, ICMPv6: echo replies. The
reply to a timestamp request always has code 0 (icmp_timestamp): it is of the flow of a request with that code only.
Nothing else of the host's changes an entry: an ICMP error is RELATED, and what an application says is not modelled.
"""

from __future__ import annotations

from dossim.model.host import Host, Listener
from dossim.packet.fields import ICMP, ICMP_HEADER, ICMPV6, IP, IPV4_HEADER, TCP, TCP_HEADER, IPv4
from dossim.packet.parse import number, parse_ipv4, parse_ipv6
from dossim.pipeline.conntrack.embryo import (
    SYNACK_WINDOW,
    BareAck,
    Reset,
    SynAck,
    TcpAnswer,
    answer_closed,
    answer_listening,
)
from dossim.pipeline.conntrack.entry import Seen
from dossim.pipeline.conntrack.flow import World
from dossim.pipeline.conntrack.tcp_flow import ACK, FIN, RST, SYN, TcpSegment, read_segment

_WORD = 1 << 32
_TICK_NS = 64  # the clock of ISNs (secure_seq.c: seq_scale)
_TIMESTAMP_BODY = 4  # what icmp_timestamp wants after the header
_MSS = b"\x02\x04\x05\xb4"
_SACK_PERMITTED = b"\x04\x02\x01\x01"
_SCALE = b"\x01\x03\x03\x07"


def is_listening(seen: Seen, host: Host) -> bool:
    return seen.protocol == TCP and len(seen.buf) >= 4 and Listener(TCP, number(seen.buf, 2, 2)) in host.listen


def answer(seen: Seen, host: Host, world: World) -> IP | None:
    """The host's answer, None without one; the host's half-open connection in ``world`` follows.

    The packet is one that the transport takes: whole, and with a good checksum.
    """
    buf = seen.buf
    if seen.protocol == TCP and len(buf) >= TCP_HEADER:
        segment = read_segment(buf)
        body = _tcp_body(_tcp_answer(segment, seen, host, world), segment)
        return None if body is None else _packet(seen.ip, TCP, body)
    version = 4 if isinstance(seen.ip, IPv4) else 6
    if (version, seen.protocol) not in ((4, ICMP), (6, ICMPV6)) or len(buf) < ICMP_HEADER:
        return None
    match version, buf[0]:
        case 4, 8:
            return _packet(seen.ip, ICMP, b"\0" + buf[1:])
        case 4, 13 if not buf[1] and len(buf) >= ICMP_HEADER + _TIMESTAMP_BODY:
            return _packet(seen.ip, ICMP, b"\x0e" + buf[1:])
        case 6, 128:
            return _packet(seen.ip, ICMPV6, b"\x81" + buf[1:])
    return None


def repeated_syn_ack(world: World, time_ns: int) -> tuple[IP, int] | None:
    """The SYN+ACK that the host's timer repeats next, by ``time_ns``, and when; the half-open connection follows."""
    embryo = world.embryo
    if embryo is None:
        return None
    at_ns, world.embryo = embryo.repeated(time_ns)
    if at_ns is None:
        return None
    body = _tcp_body(SynAck(embryo.opened, embryo.isn), embryo.opened)
    assert body is not None, "a SYN+ACK has one"
    return _packet(embryo.ip, TCP, body), at_ns


def _tcp_answer(segment: TcpSegment, seen: Seen, host: Host, world: World) -> TcpAnswer:
    if not is_listening(seen, host):
        return answer_closed(segment)
    assert world.isn is not None, "a flow of a listening port has a world for each ISN"
    isn = (world.isn + seen.time_ns // _TICK_NS) % _WORD
    found, world.embryo = answer_listening(segment, seen.ip, world.embryo, isn, seen.time_ns)
    return found


def _tcp_body(found: TcpAnswer, segment: TcpSegment) -> bytes | None:
    ports = segment.buf[2:4] + segment.buf[:2]
    match found:
        case None:
            return None
        case Reset(to) if to.flags & ACK:
            return _segment(ports, to.ack, 0, RST, 0)
        case Reset(to):
            length = len(to.buf) - to.header + bool(to.flags & SYN) + bool(to.flags & FIN)
            return _segment(ports, 0, to.seq + length, RST | ACK, 0)
        case BareAck(seq, ack):
            return _segment(ports, seq, ack, ACK, SYNACK_WINDOW)
        case SynAck(to, isn):
            offered = to.options()
            options = _MSS + _SACK_PERMITTED * offered.sack_permitted + _SCALE * (offered.scale is not None)
            return _segment(ports, isn, to.seq + 1, SYN | ACK, SYNACK_WINDOW, options)


def _segment(ports: bytes, seq: int, ack: int, flags: int, window: int, options: bytes = b"") -> bytes:
    """Without checksum: of what the host sends conntrack verifies none."""
    offset = (TCP_HEADER + len(options)) // 4 << 4
    numbers = (seq % _WORD).to_bytes(4, "big") + (ack % _WORD).to_bytes(4, "big")
    return ports + numbers + bytes([offset, flags]) + window.to_bytes(2, "big") + bytes(4) + options


def _packet(to: IP, protocol: int, body: bytes) -> IP:
    """An IP packet to the sender of ``to``."""
    made: IP | None
    if isinstance(to, IPv4):
        length = (IPV4_HEADER + len(body)).to_bytes(2, "big")
        start = b"\x45\0" + length + b"\0\0\x40\0\x40" + bytes([protocol]) + b"\0\0"
        made = parse_ipv4(start + to.destination.packed + to.source.packed + body)
    else:
        start = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes([protocol, 64])
        made = parse_ipv6(start + to.destination.packed + to.source.packed + body)
    assert made is not None, "a whole header"
    return made
