"""TCP sockets of the calling thread's network namespace, the interface each one's packets leave by, and whether
conntrack knows its connection. By netlink: sock_diag, rtnetlink, ctnetlink.

Numbers and structures: linux/sock_diag.h, inet_diag.h, rtnetlink.h, netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from enforcer.kernel.netlink import (
    NETLINK_NETFILTER,
    attribute,
    attributes,
    nested,
    netfilter_header,
    number,
    u8,
)
from enforcer.kernel.netlink_conn import NETLINK_ROUTE, NetlinkConn
from enforcer.model.errors import KernelError, UnsupportedKernelError
from enforcer.model.nets import IPAddress

TCP = 6
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_ESTABLISHED, _LISTEN = 1, 10  # net/tcp_states.h
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2: family, protocol, extensions, states, socket
_SOCKET = struct.Struct("!2H16s16s")  # after 4 bytes of struct inet_diag_msg: ports and addresses
_SOCKET_AT, _INTERFACE_AT = 4, 40

_GET_ROUTE = 26
_ROUTE = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_SRC, _RTA_OIF = 1, 2, 4
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAGAIN)

_GET_CONNECTION = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_TUPLE_ORIG, _STATUS = 1, 3
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_ATTRIBUTES = {4: (1, 2), 6: (3, 4)}
_PROTO_NUMBER, _PROTO_SPORT, _PROTO_DPORT = 1, 2, 3
_SEEN_REPLY = 1 << 1  # IPS_SEEN_REPLY

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_LOOSE = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")


@dataclass(frozen=True)
class TcpSocket:
    """An established connection. ``served``: a socket of this host listens at its local port. ``bound``: the index of
    the interface it is bound to, 0 for none.
    """

    local: IPAddress
    local_port: int
    remote: IPAddress
    remote_port: int
    served: bool = False
    bound: int = 0

    def __str__(self) -> str:
        return f"{_pair(self.local, self.local_port)} with {_pair(self.remote, self.remote_port)}"


def established() -> list[TcpSocket]:
    """All established TCP connections of both families; an IPv4-mapped one is one of IPv4.

    Raises KernelError where the kernel does not tell.
    """
    with NetlinkConn(_NETLINK_SOCK_DIAG) as conn:
        found = [item for family in _FAMILY.values() for item in _dumped(conn, family)]
    listening = {port for state, port, *_ in found if state == _LISTEN}
    return [
        TcpSocket(local, local_port, remote, remote_port, local_port in listening, bound)
        for state, local_port, remote_port, local, remote, bound in found
        if state == _ESTABLISHED
    ]


def _dumped(conn: NetlinkConn, family: int) -> list[tuple[int, int, int, IPAddress, IPAddress, int]]:
    body = _REQUEST.pack(family, TCP, 0, 1 << _ESTABLISHED | 1 << _LISTEN)
    answers = conn.dump(_SOCK_DIAG_BY_FAMILY, body, what="list the TCP sockets (sock_diag)")
    return [_parsed(item.body) for item in answers if item.kind == _SOCK_DIAG_BY_FAMILY]


def _parsed(body: bytes) -> tuple[int, int, int, IPAddress, IPAddress, int]:
    family, state = body[0], body[1]
    sport, dport, source, destination = _SOCKET.unpack_from(body, _SOCKET_AT)
    (bound,) = struct.unpack_from("=I", body, _INTERFACE_AT)
    size = 4 if family == socket.AF_INET else 16
    return state, sport, dport, _address(source[:size]), _address(destination[:size]), bound


def _address(packed: bytes) -> IPAddress:
    found = ip_address(packed)
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def leaves_by(item: TcpSocket) -> int:
    """The index of the interface by which the connection's packets leave; 0 where there is no route."""
    if item.bound:
        return item.bound
    source, destination = item.local.packed, item.remote.packed
    bits = len(destination) * 8
    header = _ROUTE.pack(_FAMILY[item.remote.version], bits, bits, 0, 0, 0, 0, 0, 0)
    body = header + attribute(_RTA_DST, destination) + attribute(_RTA_SRC, source)
    try:
        with NetlinkConn(NETLINK_ROUTE) as conn:
            answers = conn.ask(_GET_ROUTE, body, what=f"look up the route to {item.remote}")
    except KernelError as error:
        if error.errno in _NO_ROUTE:
            return 0
        raise
    found = (attributes(answer.body[_ROUTE.size :]) for answer in answers)
    return next((number(value) for each in found for kind, value in each if kind == _RTA_OIF), 0)


def is_tracked(item: TcpSocket) -> bool:
    """Whether conntrack has the connection, with packets of both directions: its next packet is ESTABLISHED.

    Looked up as the host's own packets are, so that NAT of the other side changes nothing. Raises KernelError where
    the kernel does not tell.
    """
    version = item.local.version
    source, destination = _IP_ATTRIBUTES[version]
    addresses = nested(_TUPLE_IP, attribute(source, item.local.packed), attribute(destination, item.remote.packed))
    ports = (
        attribute(_PROTO_SPORT, item.local_port.to_bytes(2, "big")),
        attribute(_PROTO_DPORT, item.remote_port.to_bytes(2, "big")),
    )
    body = netfilter_header(_FAMILY[version])
    body += nested(_TUPLE_ORIG, addresses, nested(_TUPLE_PROTO, u8(_PROTO_NUMBER, TCP), *ports))
    try:
        with NetlinkConn(NETLINK_NETFILTER) as conn:
            answers = conn.ask(_GET_CONNECTION, body, what="look up a connection in conntrack (ctnetlink)")
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    found = [value for each in answers for kind, value in attributes(each.attributes) if kind == _STATUS]
    return any(int.from_bytes(value, "big") & _SEEN_REPLY for value in found)


def tcp_loose() -> bool | None:
    """Whether conntrack takes up connections in midstream (net.netfilter.nf_conntrack_tcp_loose); None where conntrack
    is not loaded, which begins with 1. Raises UnsupportedKernelError where it cannot be read.
    """
    try:
        return _LOOSE.read_text().strip() != "0"
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnsupportedKernelError(f"{_LOOSE}: cannot be read ({error.strerror})") from error


def _pair(address: IPAddress, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
