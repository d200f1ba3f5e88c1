"""Hosts, endpoints, policies and packets for tests of tracked policy."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from dossim.model.host import Host, Listener
from dossim.packet.fields import Transport
from dossim.packet.parse import internet_checksum
from dossim.pipeline.match_key import MatchKey
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
from tests.support.frames import ME4, ME6, ethernet, ipv4, ipv6, segment

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


def framed(protocol: int, buf: bytes, *, source: str = PEER, destination: str = ME4, **fields: Any) -> bytes:
    if ":" in source:
        packet = ipv6(buf, source=source, destination=destination, next_header=protocol, **fields)
        return ethernet(packet, 0x86DD)
    return ethernet(ipv4(buf, source=source, destination=destination, protocol=protocol, **fields), 0x0800)


def tcp(
    flags: int = 0x02, port: int = 80, *, sport: int = 1024, seq: int = 1_000, ack: int = 0, checksum: bool = True
) -> bytes:
    """A segment from PEER, as a frame; by default a SYN to the listening port."""
    front = sport.to_bytes(2, "big") + port.to_bytes(2, "big") + seq.to_bytes(4, "big") + ack.to_bytes(4, "big")
    buf = front + bytes([0x50, flags]) + b"\x20\x00" + bytes(4)
    pseudo = ip_address(PEER).packed + ip_address(ME4).packed + len(buf).to_bytes(4, "big") + TCP.to_bytes(4, "big")
    found = internet_checksum(pseudo, buf) ^ (0 if checksum else 1)
    return framed(TCP, buf[:16] + found.to_bytes(2, "big") + buf[18:])


def udp(port: int = 9, *, sport: int = 1024, **fields: Any) -> bytes:
    source, destination = fields.get("source", PEER), fields.get("destination", ME4)
    return framed(UDP, segment(UDP, source, destination, (sport, port), b"data"), **fields)


def icmp(kind: int, body: bytes = b"", *, ident: int = 7) -> bytes:
    """A message to the host as it stands after the IP header, with its checksum."""
    buf = bytes([kind, 0, 0, 0]) + ident.to_bytes(2, "big") + bytes(2) + body
    return buf[:2] + internet_checksum(buf).to_bytes(2, "big") + buf[4:]


def echo(**fields: Any) -> bytes:
    return framed(ICMP, icmp(8, bytes(24)), **fields)
