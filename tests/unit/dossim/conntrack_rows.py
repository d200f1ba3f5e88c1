"""What connection tracking says of a packet that arrives alone, and of the packets of SCTP associations: for the model
and for the kernel.

Each row has its neighbour that just does not match.
"""

from __future__ import annotations

from dossim.pipeline.conntrack.states import CtState, Reason
from tests.support.frames import ipv6
from tests.support.talk import (
    ACK,
    CWR,
    ECE,
    FIN,
    ME6,
    PEER6,
    PSH,
    ROUTER6,
    RST,
    SYN,
    URG,
    chunk,
    icmp,
    icmp6,
    other,
    sctp,
    tcp,
    udp,
)

NEW, ESTABLISHED, INVALID, UNTRACKED = CtState.NEW, CtState.ESTABLISHED, CtState.INVALID, CtState.UNTRACKED

SENT_UDP = udp(back=True)  # what the host sent
PORT_UNREACHABLE = b"\0\0\0\0" + SENT_UDP

# sentence -> (packet that arrives first and alone, state, reason)
ALONE: dict[str, tuple[bytes, CtState, Reason]] = {
    "UDP": (udp(), NEW, Reason.FIRST),
    "UDP of 7 bytes": (other(17, bytes(7)), INVALID, Reason.UDP_SHORT),
    "UDP of 3 bytes: no ports": (other(17, bytes(3)), INVALID, Reason.NO_TUPLE),
    "UDP of length 8 with data after it, and a checksum over both": (udp(length=8), NEW, Reason.FIRST),
    "UDP of length 7": (udp(length=7), INVALID, Reason.UDP_LENGTH),
    "UDP longer than its packet": (udp(length=14), INVALID, Reason.UDP_LENGTH),
    "UDP without checksum": (udp(checksum=0), NEW, Reason.FIRST),
    "UDP with a bad checksum": (udp(checksum=1), INVALID, Reason.UDP_CHECKSUM),
    "UDP-Lite with the checksum that UDP would have": (udp(protocol=136, summed_as=17), NEW, Reason.FIRST),
    "UDP-Lite with its own checksum": (udp(protocol=136), INVALID, Reason.UDPLITE_CHECKSUM),
    "UDP-Lite of 7 bytes": (other(136, bytes(7)), INVALID, Reason.UDPLITE_SHORT),
    "UDP-Lite without checksum": (udp(protocol=136, checksum=0), INVALID, Reason.UDPLITE_NO_CHECKSUM),
    "UDP-Lite that covers 7 bytes": (udp(protocol=136, length=7), INVALID, Reason.UDPLITE_COVERAGE),
    "TCP SYN": (tcp(SYN), NEW, Reason.FIRST),
    "TCP SYN+URG+PSH+ECE+CWR": (tcp(SYN | URG | PSH | ECE | CWR), NEW, Reason.FIRST),
    "TCP ACK": (tcp(ACK), NEW, Reason.FIRST),
    "TCP ACK+PSH+URG": (tcp(ACK | PSH | URG), NEW, Reason.FIRST),
    "TCP SYN+ACK": (tcp(SYN | ACK), INVALID, Reason.TCP_NOT_OPENING),
    "TCP FIN+ACK": (tcp(FIN | ACK), INVALID, Reason.TCP_NOT_OPENING),
    "TCP RST": (tcp(RST), INVALID, Reason.TCP_NOT_OPENING),
    "TCP FIN": (tcp(FIN), INVALID, Reason.TCP_FLAGS),
    "TCP SYN+FIN": (tcp(SYN | FIN), INVALID, Reason.TCP_FLAGS),
    "TCP RST+URG": (tcp(RST | URG), INVALID, Reason.TCP_FLAGS),
    "TCP without flags": (tcp(0), INVALID, Reason.TCP_FLAGS),
    "TCP with all flags": (tcp(255), INVALID, Reason.TCP_FLAGS),
    "TCP of 19 bytes": (other(6, bytes(19)), INVALID, Reason.TCP_SHORT),
    "TCP of 3 bytes: no ports": (other(6, bytes(3)), INVALID, Reason.NO_TUPLE),
    "TCP with data offset 4": (other(6, bytes(12) + b"\x40\x02" + bytes(6)), INVALID, Reason.TCP_DATA_OFFSET),
    "TCP with data offset 6 of 20 bytes": (
        other(6, bytes(12) + b"\x60\x02" + bytes(6)), INVALID, Reason.TCP_DATA_OFFSET),
    "TCP with a bad checksum": (tcp(SYN)[:-1] + b"\1", INVALID, Reason.TCP_CHECKSUM),
    "ICMP echo request": (icmp(8), NEW, Reason.FIRST),
    "ICMP timestamp request": (icmp(13), NEW, Reason.FIRST),
    "ICMP information request": (icmp(15), NEW, Reason.FIRST),
    "ICMP address mask request": (icmp(17), NEW, Reason.FIRST),
    "ICMP echo reply": (icmp(0), INVALID, Reason.ICMP_NOT_REQUEST),
    "ICMP address mask reply": (icmp(18), INVALID, Reason.ICMP_NOT_REQUEST),
    "ICMP router solicitation": (icmp(10), INVALID, Reason.NO_REPLY_TUPLE),
    "ICMP type 19": (icmp(19), INVALID, Reason.ICMP_TYPE_UNKNOWN),
    "ICMP of 7 bytes": (other(1, bytes(7)), INVALID, Reason.ICMP_SHORT),
    "ICMP with a bad checksum": (icmp(8, spoil=1), INVALID, Reason.ICMP_CHECKSUM),
    "ICMP of nothing but zeros: an echo reply": (other(1, bytes(8)), INVALID, Reason.ICMP_NOT_REQUEST),
    "ICMP error about nobody's packet": (icmp(3, PORT_UNREACHABLE), INVALID, Reason.ICMP_QUOTE_UNKNOWN),
    "ICMP error that quotes 19 bytes": (icmp(3, PORT_UNREACHABLE[:23]), INVALID, Reason.ICMP_QUOTE_SHORT),
    "ICMP error about an ICMP error": (
        icmp(3, bytes(4) + icmp(3, bytes(4), back=True)), INVALID, Reason.ICMP_QUOTE_NO_REPLY),
    "ICMP over IPv6": (ipv6(bytes([8, 0]) + bytes(6), source=PEER6, destination=ME6, next_header=1), INVALID,
                       Reason.WRONG_FAMILY),
    "ICMPv6 over IPv4": (other(58, bytes([128, 0]) + bytes(6)), INVALID, Reason.WRONG_FAMILY),
    "ICMPv6 echo request": (icmp6(128), NEW, Reason.FIRST),
    "ICMPv6 node information query": (icmp6(139), NEW, Reason.FIRST),
    "ICMPv6 echo reply": (icmp6(129), INVALID, Reason.ICMP_NOT_REQUEST),
    "ICMPv6 with a bad checksum": (icmp6(128, spoil=1), INVALID, Reason.ICMP_CHECKSUM),
    "ICMPv6 of 7 bytes": (ipv6(bytes(7), source=PEER6, destination=ME6, next_header=58), INVALID, Reason.ICMP_SHORT),
    "MLD report": (icmp6(131), UNTRACKED, Reason.ICMPV6_NEIGHBOUR),
    "router advertisement": (icmp6(134), UNTRACKED, Reason.ICMPV6_NEIGHBOUR),
    "neighbour solicitation": (icmp6(135), UNTRACKED, Reason.ICMPV6_NEIGHBOUR),
    "neighbour solicitation with a bad checksum": (icmp6(135, spoil=1), INVALID, Reason.ICMP_CHECKSUM),
    "MLDv2 report": (icmp6(143), UNTRACKED, Reason.ICMPV6_NEIGHBOUR),
    "multicast router advertisement": (icmp6(151), UNTRACKED, Reason.ICMPV6_NEIGHBOUR),
    "multicast router solicitation": (icmp6(152), UNTRACKED, Reason.ICMPV6_NEIGHBOUR),
    "multicast router termination": (icmp6(153), INVALID, Reason.NO_REPLY_TUPLE),
    "ICMPv6 type 150": (icmp6(150), INVALID, Reason.NO_REPLY_TUPLE),
    "ICMPv6 type 154": (icmp6(154), INVALID, Reason.NO_REPLY_TUPLE),
    "ICMPv6 redirect of 39 bytes": (icmp6(137, bytes(35)), INVALID, Reason.ICMPV6_REDIRECT_SHORT),
    "ICMPv6 redirect from afar": (icmp6(137, bytes(50), hop_limit=255), INVALID, Reason.ICMPV6_REDIRECT_FORGED),
    "ICMPv6 redirect without options": (
        icmp6(137, bytes(36), source=ROUTER6, hop_limit=255), INVALID, Reason.ICMPV6_REDIRECT_NO_QUOTE),
    "ICMPv6 redirect with another option": (
        icmp6(137, bytes(36) + b"\2\1" + bytes(6), source=ROUTER6, hop_limit=255), INVALID, Reason.NO_REPLY_TUPLE),
    "GRE": (other(47), NEW, Reason.FIRST),
    "GRE of 2 bytes": (other(47, bytes(2)), NEW, Reason.FIRST),
    "PPTP's GRE": (other(47, b"\x30\1\x88\x0b\0\0\0\7"), NEW, Reason.FIRST),
    "GRE version 1 that does not carry PPP": (other(47, b"\x30\1\x88\x0a\0\0\0\7"), INVALID, Reason.NO_TUPLE),
    "protocol 253": (other(253), NEW, Reason.FIRST),
    "DCCP": (other(33), NEW, Reason.FIRST),
    "SCTP INIT": (sctp(0, chunk(1, tag=5)), NEW, Reason.FIRST),
    "SCTP INIT with a verification tag": (sctp(1, chunk(1, tag=5)), INVALID, Reason.SCTP_NOT_OPENING),
    "SCTP DATA": (sctp(1, chunk(0)), INVALID, Reason.SCTP_NOT_OPENING),
    "SCTP ABORT": (sctp(1, chunk(6)), INVALID, Reason.SCTP_NOT_OPENING),
    "SCTP HEARTBEAT": (sctp(1, chunk(4)), NEW, Reason.FIRST),
    "SCTP SHUTDOWN without verification tag": (sctp(0, chunk(7)), NEW, Reason.FIRST),
    "SCTP SHUTDOWN": (sctp(1, chunk(7)), INVALID, Reason.SCTP_TAG),
    "SCTP INIT and another chunk": (sctp(0, chunk(1), chunk(0)), INVALID, Reason.SCTP_CHUNKS),
    "SCTP without chunks": (sctp(0), INVALID, Reason.SCTP_CHUNKS),
    "SCTP with a chunk of length 0": (sctp(0, b"\1\0\0\0"), INVALID, Reason.SCTP_CHUNKS),
    "SCTP with a bad checksum": (sctp(0, chunk(1), spoil=1), INVALID, Reason.SCTP_CHECKSUM),
    "SCTP of 11 bytes": (other(132, bytes(11)), INVALID, Reason.SCTP_SHORT),
    "IPv6 without a next header": (
        ipv6(b"", source=PEER6, destination=ME6, next_header=59), INVALID, Reason.NO_PROTOCOL),
    "IPv6 whose extension header is not there": (
        ipv6(b"\x11", source=PEER6, destination=ME6, next_header=60), INVALID, Reason.NO_PROTOCOL),
    "IPv6 with destination options": (
        ipv6(b"\xfd\0\1\4" + bytes(4), source=PEER6, destination=ME6, next_header=60), NEW, Reason.FIRST),
}  # fmt: skip

INIT, INIT_ACK, HEARTBEAT, HEARTBEAT_ACK = 1, 2, 4, 5
SHUTDOWN, SHUTDOWN_ACK, COOKIE_ECHO = 7, 8, 10
_HEARTBEAT = (False, sctp(1, chunk(HEARTBEAT)), NEW)
_BOTH_INIT = [
    (False, sctp(0, chunk(INIT, tag=1)), NEW),
    (True, sctp(0, chunk(INIT, tag=2), back=True), ESTABLISHED),
]

# sentence -> packets of one flow of SCTP, one after another: (whether the host sends it, packet, state)
ASSOCIATIONS: dict[str, list[tuple[bool, bytes, CtState]]] = {
    "a flow that SHUTDOWN ACK began expects its tag in the reply": [
        (False, sctp(1, chunk(SHUTDOWN_ACK)), NEW),
        (True, sctp(2, chunk(HEARTBEAT_ACK), back=True), INVALID),
        (True, sctp(1, chunk(HEARTBEAT_ACK), back=True), ESTABLISHED),
    ],
    "a flow that HEARTBEAT ACK began takes any tag in the reply, and then no other": [
        (False, sctp(1, chunk(HEARTBEAT_ACK)), NEW),
        (True, sctp(2, chunk(HEARTBEAT_ACK), back=True), ESTABLISHED),
        (True, sctp(1, chunk(HEARTBEAT_ACK), back=True), INVALID),
    ],
    "COOKIE ECHO with SHUTDOWN ACK, to a flow that SHUTDOWN ACK began": [
        (False, sctp(1, chunk(SHUTDOWN_ACK)), NEW),
        (True, sctp(1, chunk(COOKIE_ECHO), chunk(SHUTDOWN_ACK), back=True), ESTABLISHED),
    ],
    "COOKIE ECHO with SHUTDOWN ACK, to a flow whose tag is unknown": [
        (False, sctp(1, chunk(HEARTBEAT_ACK)), NEW),
        (True, sctp(1, chunk(COOKIE_ECHO), chunk(SHUTDOWN_ACK), back=True), INVALID),
    ],
    "an INIT that is repeated leaves the collision of two as it is": [
        *_BOTH_INIT,
        (True, sctp(0, chunk(INIT, tag=2), back=True), ESTABLISHED),
        (False, sctp(2, chunk(INIT_ACK, tag=9)), INVALID),
    ],
    "a new INIT begins again": [
        *_BOTH_INIT,
        (True, sctp(0, chunk(INIT, tag=3), back=True), ESTABLISHED),
        (False, sctp(3, chunk(INIT_ACK, tag=9)), ESTABLISHED),
    ],
    "the first chunk of a packet counts, though the second is invalid": [
        _HEARTBEAT,
        (True, sctp(2, chunk(HEARTBEAT), chunk(SHUTDOWN), back=True), INVALID),
        (True, sctp(3, chunk(HEARTBEAT_ACK), back=True), INVALID),
    ],
    "without that packet the tag is still unknown": [
        _HEARTBEAT,
        (True, sctp(3, chunk(HEARTBEAT_ACK), back=True), ESTABLISHED),
    ],
    "a HEARTBEAT with another tag passes, two of them or one with data do not": [
        _HEARTBEAT,
        (False, sctp(9, chunk(HEARTBEAT)), NEW),
        (False, sctp(9, chunk(HEARTBEAT), chunk(HEARTBEAT)), INVALID),
        (False, sctp(9, chunk(HEARTBEAT), chunk(0)), INVALID),
    ],
}
