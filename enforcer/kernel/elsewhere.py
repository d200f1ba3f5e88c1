"""Finds upper devices of our interfaces in other network namespaces, on kernels before Linux 6.2.

rtnetlink shows only the links of one namespace. An upper device in another namespace has IFLA_LINK and, for our
namespace, an id in its own (IFLA_LINK_NETNSID). So every namespace that has a process or a name is entered and
searched, which needs CAP_SYS_ADMIN. A namespace without both is not found.

If this is not possible, upper devices can be excluded only if the kernel has no support for them, which its symbols
tell.
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

# Functions of a kernel that supports such interfaces (drivers/net/, net/8021q/vlan.c): their rx_handlers, and the
# function that registers a VLAN. ipvtap and macvtap use the first two. Other devices with an rx_handler (bridge, bond,
# team, HSR) are always in the namespace of their ports.
RX_HANDLERS = {
    "macvlan": "macvlan_handle_frame",
    "ipvlan": "ipvlan_handle_frame",
    "macsec": "macsec_handle_frame",
    "rmnet": "rmnet_rx_handler",
}
VLANS = {"vlan": "register_vlan_dev"}
_EVERY_KERNEL_HAS = "netif_receive_skb"


def uppers_elsewhere() -> tuple[dict[int, set[str]], str]:
    """For each interface index, the kinds of interfaces in other namespaces whose IFLA_LINK is that interface. This
    includes kinds that take no packets: the link of a veth is its peer, that of a tunnel the interface it sends
    through.

    And why some may not have been found; "" if everything was searched.
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
    """Which of these kinds of interfaces the running kernel may support; all of them if that is unknown."""
    try:
        symbols = _symbols(tuple(sorted(os.listdir("/sys/module"))))
    except OSError:
        return list(functions)
    return [kind for kind, function in functions.items() if function in symbols or _EVERY_KERNEL_HAS not in symbols]


@lru_cache(maxsize=1)
def _symbols(modules: tuple[str, ...]) -> frozenset[str]:
    """Those of the functions that exist in the kernel and its loaded modules."""
    wanted = {*RX_HANDLERS.values(), *VLANS.values(), _EVERY_KERNEL_HAS}
    with open("/proc/kallsyms", encoding="utf-8", errors="replace") as lines:
        return frozenset(wanted.intersection(line.split(maxsplit=3)[2] for line in lines))


def _may_enter() -> bool:
    with open("/proc/thread-self/status", encoding="utf-8", errors="replace") as lines:
        held = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) & _SYS_ADMIN)


def _others() -> Iterator[Path]:
    """A file for each namespace except the caller's. Files of other file systems are skipped: ``ip netns`` creates one
    before it mounts the namespace on it, and removes it afterwards.
    """
    seen, nsfs = {current_inode()}, os.stat("/proc/thread-self/ns/net").st_dev
    named = sorted(_NAMED.iterdir()) if _NAMED.is_dir() else []
    of_processes = [Path("/proc", name, "ns/net") for name in os.listdir("/proc") if name.isdigit()]
    for path in (*named, *of_processes):  # not glob(), which fails if a process ends meanwhile
        try:
            found = path.stat()
        except OSError:  # a process that has ended meanwhile, or a kernel thread's
            continue
        if found.st_dev == nsfs and found.st_ino not in seen:
            seen.add(found.st_ino)
            yield path


def _links_to(namespace: int) -> list[tuple[int, str]]:
    """(index of the lower device, kind) of the links of this thread's namespace that are on a device of ``namespace``,
    a descriptor.
    """
    with LinkConn() as conn:
        links = conn.links()  # this also assigns ids to the namespaces of their lower devices
        known = conn.namespace_id(namespace)
    if known is None:
        return []
    return [(link.link, link.kind) for link in links if link.kind and link.link and link.link_netnsid == known]
