"""Routing: to this host, to another, or a drop. Stage ``route``.

``net/ipv4/route.c`` (``ip_route_input_rcu``, ``ip_route_input_slow``), ``net/ipv4/fib_frontend.c``
(``fib_validate_source``), ``net/ipv4/ip_forward.c``; for IPv6 ``net/ipv6/ip6_input.c`` (``ip6_mc_input``) and
``ip6_output.c`` (``ip6_forward``).
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from dossim.model.addresses import LEAST_MTU6, anycasts, broadcasts, joined, own
from dossim.model.disposition import Fate
from dossim.model.host import Host
from dossim.packet.fields import IPV4_HEADER, IPv4, IPv6, LinkType
from dossim.pipeline.options4 import why_bad_options
from dossim.pipeline.reassembly import Whole
from dossim.pipeline.stages import Context, Destination, PacketState, Step
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Stage

ALL_HOSTS = IPv4Address("224.0.0.1")
LIMITED_BROADCAST = IPv4Address("255.255.255.255")
NO_ADDRESS = IPv4Address("0.0.0.0")
LOOPBACK_ADDRESS = IPv4Address("127.0.0.1")  # the loopback interface has it

STRICT = 1  # rp_filter


def check(state: PacketState, context: Context) -> Step:
    ip = state.ip
    assert ip is not None, "only IP packets get here"
    if isinstance(ip, IPv4):
        step = _route4(state, ip, context.host)
        if ip.header_length > IPV4_HEADER and step.to is not Fate.DROPPED:
            why = why_bad_options(ip.options, context.host)
            return _drop(state, "IP options", why) if why else step
        return step
    return _route6(state, ip, context.host)


# -- IPv4 --------------------------------------------------------------------------------------------------------------


def _route4(state: PacketState, ip: IPv4, host: Host) -> Step:
    """``ip_route_input_rcu`` and ``ip_route_input_slow``, in their order."""
    source, destination = ip.source, ip.destination
    if destination.is_multicast:
        return _multicast4(state, ip, host)
    if source.is_multicast or source == LIMITED_BROADCAST:
        return _martian_source(state, source, "multicast or broadcast source")
    if destination == LIMITED_BROADCAST or source == destination == NO_ADDRESS:
        return _broadcast(state, ip, host)
    if source == NO_ADDRESS:
        return _martian_source(state, source, "no address, and not to the limited broadcast")
    if destination == NO_ADDRESS or destination.is_loopback:
        return _drop(state, f"destination {destination}", "martian destination")
    if source.is_loopback:
        return _martian_source(state, source, "loopback source from outside")
    if destination in broadcasts(host):
        return _broadcast(state, ip, host)
    why = _why_bad_source(source, host)
    if destination in own(host):
        return _martian_source(state, source, why) if why else _deliver(state, Destination.LOCAL, destination)
    if not host.forward:
        return _drop(state, f"destination {destination}", "not an address of this host, and forwarding is off")
    return _martian_source(state, source, why) if why else _forward4(state, ip, host)


def _multicast4(state: PacketState, ip: IPv4, host: Host) -> Step:
    """A host is a member of 224.0.0.1 only. ``ip_mc_validate_source``."""
    if ip.destination != ALL_HOSTS:
        return _drop(state, f"destination {ip.destination}", "a group this host has not joined")
    if ip.source.is_multicast or ip.source == LIMITED_BROADCAST or ip.source.is_loopback:
        return _martian_source(state, ip.source, "multicast, broadcast or loopback source")
    why = "" if ip.source == NO_ADDRESS else _why_bad_source(ip.source, host)
    if why:
        return _martian_source(state, ip.source, why)
    return _deliver(state, Destination.MULTICAST, ip.destination)


def _broadcast(state: PacketState, ip: IPv4, host: Host) -> Step:
    why = "" if ip.source == NO_ADDRESS else _why_bad_source(ip.source, host)
    if why:
        return _martian_source(state, ip.source, why)
    return _deliver(state, Destination.BROADCAST, ip.destination)


def _why_bad_source(source: IPv4Address, host: Host) -> str:
    """``fib_validate_source``: why the source is invalid; "" if it is valid.

    The default route leaves by the receiving interface, so only networks reached through ``inside`` can fail the strict
    reverse path filter, and they pass the loose one.
    """
    if source in own(host) or source == LOOPBACK_ADDRESS:
        return "an own address"
    if not host.rp_filter:
        return ""
    if source in broadcasts(host) or source.is_loopback:
        return "a broadcast or loopback address"
    has_address = any(address.version == 4 for address in host.addresses)
    if leads_inside(source, host) and (host.rp_filter == STRICT or not has_address):
        return f"the way back is by {host.inside} (rp_filter {host.rp_filter})"
    return ""


def _forward4(state: PacketState, ip: IPv4, host: Host) -> Step:
    """``ip_forward`` up to its hook."""
    looked_at = f"destination {ip.destination}, TTL {ip.ttl}, {len(ip.buf)} bytes"
    if state.link_type is not LinkType.HOST:
        return _drop(state, looked_at, f"a {state.link_type} frame is not forwarded")
    if ip.ttl <= 1:
        return _drop(state, looked_at, "TTL exceeded")
    # Its fragments must fit the MTU, not the reassembled datagram (ip_exceeds_mtu: frag_max_size, ignore_df).
    largest = state.reassembly.largest if isinstance(state.reassembly, Whole) else len(ip.buf)
    if ip.dont_fragment and largest > host.mtu:
        return _drop(state, looked_at, f"larger than the MTU ({host.mtu}) and not to be fragmented")
    return Step(Stage.FILTER_FORWARD, state, looked_at, f"to another host, by {_way_out(ip.destination, host)}")


# -- IPv6 --------------------------------------------------------------------------------------------------------------


def _route6(state: PacketState, ip: IPv6, host: Host) -> Step:
    destination = ip.destination
    if destination.is_multicast:
        if destination in joined(host):
            return _deliver(state, Destination.MULTICAST, destination)
        return _drop(state, f"destination {destination}", "a group this host has not joined")
    if destination in own(host):
        return _deliver(state, Destination.LOCAL, destination)
    if destination in anycasts(host):
        return _deliver(state, Destination.ANYCAST, destination)
    if not host.forward:
        return _drop(state, f"destination {destination}", "not an address of this host, and forwarding is off")
    return _forward6(state, ip, host)


def _forward6(state: PacketState, ip: IPv6, host: Host) -> Step:
    """``ip6_forward`` up to its hook. The source is checked only on the way to another interface."""
    looked_at = f"destination {ip.destination}, hop limit {ip.hop_limit}, {len(ip.buf)} bytes"
    if state.link_type is not LinkType.HOST:
        return _drop(state, looked_at, f"a {state.link_type} frame is not forwarded")
    if ip.hop_limit <= 1:
        return _drop(state, looked_at, "hop limit exceeded")
    if leads_inside(ip.destination, host) and (ip.source.is_unspecified or ip.source.is_link_local):
        return _drop(state, f"source {ip.source}", "must not leave its link")
    largest = state.reassembly.largest if isinstance(state.reassembly, Whole) else len(ip.buf)
    mtu = max(host.mtu, LEAST_MTU6)
    if min(len(ip.buf), largest) > mtu:
        return _drop(state, looked_at, f"larger than the MTU ({mtu})")
    return Step(Stage.FILTER_FORWARD, state, looked_at, f"to another host, by {_way_out(ip.destination, host)}")


# -- both --------------------------------------------------------------------------------------------------------------


def leads_inside(address: IPAddress, host: Host) -> bool:
    """Whether the route to an address is through the inside interface: the longest prefix wins, own subnets are
    outside.
    """
    inside = [net.prefixlen for net in host.routes if address in net]
    outside = [item.network.prefixlen for item in host.addresses if address in item.network]
    return max(inside, default=-1) > max(outside, default=-1)


def _way_out(destination: IPAddress, host: Host) -> str:
    return host.inside if leads_inside(destination, host) else host.interface


def _deliver(state: PacketState, kind: Destination, destination: IPAddress) -> Step:
    local = replace(state, destination=kind)
    return Step(Stage.FILTER_INPUT, local, f"destination {destination}", f"for this host: {kind}")


def _martian_source(state: PacketState, source: IPAddress, why: str) -> Step:
    return _drop(state, f"source {source}", f"martian source: {why}")


def _drop(state: PacketState, looked_at: str, why: str) -> Step:
    return Step(Fate.DROPPED, state, looked_at, why)
