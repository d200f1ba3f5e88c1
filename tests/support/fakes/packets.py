"""Packets for the fake tables: few addresses, and for each a packet of every kind that entries distinguish."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from enforcer.model.nets import IPAddress
from tests.support.frames import ipv4, ipv6
from tests.support.ruletables import ADDRESSES


@dataclass(frozen=True)
class Packet:
    """``transport``: None for a later fragment."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    transport: bytes
    later_fragment: bool = False

    @property
    def version(self) -> int:
        return self.source.version

    @cached_property
    def buf(self) -> bytes:
        """The packet from its IP header on. Later fragments are IPv4, whose header has the offset."""
        addresses = {"source": str(self.source), "destination": str(self.destination)}
        if self.version == 6:
            return ipv6(self.transport, next_header=self.protocol, **addresses)
        return ipv4(self.transport, protocol=self.protocol, fragment=8 * self.later_fragment, **addresses)


def _ports(source: int, destination: int) -> bytes:
    return source.to_bytes(2, "big") + destination.to_bytes(2, "big") + bytes(16)


_KINDS = (
    *((protocol, _ports(1, 22)) for protocol in (6, 17, 132)),
    (6, _ports(53, 65535)),
    (17, _ports(256, 53)),
    (47, bytes(20)),
)
_ICMP = {4: 1, 6: 58}


def _of(version: int) -> list[Packet]:
    found: list[Packet] = []
    for source in ADDRESSES[version]:
        for destination in ADDRESSES[version][:2]:
            kinds = [*_KINDS, *((_ICMP[version], bytes(pair) + bytes(18)) for pair in ((8, 0), (3, 1)))]
            found += [Packet(source, destination, *kind) for kind in kinds]
            if version == 4:
                found.append(Packet(source, destination, 17, bytes(20), later_fragment=True))
    return found


PACKETS = (*_of(4), *_of(6))
