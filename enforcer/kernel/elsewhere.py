"""Interfaces of other network namespaces on top of ours, for kernels without another way to find them (before Linux
6.2).

rtnetlink shows a namespace its own links only; one that sits on a link elsewhere says so by IFLA_LINK and the id that
the other namespace has there (IFLA_LINK_NETNSID). So every namespace that a process is in or that has a name is entered
and looked at, which takes CAP_SYS_ADMIN. One that neither has is not found.

Where that cannot be done, only a kernel without such interfaces at all is known to have none: its symbols tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from enforcer.kernel.links import LinkConn
from enforcer.kernel.netns import current_inode, entered
from enforcer.model.errors import KernelError

_NAMED = Path("/run/netns")
_SYS_ADMIN = 1 << 21  # linux/capability.h

# Functions of a kernel that has such interfaces (drivers/net/, net/8021q/vlan.c): their rx_handlers, and what registers
# a VLAN. ipvtap and macvtap are of the first two. What else has an rx_handler (bridge, bond, team, HSR) is always in
# the namespace of its ports.
RX_HANDLERS = {
    "macvlan": "macvlan_handle_frame",
    "ipvlan": "ipvlan_handle_frame",
    "macsec": "macsec_handle_frame",
    "rmnet": "rmnet_rx_handler",
}
VLANS = {"vlan": "register_vlan_dev"}
_EVERY_KERNEL_HAS = "netif_receive_skb"


def uppers_elsewhere() -> tuple[dict[int, set[str]], str]:
    """By the index of an interface, the kinds of those in other namespaces that name it as their link. A veth names its
    peer, tunnels what they go out by: kinds that take no packets are among them.

    Then why others may not have been found, "" where everything was looked at.
    """
    found: dict[int, set[str]] = {}
    why = "" if _may_enter() else "looking into other network namespaces needs CAP_SYS_ADMIN"
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for path in _others():
            try:
                with entered(path):
                    for index, kind in _links_to(own):
                        found.setdefault(index, set()).add(kind)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            except (OSError, KernelError) as error:
                why = why or f"{path}: cannot be looked into ({error})"
    finally:
        os.close(own)
    return found, why


def possible(functions: Mapping[str, str]) -> list[str]:
    """Which of these kinds of interfaces the running kernel may have; all of them, where it does not say."""
    try:
        symbols = _symbols(tuple(sorted(os.listdir("/sys/module"))))
    except OSError:
        return list(functions)
    return [kind for kind, function in functions.items() if function in symbols or _EVERY_KERNEL_HAS not in symbols]


@lru_cache(maxsize=1)
def _symbols(modules: tuple[str, ...]) -> frozenset[str]:
    """Those of the functions that the kernel and its loaded modules have."""
    wanted = {*RX_HANDLERS.values(), *VLANS.values(), _EVERY_KERNEL_HAS}
    with open("/proc/kallsyms", encoding="utf-8", errors="replace") as lines:
        return frozenset(wanted.intersection(line.split(maxsplit=3)[2] for line in lines))


def _may_enter() -> bool:
    with open("/proc/thread-self/status", encoding="utf-8", errors="replace") as lines:
        held = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) & _SYS_ADMIN)


def _others() -> Iterator[Path]:
    """A file for each namespace but the caller's. A file of another file system is none: ``ip netns`` makes one before
    it mounts the namespace on it, and removes it after.
    """
    seen, nsfs = {current_inode()}, os.stat("/proc/thread-self/ns/net").st_dev
    named = sorted(_NAMED.iterdir()) if _NAMED.is_dir() else []
    of_processes = [Path("/proc", name, "ns/net") for name in os.listdir("/proc") if name.isdigit()]
    for path in (*named, *of_processes):  # no glob(), which fails when a process ends meanwhile
        try:
            found = path.stat()
        except OSError:  # a process that has ended meanwhile, or a kernel thread's
            continue
        if found.st_dev == nsfs and found.st_ino not in seen:
            seen.add(found.st_ino)
            yield path


def _links_to(namespace: int) -> list[tuple[int, str]]:
    """Index and kind: the links of the thread's namespace to one of another, given by a descriptor."""
    with LinkConn() as conn:
        links = conn.links()  # which gives the namespaces that they mention their ids
        known = conn.namespace_id(namespace)
    if known is None:
        return []
    return [(link.link, link.kind) for link in links if link.kind and link.link and link.link_netnsid == known]
