"""The XDP features of a driver, from the generic netlink family "netdev" (Linux 6.3). Reading them disturbs nothing."""

from __future__ import annotations

import struct

from enforcer.kernel.netlink import attributes, number, text, u32
from enforcer.kernel.netlink_conn import NETLINK_GENERIC, NetlinkConn
from enforcer.model.errors import KernelError

_GENLMSGHDR = struct.Struct("=BBH")  # command, version, reserved
_VERSION = 1
# linux/genetlink.h
_CTRL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
# linux/netdev.h
_DEV_GET, _DEV_IFINDEX, _DEV_XDP_FEATURES = 1, 1, 3
_XDP_ACT_BASIC = 1 << 0


def announces_native_xdp(ifindex: int) -> bool | None:
    """Whether the driver reports native XDP; None if the kernel does not report it."""
    try:
        with NetlinkConn(NETLINK_GENERIC) as conn:
            family = _request(conn, _CTRL, _GET_FAMILY, text(_FAMILY_NAME, "netdev")).get(_FAMILY_ID)
            features = family and _request(conn, number(family), _DEV_GET, u32(_DEV_IFINDEX, ifindex))
    except KernelError:
        return None
    if not features or _DEV_XDP_FEATURES not in features:
        return None
    return bool(number(features[_DEV_XDP_FEATURES]) & _XDP_ACT_BASIC)


def _request(conn: NetlinkConn, family: int, command: int, body: bytes) -> dict[int, bytes]:
    """The attributes of the reply."""
    request = _GENLMSGHDR.pack(command, _VERSION, 0) + body
    for item in conn.ask(family, request, what="ask generic netlink"):
        return dict(attributes(item.body[_GENLMSGHDR.size :]))
    return {}
