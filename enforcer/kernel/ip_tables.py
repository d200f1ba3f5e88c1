"""The kernel modules ip_tables and ip6_tables: whether they are loaded, and how to make the kernel load them.

The enforcer starts no child process, so it does not run modprobe; the kernel does, if something is requested that a
module provides. Which request works depends on the kernel and on privileges. For a service without CAP_SYS_MODULE,
systemd loads the modules first (packaging/enforcer.service).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from enforcer.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    be32,
    netfilter_message,
    text,
)

MODULES = {4: "ip_tables", 6: "ip6_tables"}
TABLE_NAMES = {4: "/proc/thread-self/net/ip_tables_names", 6: "/proc/thread-self/net/ip6_tables_names"}
"""Files with the tables of a namespace. They exist if the module is loaded or built in."""

_COMPAT_GET = 11 << 8  # NFNL_SUBSYS_NFT_COMPAT, NFNL_MSG_COMPAT_GET
_COMPAT_NAME, _COMPAT_REVISION, _COMPAT_TYPE = 1, 2, 3  # NFTA_COMPAT_*
_BUILT_IN = {4: (socket.AF_INET, "icmp"), 6: (socket.AF_INET6, "icmp6")}
_TIMEOUT_S = 10.0


def is_loaded(version: int) -> bool:
    """Whether the kernel has the module for the legacy tables of a family."""
    return os.path.exists(TABLE_NAMES[version])


def request_module(version: int) -> None:
    """Make the kernel load ip_tables or ip6_tables if needed. Best effort: check :func:`is_loaded` afterwards.

    The kernel loads the modules of single tables (iptable_raw) when they are opened.
    """
    for ask in (_ask_for_match, _ask_for_device):
        if is_loaded(version):
            return
        with suppress(OSError):
            ask(version)


def _ask_for_match(version: int) -> None:
    """Query a match: the kernel loads the module that provides it (net/netfilter/nft_compat.c:
    ``nfnl_compat_get_rcu``). This needs only CAP_NET_ADMIN.

    Up to Linux 6.3 the ICMP matches were built into ip_tables and ip6_tables. Linux 6.4 moved them to xt_tcpudp, and no
    alias of the two is left (commit "xtables: move icmp/icmpv6 logic to xt_tcpudp").
    """
    family, name = _BUILT_IN[version]
    body = text(_COMPAT_NAME, name) + be32(_COMPAT_REVISION, 0) + be32(_COMPAT_TYPE, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as conn:
        conn.settimeout(_TIMEOUT_S)
        conn.bind((0, 0))
        conn.send(netfilter_message(_COMPAT_GET, NLM_F_REQUEST | NLM_F_ACK, 1, family, body))
        conn.recv(1 << 16)


def _ask_for_device(version: int) -> None:
    """Query an interface that does not exist (SIOCGIFINDEX): the kernel loads the module of that name, which needs
    CAP_SYS_MODULE (net/core/dev_ioctl.c: ``dev_load``).
    """
    socket.if_nametoindex(MODULES[version])
