"""Links, addresses and next hops of the calling thread's network namespace, through rtnetlink.

Numbers and structures: linux/rtnetlink.h, if_link.h, if_addr.h. ``rtnetlink`` interprets them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from enforcer.kernel.netlink import attributes, number, string, u32
from enforcer.kernel.netlink_conn import NETLINK_ROUTE, NetlinkConn
from enforcer.model.errors import KernelError
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Mode

_NEWLINK, _GETLINK = 16, 18
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_NEWNSID, _GETNSID = 88, 90

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, ..., flags
_RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index
_RTGENMSG = struct.Struct("=B3x")
_RTVIA_FAMILY_BYTES = 2

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_EXT_MASK, _IFLA_LINK_NETNSID, _IFLA_XDP = 18, 29, 37, 43
_IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 52, 53
_INFO_KIND, _INFO_SLAVE_KIND = 1, 4
_SKIP_STATS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
# IFLA_XDP_ATTACHED is the mode, or "multi"; each mode has an attribute with the program's id.
_PROGRAM_OF_MODE = {Mode.OFFLOAD: 7, Mode.NATIVE: 5, Mode.GENERIC: 6}
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA = 4, 5, 9, 18
_NETNSA_NSID, _NETNSA_FD = 1, 3
_IP_BYTES = (4, 16)


@dataclass(frozen=True)
class Link:
    """One interface as rtnetlink describes it; 0 or "" for what it does not have.

    ``link``: the index of its lower device, which is in another network namespace if ``link_netnsid`` is not None.
    ``programs``: the id of the XDP program in each mode, earliest mode first.
    """

    index: int
    name: str
    mtu: int = 0
    link_type: int = 0
    address: bytes = b""
    link: int = 0
    link_netnsid: int | None = None
    master: int = 0
    kind: str = ""
    slave_kind: str = ""
    alternative_names: tuple[str, ...] = ()
    programs: dict[Mode, int] = field(default_factory=dict)

    @property
    def lower(self) -> int:
        """The index of its lower device if that is in the same network namespace; else 0."""
        return self.link if self.link_netnsid is None else 0


class LinkConn(NetlinkConn):
    """A connection to rtnetlink. Every method raises KernelError."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def links(self) -> list[Link]:
        asked = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + u32(_IFLA_EXT_MASK, _SKIP_STATS)
        found = self.dump(_GETLINK, asked, what="list the interfaces")
        return [_link(item.body) for item in found if item.kind == _NEWLINK]

    def addresses(self) -> list[tuple[int, IPAddress]]:
        """(index of an interface, one of its addresses), in the kernel's order."""
        found = self.dump(_GETADDR, _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0), what="list the addresses")
        rows = []
        for item in found:
            if item.kind != _NEWADDR:
                continue
            index = _IFADDRMSG.unpack_from(item.body)[4]
            values = dict(attributes(item.body[_IFADDRMSG.size :]))
            # On a point-to-point interface, IFA_ADDRESS is the peer's. IPv6 has IFA_LOCAL only in that case.
            own = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS, b"")
            if len(own) in _IP_BYTES:
                rows.append((index, ip_address(own)))
        return rows

    def next_hops(self) -> Iterator[tuple[int, IPAddress]]:
        """(index of an interface, address of a next hop through it) of each route."""
        for item in self.dump(_GETROUTE, _RTMSG.pack(*(0,) * 9), what="list the routes"):
            if item.kind == _NEWROUTE:
                yield from _next_hops(item.body[_RTMSG.size :])

    def namespace_id(self, namespace: int) -> int | None:
        """The id that another network namespace (a descriptor) has in this one; None if it has none."""
        asked = _RTGENMSG.pack(socket.AF_UNSPEC) + u32(_NETNSA_FD, namespace)
        for item in self.ask(_GETNSID, asked, what="ask for the id of a network namespace"):
            found = dict(attributes(item.body[_RTGENMSG.size :])) if item.kind == _NEWNSID else {}
            if _NETNSA_NSID in found:
                value = struct.unpack("=i", found[_NETNSA_NSID])[0]
                return value if value >= 0 else None
        raise KernelError("ask for the id of a network namespace: no answer")


def _link(body: bytes) -> Link:
    _, link_type, index, _, _ = _IFINFOMSG.unpack_from(body)
    values = dict(attributes(body[_IFINFOMSG.size :]))
    info = dict(attributes(values.get(_IFLA_LINKINFO, b"")))
    xdp = dict(attributes(values.get(_IFLA_XDP, b"")))
    programs = {mode: number(xdp.get(kind, b"")) for mode, kind in _PROGRAM_OF_MODE.items()}
    netnsid = values.get(_IFLA_LINK_NETNSID)
    return Link(
        index=index,
        name=string(values.get(_IFLA_IFNAME, b"")),
        mtu=number(values.get(_IFLA_MTU, b"")),
        link_type=link_type,
        address=values.get(_IFLA_ADDRESS, b""),
        link=number(values.get(_IFLA_LINK, b"")),
        link_netnsid=None if netnsid is None else struct.unpack("=i", netnsid)[0],
        master=number(values.get(_IFLA_MASTER, b"")),
        kind=string(info.get(_INFO_KIND, b"")),
        slave_kind=string(info.get(_INFO_SLAVE_KIND, b"")),
        alternative_names=tuple(
            string(name) for kind, name in attributes(values.get(_IFLA_PROP_LIST, b"")) if kind == _IFLA_ALT_IFNAME
        ),
        programs={mode: prog_id for mode, prog_id in programs.items() if prog_id},
    )


def _next_hops(route: bytes) -> Iterator[tuple[int, IPAddress]]:
    """The next hops in the attributes of a route, which has either one or a list."""
    values = dict(attributes(route))
    if _RTA_OIF in values:
        yield from ((number(values[_RTA_OIF]), address) for address in _gateways(values))
    several = values.get(_RTA_MULTIPATH, b"")
    while len(several) >= _RTNEXTHOP.size:
        size, _, _, index = _RTNEXTHOP.unpack_from(several)
        if size < _RTNEXTHOP.size:
            return
        hop = dict(attributes(several[_RTNEXTHOP.size : size]))
        yield from ((index, address) for address in _gateways(hop))
        several = several[(size + 3) & ~3 :]


def _gateways(values: dict[int, bytes]) -> Iterator[IPAddress]:
    """RTA_GATEWAY, and RTA_VIA, whose family differs from that of the route."""
    for found in (values.get(_RTA_GATEWAY, b""), values.get(_RTA_VIA, b"")[_RTVIA_FAMILY_BYTES:]):
        if len(found) in _IP_BYTES:
            yield ip_address(found)
