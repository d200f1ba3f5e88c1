"""The addresses that a host listens to. Pure."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Interface, IPv6Network, ip_address

from dossim.model.host import Host
from enforcer.model.nets import IPAddress

ALL_NODES = IPv6Address("ff02::1")
ALL_ROUTERS = IPv6Address("ff02::2")
SOLICITED_NODE = IPv6Network("ff02::1:ff00:0/104")
LEAST_MTU6 = 1280


def own(host: Host) -> set[IPAddress]:
    return {address.ip for address in host.addresses}


def broadcasts(host: Host) -> set[IPAddress]:
    """The broadcast address of each own subnet; prefixes of 31 and 32 have none (``fib_add_ifaddr``)."""
    subnets = [address.network for address in host.addresses]
    return {ip_address(net.broadcast_address) for net in subnets if net.version == 4 and net.prefixlen < 31}


def joined(host: Host) -> set[IPv6Address]:
    """The groups a host is a member of: all nodes, the solicited-node groups of its addresses, all routers if it is
    one.
    """
    addresses = {address for address in own(host) | anycasts(host) if isinstance(address, IPv6Address)}
    groups = {IPv6Address(int(SOLICITED_NODE.network_address) | int(address) & 0xFFFFFF) for address in addresses}
    return groups | {ALL_NODES} | ({ALL_ROUTERS} if host.forward else set())


def anycasts(host: Host) -> set[IPAddress]:
    """The subnet-router anycast addresses of a router (RFC 4291, 2.6.1; ``addrconf_join_anycast``)."""
    if not host.forward:
        return set()
    own6 = [address for address in host.addresses if isinstance(address, IPv6Interface)]
    return {address.network.network_address for address in own6 if address.network.prefixlen < 127}
