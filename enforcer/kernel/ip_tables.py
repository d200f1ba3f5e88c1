"""The kernel's modules ip_tables and ip6_tables: whether they are there, and having the kernel load them.

No child process, so no modprobe of ours: the kernel runs it, when it is asked for something that it says a module has.
Which way it can be asked depends on the kernel and on privilege; a service without CAP_SYS_MODULE has systemd load the
modules first (packaging/enforcer.service).
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
"""A namespace's tables, in files that are there once the module is loaded, or where it is built in."""

_COMPAT_GET = 11 << 8  # NFNL_SUBSYS_NFT_COMPAT, NFNL_MSG_COMPAT_GET
_COMPAT_NAME, _COMPAT_REVISION, _COMPAT_TYPE = 1, 2, 3  # NFTA_COMPAT_*
_BUILT_IN = {4: (socket.AF_INET, "icmp"), 6: (socket.AF_INET6, "icmp6")}
_TIMEOUT_S = 10.0


def is_loaded(version: int) -> bool:
    """Whether the kernel has the legacy tables of a family."""
    return os.path.exists(TABLE_NAMES[version])


def request_module(version: int) -> None:
    """Have the kernel load ip_tables or ip6_tables, unless it is there. Best effort: see :func:`is_loaded`.

    The modules of single tables (iptable_raw) the kernel loads when they are opened.
    """
    for ask in (_ask_for_match, _ask_for_device):
        if is_loaded(version):
            return
        with suppress(OSError):
            ask(version)


def _ask_for_match(version: int) -> None:
    """Asked whether it has a match, the kernel loads the module that has it (net/netfilter/nft_compat.c:
    ``nfnl_compat_get_rcu``), for which CAP_NET_ADMIN is enough.

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
    """Asked for an interface that is not there (SIOCGIFINDEX), the kernel loads the module of that very name, for which
    it wants CAP_SYS_MODULE (net/core/dev_ioctl.c: ``dev_load``).
    """
    socket.if_nametoindex(MODULES[version])
