"""The sysctls of connection tracking, with the kernel's defaults. Timeouts are in seconds.

``net/netfilter/nf_conntrack_proto_*.c``, ``nf_conntrack_standalone.c``; names are those below
``/proc/sys/net/netfilter`` without ``nf_conntrack_``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from dossim.pipeline.conntrack.sctp_states import SctpState
from dossim.pipeline.conntrack.tcp_states import TcpState

DAY = 24 * 60 * 60

TCP_TIMEOUTS: Mapping[TcpState, int] = MappingProxyType(
    {
        TcpState.SYN_SENT: 120,
        TcpState.SYN_RECV: 60,
        TcpState.ESTABLISHED: 5 * DAY,
        TcpState.FIN_WAIT: 120,
        TcpState.CLOSE_WAIT: 60,
        TcpState.LAST_ACK: 30,
        TcpState.TIME_WAIT: 120,
        TcpState.CLOSE: 10,
        TcpState.SYN_SENT2: 120,
    }
)
SCTP_TIMEOUTS: Mapping[SctpState, int] = MappingProxyType(
    {
        # Of a packet whose chunks left the state as it was before any: the kernel has CLOSED's for it.
        SctpState.NONE: 10,
        SctpState.CLOSED: 10,
        SctpState.COOKIE_WAIT: 3,
        SctpState.COOKIE_ECHOED: 3,
        SctpState.ESTABLISHED: 210,
        SctpState.SHUTDOWN_SENT: 3,
        SctpState.SHUTDOWN_RECD: 3,
        SctpState.SHUTDOWN_ACK_SENT: 3,
        SctpState.HEARTBEAT_SENT: 30,
    }
)


@dataclass(frozen=True)
class Settings:
    """``tcp_timeout_max_retrans`` and ``tcp_timeout_unacknowledged`` also shorten other timeouts of TCP."""

    checksum: bool = True
    tcp_loose: bool = True
    tcp_be_liberal: bool = False
    tcp_ignore_invalid_rst: bool = False
    tcp_max_retrans: int = 3
    tcp_timeouts: Mapping[TcpState, int] = field(default_factory=lambda: TCP_TIMEOUTS)
    tcp_timeout_max_retrans: int = 300
    tcp_timeout_unacknowledged: int = 300
    udp_timeout: int = 30
    udp_timeout_stream: int = 120
    icmp_timeout: int = 30
    icmpv6_timeout: int = 30
    gre_timeout: int = 30
    gre_timeout_stream: int = 180
    generic_timeout: int = 600
    sctp_timeouts: Mapping[SctpState, int] = field(default_factory=lambda: SCTP_TIMEOUTS)
