"""Interfaces of other network namespaces that sit on one of ours, for kernels that cannot be asked (before Linux 6.2).

rtnetlink shows a namespace its own links only; one that sits on a link elsewhere says so by IFLA_LINK and the id that
the other namespace has there (IFLA_LINK_NETNSID). So every namespace that a process is in or that has a name is entered
and looked at, which takes CAP_SYS_ADMIN. One that neither has is not found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from enforcer.errors import KernelError
from enforcer.kernel.netns import current_inode, entered

_NAMED = Path("/run/netns")


def uppers_elsewhere() -> dict[int, set[str]]:
    """By the index of an interface, the kinds of those in other namespaces that name it as their link. A veth names its
    peer, tunnels what they go out by: kinds that take no packets are among them.
    """
    found: dict[int, set[str]] = {}
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for path in _others():
            with suppress(OSError, KernelError, NetlinkError), entered(path):
                for index, kind in _links_to(own):
                    found.setdefault(index, set()).add(kind)
    finally:
        os.close(own)
    return found


def _others() -> Iterator[Path]:
    """A file for each namespace but the caller's."""
    seen = {current_inode()}
    for path in (*_NAMED.glob("*"), *Path("/proc").glob("[0-9]*/ns/net")):
        with suppress(OSError):  # a process that has ended meanwhile
            inode = path.stat().st_ino
            if inode not in seen:
                seen.add(inode)
                yield path


def _links_to(namespace: int) -> list[tuple[int, str]]:
    """Index and kind: the links of the thread's namespace to one of another, given by a descriptor."""
    with IPRoute() as ip:
        links = list(ip.get_links())  # which gives the namespaces that they mention their ids
        known = (ip.get_netnsid(fd=namespace) or {}).get("nsid")
        found = []
        for link in links:
            info = link.get("linkinfo")
            kind = info.get("kind") if info else None
            if kind and link.get("link") and known is not None and link.get("link_netnsid") == known:
                found.append((link.get("link"), str(kind)))
        return found
