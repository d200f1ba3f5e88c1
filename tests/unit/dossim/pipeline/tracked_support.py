"""Hosts, endpoints, policies and packets for tests of tracked policy."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from dossim.model.host import Host, Listener
from dossim.packet.fields import Transport
from dossim.pipeline.matching import MatchKey
from dossim.pipeline.tracked import TrackedPolicy
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import (
    EntityRule,
    GlobalNetworkPolicy,
    HostEndpoint,
    PortRange,
    Profile,
    Resources,
    Rule,
    Tier,
)
from tests.support.frames import ME4, ME6, segment

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
PEER, OTHER, BEYOND = "203.0.113.7", "8.8.8.8", "192.0.2.5"
HOST = Host(
    "jasper",
    addresses=(ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")),
    forward=True,
    routes=(ip_network("192.0.2.0/24"),),
    listen=(Listener(TCP, 80),),
)
ALLOW, DENY, PASS = Rule(Action.ALLOW), Rule(Action.DENY), Rule(Action.PASS)
ENDPOINT = HostEndpoint("eth0", node="jasper", interface_name="eth0")
EVERY = HostEndpoint("all", node="jasper", interface_name="*")
ALLOW_ALL = Profile("allow-all", ingress=(ALLOW,), egress=(ALLOW,))
SECURITY = Tier("security", order=10)


def rule(action: Action, protocol: int | None = None, port: int | None = None, source: str = "") -> Rule:
    """``source``: an address."""
    return Rule(
        action,
        protocol=protocol,
        source=EntityRule(nets=(ip_network(source),)) if source else EntityRule(),
        destination=EntityRule(ports=(PortRange(port, port),)) if port else EntityRule(),
    )


def ingress(name: str, *rules: Rule, **fields: Any) -> GlobalNetworkPolicy:
    return GlobalNetworkPolicy(name, ingress=rules, types=("Ingress",), **fields)


def egress(name: str, *rules: Rule, **fields: Any) -> GlobalNetworkPolicy:
    return GlobalNetworkPolicy(name, egress=rules, types=("Egress",), **fields)


def pre_dnat(name: str, *rules: Rule, **fields: Any) -> GlobalNetworkPolicy:
    return ingress(name, *rules, pre_dnat=True, apply_on_forward=True, **fields)


def untracked(name: str, *rules: Rule, **fields: Any) -> GlobalNetworkPolicy:
    return ingress(name, *rules, do_not_track=True, apply_on_forward=True, **fields)


def endpoint(*profiles: str, interface: str = "eth0") -> HostEndpoint:
    return HostEndpoint(
        f"hep-{interface.replace('*', 'all')}", node="jasper", interface_name=interface, profiles=profiles
    )


def given(*policies: GlobalNetworkPolicy, of: HostEndpoint = ENDPOINT, **fields: Any) -> Resources:
    return Resources(**{"host_endpoints": (of,), "policies": policies} | fields)


def tracked(resources: Resources) -> TrackedPolicy:
    return TrackedPolicy.of(resources, HOST)


def key(
    protocol: int = TCP, port: int = 80, *, source: str = PEER, destination: str = ME4, buf: bytes | None = None
) -> MatchKey:
    carried = segment(protocol, source, destination, (1024, port), b"") if buf is None else buf
    transport = Transport(protocol, 20, carried)
    return MatchKey(ip_address(source).version, ip_address(source), ip_address(destination), transport)
