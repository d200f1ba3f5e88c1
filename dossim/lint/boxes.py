"""Box: every packet of one family that an entry matches, so that entries can be compared. Pure.

A packet is in a box when its source and destination are in the ranges, and its protocol, ports and ICMP type are in the
masks (bit n is number n; an ICMP bit is type * 256 + code). Entries that match on ports or ICMP types match no packet
in which these cannot be read, such as a later fragment. An entry may match on ports and accept every port, hence
``reads_ports``. One that matches on ICMP types never accepts all of them, so its mask shows it.

With named ports a box is larger than what the entry matches, and ``exact`` is False. Nothing is reported to lie in a
box that is not exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dossim.lint.ranges import Ranges
from dossim.packet.fields import PORT_PROTOCOLS
from enforcer.model.vocabulary import Side
from enforcer.policy.conditions import FAMILIES, Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import Entry, RuleTable

ALL_PROTOCOLS = (1 << 256) - 1
ALL_PORTS = ALL_ICMP = (1 << 65536) - 1
WITH_PORTS = sum(1 << protocol for protocol in PORT_PROTOCOLS)


@dataclass(frozen=True, eq=False, repr=False)
class Box:
    """A field left out matches everything. Masks are numbers of 65,536 bits, too long to print."""

    version: int
    source: Ranges
    destination: Ranges
    protocols: int = ALL_PROTOCOLS
    source_ports: int = ALL_PORTS
    destination_ports: int = ALL_PORTS
    icmp: int = ALL_ICMP
    reads_ports: bool = False
    exact: bool = True

    def __bool__(self) -> bool:
        numbers = self.protocols and self.source_ports and self.destination_ports and self.icmp
        return bool(numbers and self.source and self.destination)

    def holds(self, other: Box) -> bool:
        """Whether every packet of the other box is proved to be in this one."""
        return self.holds_but_for_source(other) and other.source <= self.source

    def holds_but_for_source(self, other: Box) -> bool:
        """As :meth:`holds`, but ignoring sources; False if the sources are quickly seen to be disjoint."""
        return (
            self.exact
            and self.version == other.version
            and self.source.may_meet(other.source)  # a quick test that decides most cases
            and not other.protocols & ~self.protocols
            and (other.reads_ports or not self.reads_ports)
            and not other.source_ports & ~self.source_ports
            and not other.destination_ports & ~self.destination_ports
            and not other.icmp & ~self.icmp
            and other.destination <= self.destination
        )

    def meets(self, other: Box) -> bool:
        """Whether the two may have a packet in common; for exact boxes, whether they do."""
        return bool(
            self.version == other.version
            and self.source.may_meet(other.source)
            and self.protocols & other.protocols
            and self.source_ports & other.source_ports
            and self.destination_ports & other.destination_ports
            and self.icmp & other.icmp
            and self.destination.meets(other.destination)
            and self.source.meets(other.source)
        )

    def __and__(self, other: Box) -> Box:
        """The packets in both; of one family."""
        return Box(
            version=self.version,
            source=self.source & other.source,
            destination=self.destination & other.destination,
            protocols=self.protocols & other.protocols,
            source_ports=self.source_ports & other.source_ports,
            destination_ports=self.destination_ports & other.destination_ports,
            icmp=self.icmp & other.icmp,
            reads_ports=self.reads_ports or other.reads_ports,
            exact=self.exact and other.exact,
        )


class Space:
    """Makes the boxes of one table's entries; every list of addresses is converted to ranges once."""

    def __init__(self, table: RuleTable) -> None:
        self.table = table
        self._sets: dict[tuple[str, int], Ranges] = {}
        self._addresses: dict[tuple[tuple[InNets | InSet, ...], int], Ranges] = {}
        self._boxes: dict[tuple[Entry, int], Box] = {}
        self._full: Mapping[int, Ranges] = {version: Ranges.full(version) for version in FAMILIES}

    def boxes(self, entry: Entry) -> Iterator[Box]:
        """The box of each family the entry is of, empty ones too."""
        for version in entry.families:
            key = entry, version
            if key not in self._boxes:
                self._boxes[key] = self._box(entry, version)
            yield self._boxes[key]

    def _box(self, entry: Entry, version: int) -> Box:
        protocols, icmp = ALL_PROTOCOLS, ALL_ICMP
        addresses: dict[Side, list[InNets | InSet]] = {side: [] for side in Side}
        ports = dict.fromkeys(Side, ALL_PORTS)
        reads_ports, exact = False, True
        for condition in entry.conditions:
            match condition:
                case Protocol(number, negated):
                    protocols &= ~(1 << number) if negated else 1 << number
                case InNets(side) | InSet(side):
                    addresses[side].append(condition)
                case Ports(side, ranges, names, negated):
                    reads_ports |= bool(ranges)
                    exact &= not names
                    if negated:
                        ports[side] &= ~mask(ranges)
                    elif not names:
                        ports[side] &= mask(ranges)
                case Icmp(negated=negated):
                    icmp &= ~_icmp_mask(condition) if negated else _icmp_mask(condition)
                case _:
                    raise unhandled(condition, f"lint: {entry.name}")
        return Box(
            version=version,
            source=self.addresses(addresses[Side.SOURCE], version),
            destination=self.addresses(addresses[Side.DESTINATION], version),
            protocols=protocols & WITH_PORTS if reads_ports else protocols,
            source_ports=ports[Side.SOURCE],
            destination_ports=ports[Side.DESTINATION],
            icmp=icmp,
            reads_ports=reads_ports,
            exact=exact,
        )

    def addresses(self, conditions: Iterable[InNets | InSet], version: int) -> Ranges:
        """The addresses that satisfy all of these conditions."""
        key = tuple(sorted(conditions, key=lambda item: item.negated)), version
        if key not in self._addresses:
            found = self._full[version]
            for item in key[0]:
                each = self.set(item.id, version) if isinstance(item, InSet) else Ranges.of(item.nets, version)
                found = found - each if item.negated else found & each
            self._addresses[key] = found
        return self._addresses[key]

    def set(self, name: str, version: int) -> Ranges:
        """The addresses of an IP set."""
        key = name, version
        if key not in self._sets:
            self._sets[key] = Ranges.of(self.table.sets[name].nets, version)
        return self._sets[key]

    def has_dead_named_port(self, entry: Entry) -> bool:
        """Whether a side matches only on named ports that no endpoint has."""
        return any(
            not item.negated and not item.ranges and not any(self.table.port_sets[name].members for name in item.names)
            for item in entry.conditions
            if isinstance(item, Ports)
        )


def mask(ranges: Iterable[PortRange]) -> int:
    """The bits of ports."""
    found = 0
    for item in ranges:
        found |= (1 << item.last + 1) - (1 << item.first)
    return found


def _icmp_mask(icmp: Icmp) -> int:
    if icmp.code is None:
        return ((1 << 256) - 1) << icmp.type * 256
    return 1 << icmp.type * 256 + icmp.code
