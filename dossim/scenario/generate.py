"""Traffic generators: Parameters -> frames, reproducible from the seed.

A generator is a function from a :class:`Draw` to frames, and a row of ``GENERATORS``. To add one: write it, add its
word to ``Generator``, its row here and its fields to ``scenario.schema.json``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from dossim.scenario.budget import LARGE, Budget, size_of
from dossim.scenario.expression import frames_of
from dossim.scenario.fragment import fragments_of
from dossim.scenario.model import GeneratedTraffic, Generator, LeaveOut, Parameters, Ports
from dossim.scenario.template import Template, ethernet, u16, u32
from enforcer.model.nets import IPAddress, IPNetwork
from enforcer.policy.resources import PortRange

EPHEMERAL: Ports = (PortRange(32768, 60999),)  # net.ipv4.ip_local_port_range
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"

Destinations = Mapping[int, IPAddress]  # by IP version


class Draw:
    """The random choices of one row of traffic, and its packet templates with TTL, tags and sizes."""

    def __init__(self, parameters: Parameters, destinations: Destinations, seed: str, budget: Budget) -> None:
        self.parameters = parameters
        self.budget = budget
        self.destinations = destinations
        self._random = random.Random(seed)
        self.template = cache(self._template)

    def packets(self) -> Iterator[tuple[int, IPAddress, IPAddress]]:
        """For each of ``count``: its number, a source, and the destination of the same family."""
        for number in range(self.parameters.count):
            source = self._source(number)
            yield number, source, self.parameters.destination or self.destinations[source.version]

    def _source(self, number: int) -> IPAddress:
        nets = self.parameters.sources
        net: IPNetwork = nets[number % len(nets)]
        return net[self._random.randrange(net.num_addresses)]

    def port(self, ports: Ports, default: Ports) -> bytes:
        """One of the ports, as two bytes."""
        chosen = self._random.choice(ports or default)
        return u16(self._random.randint(chosen.first, chosen.last))

    def number(self, bits: int) -> int:
        return self._random.getrandbits(bits)

    def _template(self, version: int, transport: Callable[[int], Packet]) -> Template:
        ttl = self.parameters.ttl
        network = IPv6(src="::", dst="::", hlim=ttl) if version == 6 else IP(src="0.0.0.0", dst="0.0.0.0", ttl=ttl)
        return Template(network / transport(version), vlan=self.parameters.vlan)

    def payload(self, default: int) -> Packet:
        """``size`` arbitrary bytes."""
        size = default if self.parameters.size is None else self.parameters.size
        return Raw(bytes(at & 0xFF for at in range(size)))


def generate(
    traffic: GeneratedTraffic, destinations: Destinations, *, row: int = 0, budget: Budget | None = None
) -> list[bytes]:
    """The frames of one row of traffic. ``destinations`` are the host's first addresses; ``row`` varies the seed.

    Raises Exceeded (or PacketError, for an expression) before more is built than the budget allows.
    """
    budget = budget or Budget(LARGE)
    budget.take(*size_of(traffic))
    draw = Draw(traffic.parameters, destinations, f"{traffic.generator}/{traffic.parameters.seed}/{row}", budget)
    return list(GENERATORS[traffic.generator](draw))


def _syn_flood(draw: Draw) -> Iterator[bytes]:
    yield from _tcp(draw, "S", (PortRange(80, 80),))


def _tcp_flags(draw: Draw) -> Iterator[bytes]:
    """Cycles through the flags; "" is no flag."""
    for number, source, destination in draw.packets():
        flags = draw.parameters.flags[number % len(draw.parameters.flags)]
        yield _segment(draw, number, source, destination, flags, (PortRange(80, 80),))


def _tcp(draw: Draw, flags: str, dport: Ports) -> Iterator[bytes]:
    for number, source, destination in draw.packets():
        yield _segment(draw, number, source, destination, flags, dport)


def _segment(draw: Draw, number: int, source: IPAddress, destination: IPAddress, flags: str, dport: Ports) -> bytes:
    patches = {
        0: draw.port(draw.parameters.sport, EPHEMERAL) + draw.port(draw.parameters.dport, dport),
        4: u32(draw.number(32)),
    }
    return draw.template(source.version, _tcp_header(flags)).stamp(source, destination, patches, ident=number)


@cache
def _tcp_header(flags: str) -> Callable[[int], Packet]:
    """Returns the same function object for the same flags, because it is the key of the templates."""
    return lambda version: TCP(flags=flags)


def _tcp_handshakes(draw: Draw) -> Iterator[bytes]:
    """SYN and ACK of each connection; the ACK cannot know the host's sequence number."""
    for number, source, destination in draw.packets():
        ports = draw.port(draw.parameters.sport, EPHEMERAL) + draw.port(draw.parameters.dport, (PortRange(443, 443),))
        first = draw.number(32)
        syn, ack = (draw.template(source.version, _tcp_header(flags)) for flags in ("S", "A"))
        yield syn.stamp(source, destination, {0: ports, 4: u32(first)}, ident=2 * number)
        following = u32(first + 1) + u32(draw.number(32))
        yield ack.stamp(source, destination, {0: ports, 4: following}, ident=2 * number + 1)


def _udp_flood(draw: Draw) -> Iterator[bytes]:
    yield from _udp(draw, sport=EPHEMERAL, dport=(PortRange(9, 9),), size=64)


def _udp_reflection(draw: Draw) -> Iterator[bytes]:
    """Unsolicited replies: the source port is the reflecting service's."""
    yield from _udp(draw, sport=EPHEMERAL, dport=EPHEMERAL, size=512)


def _udp(draw: Draw, *, sport: Ports, dport: Ports, size: int) -> Iterator[bytes]:
    def transport(version: int) -> Packet:
        return UDP() / draw.payload(size)

    for number, source, destination in draw.packets():
        ports = draw.port(draw.parameters.sport, sport) + draw.port(draw.parameters.dport, dport)
        yield draw.template(source.version, transport).stamp(source, destination, {0: ports}, ident=number)


def _icmp_flood(draw: Draw) -> Iterator[bytes]:
    """Echo requests."""

    def transport(version: int) -> Packet:
        return (ICMPv6EchoRequest() if version == 6 else ICMP()) / draw.payload(56)

    for number, source, destination in draw.packets():
        patches = {4: u16(draw.number(16)) + u16(number)}
        yield draw.template(source.version, transport).stamp(source, destination, patches, ident=number)


def _fragments(draw: Draw) -> Iterator[bytes]:
    """``count`` UDP datagrams in fragments of at most ``mtu``; ``leave-out`` makes every datagram incomplete."""
    parts = {None: slice(None), LeaveOut.FIRST: slice(1, None), LeaveOut.LAST: slice(None, -1)}[
        draw.parameters.leave_out
    ]
    tags = len(draw.parameters.vlan)
    for number, frame in enumerate(_udp(draw, sport=EPHEMERAL, dport=(PortRange(9, 9),), size=3000)):
        yield from fragments_of(frame, mtu=draw.parameters.mtu, ident=number + 1, tags=tags)[parts]


def _dns_queries(draw: Draw) -> Iterator[bytes]:
    def transport(version: int) -> Packet:
        return UDP() / DNS(rd=1, qd=DNSQR(qname=draw.parameters.query))

    for number, source, destination in draw.packets():
        ports = draw.port(draw.parameters.sport, EPHEMERAL) + draw.port(draw.parameters.dport, (PortRange(53, 53),))
        patches = {0: ports, 8: u16(draw.number(16))}
        yield draw.template(source.version, transport).stamp(source, destination, patches, ident=number)


def _arp(draw: Draw) -> Iterator[bytes]:
    """ARP requests for the destination, sent by broadcast like real ones."""
    header = ethernet(vlan=draw.parameters.vlan, destination=BROADCAST_MAC)
    for _, source, destination in draw.packets():
        yield bytes(header / ARP(op=1, hwsrc=header.src, psrc=str(source), pdst=str(destination)))


def _scapy(draw: Draw) -> Iterator[bytes]:
    """``count`` times the packets of the expression."""
    count = draw.parameters.count
    frames = frames_of(draw.parameters.packet, draw.destinations, times=count, budget=draw.budget)
    for _ in range(count):
        yield from frames


GENERATORS: Mapping[Generator, Callable[[Draw], Iterator[bytes]]] = {
    Generator.SYN_FLOOD: _syn_flood,
    Generator.UDP_FLOOD: _udp_flood,
    Generator.UDP_REFLECTION: _udp_reflection,
    Generator.ICMP_FLOOD: _icmp_flood,
    Generator.TCP_HANDSHAKES: _tcp_handshakes,
    Generator.TCP_FLAGS: _tcp_flags,
    Generator.FRAGMENTS: _fragments,
    Generator.DNS_QUERIES: _dns_queries,
    Generator.ARP: _arp,
    Generator.SCAPY: _scapy,
}
