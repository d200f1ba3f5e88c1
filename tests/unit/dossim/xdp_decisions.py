"""The XDP program's decisions as a table: policy, frame, and the rule that drops it or the reason why it passes.

Each row is run through ``explain``, ``predict`` and the program itself. ``why`` is what ``explain`` reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from dossim.model.host import Host
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import (
    EndpointPort,
    EntityRule,
    Failsafe,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NamedPort,
    PortRange,
    Resources,
    Rule,
    Tier,
)
from tests.support.frames import ME4, ME6, ethernet, ipv4, ipv6, segment

HOST = Host("jasper", "eth0", addresses=(ip_interface(f"{ME4}/24"), ip_interface(f"{ME6}/64")))
BAD, BAD6, GOOD, OTHER = "203.0.113.7", "2001:db8::7", "198.51.100.9", "192.0.2.1"
DENY, ALLOW, LOG, PASS = Action.DENY, Action.ALLOW, Action.LOG, Action.PASS
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
NO_RULE = "no rule matches"


@dataclass(frozen=True)
class Row:
    """``dropped_by`` is the index of a rule of the policy ``p``, or the entry's name; None: the frame passes."""

    sentence: str
    policy: Resources
    frame: bytes
    dropped_by: int | str | None
    why: str = ""

    @property
    def entry(self) -> str | None:
        return f"gnp/p ingress[{self.dropped_by}]" if isinstance(self.dropped_by, int) else self.dropped_by


def policy(*rules: Rule, **fields: Any) -> Resources:
    """One policy ``p`` with these rules; no failsafes."""
    return resources(untracked("p", *rules), **fields)


def resources(
    *policies: GlobalNetworkPolicy,
    inbound: tuple[Failsafe, ...] = (),
    outbound: tuple[Failsafe, ...] = (),
    tiers: tuple[Tier, ...] = (),
) -> Resources:
    """Policies of an endpoint whose named port HTTP is TCP 80. The set ``bad`` holds sources of both families."""
    felix = FelixConfiguration(
        "default",
        failsafe_inbound=inbound,
        failsafe_outbound=outbound,
        written=frozenset({"failsafe_inbound", "failsafe_outbound"}),
    )
    endpoint = HostEndpoint(
        "h",
        labels={"role": "host"},
        node="jasper",
        interface_name="eth0",
        expected_ips=(ip_address(ME4), ip_address(ME6)),
        ports=(EndpointPort("http", TCP, 80),),
    )
    bad = GlobalNetworkSet("bad", labels={"list": "bad"}, nets=Nets.of(["203.0.113.0/24", "2001:db8::/32"]))
    return Resources(
        host_endpoints=(endpoint,),
        global_network_sets=(bad,),
        policies=policies,
        tiers=tiers,
        felix_configurations=(felix,),
    )


def untracked(name: str, *rules: Rule, tier: str = "default") -> GlobalNetworkPolicy:
    return GlobalNetworkPolicy(name, tier=tier, ingress=rules, do_not_track=True, apply_on_forward=True)


def nets(*texts: str) -> EntityRule:
    return EntityRule(nets=tuple(map(ip_network, texts)))


def ports(first: int, last: int | None = None) -> EntityRule:
    return EntityRule(ports=(PortRange(first, last or first),))


def not_ports(port: int) -> EntityRule:
    return EntityRule(not_ports=(PortRange(port, port),))


LISTED, HTTP = EntityRule(selector="list == 'bad'"), EntityRule(ports=(NamedPort("http"),))
NOT_HTTP = EntityRule(not_ports=(NamedPort("http"),))


def four(
    buf: bytes, protocol: int, *, source: str = BAD, destination: str = ME4, fragment: int = 0, cut: int = 0
) -> bytes:
    """An IPv4 frame; ``cut``: bytes that the total length omits."""
    packet = ipv4(buf, source=source, destination=destination, protocol=protocol, fragment=fragment)
    if cut:
        packet = packet[:2] + (len(packet) - cut).to_bytes(2, "big") + packet[4:]
    return ethernet(packet, 0x0800)


def six(buf: bytes, next_header: int, *, source: str = BAD6, destination: str = ME6) -> bytes:
    return ethernet(ipv6(buf, source=source, destination=destination, next_header=next_header), 0x86DD)


def transport(protocol: int, sport: int = 1024, dport: int = 80, *, size: int | None = None) -> bytes:
    """A transport header with these ports, padded with zeros or cut to a size."""
    buf = segment(protocol, BAD, ME4, (sport, dport), bytes(8))
    return buf if size is None else buf[:size].ljust(size, b"\0")


def icmp(kind: int, code: int = 0, *, size: int = 8) -> bytes:
    return bytes([kind, code]).ljust(size, b"\0")[:size]


def tcp(sport: int = 1024, dport: int = 80, **fields: Any) -> bytes:
    return four(transport(TCP, sport, dport), TCP, **fields)


def udp(sport: int = 1024, dport: int = 80, **fields: Any) -> bytes:
    return four(transport(UDP, sport, dport), UDP, **fields)


def tcp6(**fields: Any) -> bytes:
    return six(transport(TCP), TCP, **fields)


def options(following: int) -> bytes:
    """A destination or hop-by-hop options header without options."""
    return bytes([following, 0, 1, 4, 0, 0, 0, 0])


def authentication(following: int) -> bytes:
    return bytes([following, 4]) + bytes(22)


def piece(following: int, *, offset: int = 0, more: bool = True) -> bytes:
    """A fragment header; ``offset`` in bytes."""
    return bytes([following, 0]) + (offset | more).to_bytes(2, "big") + bytes(4)


MORE = 0x2000
LATER6 = six(piece(UDP, offset=8) + bytes(16), 44)
BROKEN6 = six(b"\x06", 60)
WHOLE = Rule(DENY)
