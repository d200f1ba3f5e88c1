"""Box: every packet of one family that an entry matches, so that entries can be compared. Pure.

A packet is in a box when its source and destination are in the ranges, and its protocol, ports and ICMP type are in the
masks (bit n is number n; an ICMP bit is type * 256 + code). Entries that look at ports or ICMP types match no packet
in which they cannot be read, fragments for one. Ports may be asked for and any do, hence ``reads_ports``; who asks for
ICMP types never takes all of them, so the mask says it.

Named ports make a box larger than what the entry matches: ``exact`` says that it is not. Nothing is ever said to be in
a box that is not exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from dossim.lint.ranges import Ranges
from dossim.packet.fields import PORT_PROTOCOLS
from enforcer.model.nets import IPNetwork
from enforcer.policy.resources import IcmpMatch, PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, RuleTable

ALL_PROTOCOLS = (1 << 256) - 1
ALL_PORTS = ALL_ICMP = (1 << 65536) - 1
WITH_PORTS = sum(1 << protocol for protocol in PORT_PROTOCOLS)
ICMP_FAMILY = {1: 4, 58: 6}
FAMILIES = (4, 6)


@dataclass(frozen=True, eq=False, repr=False)
class Box:
    """Built with fields left out, it matches more. Masks are numbers of 65,536 bits: nothing to print."""

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
        """Whether every packet of the other is shown to be in this one."""
        return self.holds_but_for_source(other) and other.source <= self.source

    def holds_but_for_source(self, other: Box) -> bool:
        """The same, were every source in this one; False as well where it is plain that no source is."""
        return (
            self.exact
            and self.version == other.version
            and self.source.may_meet(other.source)  # quick, and mostly the end of it
            and not other.protocols & ~self.protocols
            and (other.reads_ports or not self.reads_ports)
            and not other.source_ports & ~self.source_ports
            and not other.destination_ports & ~self.destination_ports
            and not other.icmp & ~self.icmp
            and other.destination <= self.destination
        )

    def meets(self, other: Box) -> bool:
        """Whether the two may have a packet in common; of exact boxes, whether they do."""
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
        """What both hold; of one family."""
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
    """Makes the boxes of one table's entries; every list of addresses is turned into ranges once."""

    def __init__(self, table: RuleTable) -> None:
        self.table = table
        self._sets: dict[tuple[str, int], Ranges] = {}
        self._sides: dict[tuple[AddressMatch, int], Ranges] = {}
        self._boxes: dict[tuple[Entry, int], Box] = {}
        self._full: Mapping[int, Ranges] = {version: Ranges.full(version) for version in FAMILIES}

    def boxes(self, entry: Entry) -> Iterator[Box]:
        """The box of each family the entry is of, empty ones too."""
        for version in families(entry):
            key = entry, version
            if key not in self._boxes:
                self._boxes[key] = self._box(entry, version)
            yield self._boxes[key]

    def _box(self, entry: Entry, version: int) -> Box:
        protocols = ALL_PROTOCOLS if entry.protocol is None else 1 << entry.protocol
        if entry.not_protocol is not None:
            protocols &= ~(1 << entry.not_protocol)
        sides = entry.source, entry.destination
        reads_ports = any(side.ports or side.not_ports for side in sides)
        named = any(side.named_ports or side.not_named_ports for side in sides)
        return Box(
            version=version,
            source=self.side(entry.source, version),
            destination=self.side(entry.destination, version),
            protocols=protocols & WITH_PORTS if reads_ports else protocols,
            source_ports=_wanted_ports(entry.source),
            destination_ports=_wanted_ports(entry.destination),
            icmp=_icmp_mask(entry.icmp) & ~(_icmp_mask(entry.not_icmp) if _asks(entry.not_icmp) else 0),
            reads_ports=reads_ports,
            exact=not named,
        )

    def side(self, match: AddressMatch, version: int) -> Ranges:
        """The addresses of one side."""
        bare = replace(match, ports=(), not_ports=(), named_ports=(), not_named_ports=())
        key = bare, version
        if key not in self._sides:
            self._sides[key] = self._addresses(bare, version)
        return self._sides[key]

    def _addresses(self, match: AddressMatch, version: int) -> Ranges:
        found = self._full[version]
        if match.nets:
            found &= Ranges.of(match.nets, version)
        if match.ip_set is not None:
            found &= self.set(match.ip_set, version)
        if match.not_nets:
            found -= Ranges.of(match.not_nets, version)
        return found if match.not_ip_set is None else found - self.set(match.not_ip_set, version)

    def set(self, name: str, version: int) -> Ranges:
        """The addresses of an IP set."""
        key = name, version
        if key not in self._sets:
            self._sets[key] = Ranges.of(self.table.sets[name].nets, version)
        return self._sets[key]

    def has_dead_named_port(self, entry: Entry) -> bool:
        """Whether a side matches only on named ports that no endpoint has."""
        return any(
            side.named_ports and not side.ports and not any(self.table.port_sets[i].members for i in side.named_ports)
            for side in (entry.source, entry.destination)
        )


def families(entry: Entry) -> Iterator[int]:
    """The families an entry is of: that which is written, and of which all its nets and its ICMP types are."""
    sides = entry.source, entry.destination
    lists: list[tuple[IPNetwork, ...]] = [nets for side in sides for nets in (side.nets, side.not_nets) if nets]
    for version in FAMILIES:
        if entry.ip_version not in (None, version):
            continue
        if (_asks(entry.icmp) or _asks(entry.not_icmp)) and ICMP_FAMILY.get(entry.protocol or 0) != version:
            continue
        if all(any(net.version == version for net in nets) for nets in lists):
            yield version


def mask(ranges: Iterable[PortRange]) -> int:
    """The bits of ports."""
    found = 0
    for item in ranges:
        found |= (1 << item.last + 1) - (1 << item.first)
    return found


def _wanted_ports(match: AddressMatch) -> int:
    wanted = mask(match.ports) if match.ports and not match.named_ports else ALL_PORTS
    return wanted & ~mask(match.not_ports)


def _asks(icmp: IcmpMatch | None) -> bool:
    return icmp is not None and icmp.type is not None


def _icmp_mask(icmp: IcmpMatch | None) -> int:
    if icmp is None or icmp.type is None:
        return ALL_ICMP
    if icmp.code is None:
        return ((1 << 256) - 1) << icmp.type * 256
    return 1 << icmp.type * 256 + icmp.code
