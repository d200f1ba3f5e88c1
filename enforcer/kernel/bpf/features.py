"""What a driver announces of XDP, from the generic netlink family "netdev" (Linux 6.3). Asking disturbs nothing."""

from __future__ import annotations

import struct
from typing import Any

from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from enforcer.model.errors import KernelError

# linux/netdev.h
_NETDEV_CMD_DEV_GET = 1
_NETDEV_XDP_ACT_BASIC = 1 << 0
_VERSION = 1


class _DevMessage(genlmsg):  # type: ignore[misc]  # pyroute2 ships no types
    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def announces_native_xdp(ifindex: int) -> bool | None:
    """Whether the driver says it has native XDP; None where the kernel cannot be asked."""
    try:
        with _NetdevSocket() as netdev:
            features = netdev.xdp_features(ifindex)
    except (NetlinkError, OSError, KernelError, struct.error):
        return None
    return None if features is None else bool(features & _NETDEV_XDP_ACT_BASIC)


class _NetdevSocket(GenericNetlinkSocket):  # type: ignore[misc]  # pyroute2 ships no types
    def __init__(self) -> None:
        super().__init__()
        self.bind("netdev", _DevMessage)

    def xdp_features(self, ifindex: int) -> int | None:
        request = _DevMessage()
        request["cmd"] = _NETDEV_CMD_DEV_GET
        request["version"] = _VERSION
        request["attrs"] = [("NETDEV_A_DEV_IFINDEX", ifindex)]
        answers: Any = self.nlm_request(request, msg_type=self.prid, msg_flags=NLM_F_REQUEST)
        return next((answer.get_attr("NETDEV_A_DEV_XDP_FEATURES") for answer in answers), None)
