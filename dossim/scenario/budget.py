"""How much a scenario may describe: a few lines can describe more packets than a machine can hold.

Limits are checked before anything is built: sizes follow from the parameters (:func:`size_of`).
"""

from __future__ import annotations

from dataclasses import dataclass

from dossim.packet.fields import (
    ARP_HEADER,
    ETHER_HEADER,
    FRAGMENT_HEADER,
    IPV4_HEADER,
    IPV6_HEADER,
    TCP_HEADER,
    UDP_HEADER,
    VLAN_TAG,
)
from dossim.scenario.model import GeneratedTraffic, Generator

ALLOW_LARGE = "--allow-large"

_DNS = 12 + 6  # RFC 1035: header, and a question's lengths, type and class
_SIZES = {Generator.UDP_FLOOD: 64, Generator.UDP_REFLECTION: 512, Generator.ICMP_FLOOD: 56, Generator.FRAGMENTS: 3000}


@dataclass(frozen=True)
class Limits:
    """The limits of one scenario. ``described`` is for packets that its expressions describe, before ``count``."""

    packets: int = 1_000_000
    total_bytes: int = 256 << 20
    described: int = 65_536


DEFAULT = Limits()
LARGE = Limits(packets=1 << 40, total_bytes=1 << 50, described=1 << 40)  # limited only by memory


class Exceeded(Exception):
    """The limits are exceeded; the message states what was found and what is expected."""


class Budget:
    """Counts the packets and bytes of all rows of a scenario."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.packets = 0
        self.total_bytes = 0
        self.described = 0

    def describe(self, packets: int) -> None:
        """Packets of an expression. Raises Exceeded."""
        self.described += packets
        if self.described > self.limits.described:
            raise Exceeded(
                f"packet expressions describe {self.described:,} packets up to here; at most {self.limits.described:,} "
                f"without {ALLOW_LARGE}"
            )

    def take(self, packets: int, total_bytes: int) -> None:
        """Packets of one row with all their bytes. Raises Exceeded."""
        self.packets += packets
        self.total_bytes += total_bytes
        if self.packets > self.limits.packets:
            raise Exceeded(
                f"{self.packets:,} packets up to here; at most {self.limits.packets:,} without {ALLOW_LARGE}"
            )
        if self.total_bytes > self.limits.total_bytes:
            raise Exceeded(
                f"{self.total_bytes:,} bytes of packets up to here; at most {self.limits.total_bytes:,} without "
                f"{ALLOW_LARGE}: lower count or size"
            )


def size_of(traffic: GeneratedTraffic) -> tuple[int, int]:
    """(packets, bytes) of a row of traffic without its expression's; an upper bound on the bytes."""
    given = traffic.parameters
    six = any(source.version == 6 for source in given.sources)
    link = ETHER_HEADER + VLAN_TAG * len(given.vlan)
    network = IPV6_HEADER if six else IPV4_HEADER
    payload = _SIZES.get(traffic.generator, 0) if given.size is None else given.size
    match traffic.generator:
        case Generator.SCAPY:
            return 0, 0
        case Generator.ARP:
            return given.count, given.count * (link + ARP_HEADER)
        case Generator.SYN_FLOOD | Generator.TCP_FLAGS:
            return given.count, given.count * (link + network + TCP_HEADER)
        case Generator.TCP_HANDSHAKES:
            return 2 * given.count, 2 * given.count * (link + network + TCP_HEADER)
        case Generator.DNS_QUERIES:
            return given.count, given.count * (link + network + UDP_HEADER + _DNS + len(given.query.encode()))
        case Generator.FRAGMENTS:
            headers = network + (FRAGMENT_HEADER if six else 0)
            room = max((given.mtu - headers) // 8 * 8, 8)
            pieces = -(-(payload + UDP_HEADER) // room)
            return given.count * pieces, given.count * (pieces * (link + headers) + payload + UDP_HEADER)
        case Generator.UDP_FLOOD | Generator.UDP_REFLECTION | Generator.ICMP_FLOOD:
            return given.count, given.count * (link + network + UDP_HEADER + payload)
