"""Interfaces of the calling thread's network namespace as values, from rtnetlink and ethtool.

Sockets are opened for each call and closed again, so that a thread may change its namespace between calls. ``links``
reads rtnetlink; this module combines the results.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from enforcer.kernel import device
from enforcer.kernel.device import Device
from enforcer.kernel.elsewhere import RX_HANDLERS, VLANS, possible, uppers_elsewhere
from enforcer.kernel.ethtool import driver_of, tags_stay_in_frames
from enforcer.kernel.links import Link, LinkConn
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Mode


@dataclass(frozen=True)
class XdpState:
    """An XDP program on an interface. Netlink does not report whether it is attached by a BPF link."""

    mode: Mode
    prog_id: int


# include/uapi/linux/if_arp.h: types whose frames begin with an Ethernet header, and names of the most common others.
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
LINK_TYPES = {
    32: "InfiniBand", 512: "PPP", 519: "raw IP", 768: "IPIP", 769: "IPv6 tunnel", 776: "SIT", 778: "GRE", 801: "802.11",
    823: "GRE over IPv6", 65534: "none, as of tun and WireGuard",
}  # fmt: skip


@dataclass(frozen=True)
class InterfaceState:
    """One interface. ``xdp``: every attached program, earliest mode first.

    ``link_type``: its ARPHRD number; ``address``: its link-layer address; ``alternative_names``: its altnames.

    ``vlans``: its VLAN interfaces in any network namespace, for messages ("" for none). ``tags_in_frame``: VLAN tags
    are known to be in received frames, not in their metadata.

    ``rx_owner``: the device that owns its rx_handler (``bridge br0``, ``macvlan mv0``), or the switch whose conduit it
    is, in any network namespace; "" for none. With an owner, netfilter never sees a packet as received by this
    interface.

    ``unseen``: why it is unknown whether it has an owner or a VLAN interface in another network namespace; "" if known.
    """

    name: str
    index: int
    mtu: int
    driver: str = ""
    addresses: tuple[IPAddress, ...] = ()
    xdp: tuple[XdpState, ...] = ()
    link_type: int = ARPHRD_ETHER
    address: bytes = b""
    alternative_names: tuple[str, ...] = ()
    vlans: str = ""
    tags_in_frame: bool = False
    rx_owner: str = ""
    unseen: str = ""

    @property
    def has_ethernet(self) -> bool:
        return self.link_type in (ARPHRD_ETHER, ARPHRD_LOOPBACK)

    @property
    def shape(self) -> tuple[object, ...]:
        """The state that a plan depends on, without attached programs."""
        names, on_it = self.alternative_names, (self.vlans, self.tags_in_frame, self.rx_owner, self.unseen)
        return (self.name, self.index, self.addresses, self.link_type, self.address, names, *on_it)


def interfaces() -> list[InterfaceState]:
    """All interfaces, sorted by index."""
    with LinkConn() as conn:
        links, addresses = conn.links(), conn.addresses()
    return _states(links, links, addresses, *_devices(links))


def _devices(links: Iterable[Link]) -> tuple[dict[int, Device], str]:
    """The devices on top of the links, in any network namespace, from the kernel's structures or else from a search;
    and why some may not have been found.
    """
    if device.can_look():
        return device.look(link.index for link in links), ""
    found, why = uppers_elsewhere()
    return {index: Device(not kinds.isdisjoint(_UPPER_KINDS), "vlan" in kinds) for index, kinds in found.items()}, why


def gateways() -> dict[int, tuple[IPAddress, ...]]:
    """The next hops of all routes, by the index of the interface through which they are reached."""
    found: dict[int, dict[IPAddress, None]] = {}
    with LinkConn() as conn:
        for index, address in conn.next_hops():
            found.setdefault(index, {})[address] = None
    return {index: tuple(addresses) for index, addresses in found.items()}


def interface(name: str) -> InterfaceState | None:
    """The interface of that name or alternative name; None if there is none."""
    return next((item for item in interfaces() if name in (item.name, *item.alternative_names)), None)


def _states(
    wanted: Iterable[Link],
    links: Iterable[Link],
    addresses: Iterable[tuple[int, IPAddress]],
    devices: Mapping[int, Device],
    unseen: str,
) -> list[InterfaceState]:
    links = list(links)
    upper = _UpperDevices.of(links)
    by_index: dict[int, list[IPAddress]] = {}
    for index, address in addresses:
        by_index.setdefault(index, []).append(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return [_state(link, sock, by_index.get(link.index, ()), upper, devices, unseen) for link in wanted]


def _state(
    link: Link,
    sock: socket.socket,
    addresses: Iterable[IPAddress],
    upper: _UpperDevices,
    devices: Mapping[int, Device],
    unseen: str,
) -> InterfaceState:
    seen = devices.get(link.index, Device(has_rx_owner=False, vlans=False))
    driver = driver_of(sock, link.name)
    in_frame = not link.kind and tags_stay_in_frames(sock, link.name)
    return InterfaceState(
        name=link.name,
        index=link.index,
        mtu=link.mtu,
        driver=driver,
        addresses=tuple(addresses),
        xdp=tuple(XdpState(mode, prog_id) for mode, prog_id in link.programs.items()),
        link_type=link.link_type,
        address=link.address,
        alternative_names=link.alternative_names,
        vlans=upper.vlans.get(link.index) or (_VLAN_ELSEWHERE if seen.vlans else ""),
        tags_in_frame=in_frame,
        rx_owner=upper.rx_owners.get(link.index) or (_OWNER_ELSEWHERE if seen.has_rx_owner else ""),
        unseen=_unseen(unseen, tags_in_frame=in_frame) if link.link_type == ARPHRD_ETHER else "",
    )


def _unseen(why: str, *, tags_in_frame: bool) -> str:
    """What is unknown about an interface because of ``why``; "" if the kernel does not support such interfaces."""
    if not why:
        return ""
    kinds = possible(RX_HANDLERS)
    if not tags_in_frame:
        kinds += possible(VLANS)
    return f"a {' or '.join(kinds)} on it in another network namespace would not be detected: {why}" if kinds else ""


# Kinds of devices that own the rx_handler of another (net/core/dev.c), which gets a packet before any protocol: masters
# of their ports, and upper devices. A VRF is not one: netfilter first sees its packets as received by the slave.
# (batman-adv takes only its own EtherType.)
_MASTER_KINDS = ("bridge", "bond", "team", "openvswitch")
_UPPER_KINDS = ("macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", "hsr", "dsa", "rmnet")
_OWNER_ELSEWHERE = "an interface in another network namespace, such as a macvlan or ipvlan,"
_VLAN_ELSEWHERE = "a VLAN interface in another network namespace"


@dataclass(frozen=True)
class _UpperDevices:
    """The upper devices in this namespace, as text for messages, by the index of the lower device."""

    rx_owners: Mapping[int, str]
    vlans: Mapping[int, str]

    @classmethod
    def of(cls, links: Iterable[Link]) -> _UpperDevices:
        links = list(links)
        vlans: dict[int, str] = {}
        for link in links:
            if link.kind == "vlan" and link.lower:
                vlans.setdefault(link.lower, f"VLAN interface {link.name}")
        return cls(dict(_rx_owners(links)), vlans)


def _rx_owners(links: Iterable[Link]) -> Iterator[tuple[int, str]]:
    """(index, owner) of each interface whose packets another device receives."""
    names = {link.index: link.name for link in links}
    for link in links:
        if link.slave_kind in _MASTER_KINDS:
            yield link.index, f"{link.slave_kind} {names.get(link.master, '')}".rstrip()
        if link.kind in _UPPER_KINDS and link.lower:
            yield link.lower, f"{link.kind} {link.name}"
