"""Box: every packet of one family that an entry matches, so that entries can be compared. Pure.

A packet is in a box when its source and destination are in the ranges, and each of its other fields in that field's
mask. Entries that match on ports or ICMP types match no packet in which these cannot be read, such as a later fragment.
An entry may match on ports and accept every port, hence ``readability``. One that matches on ICMP types never accepts
all of them, so its mask shows it.

With named ports a box is larger than what the entry matches, and ``exact`` is False. Nothing is reported to lie in a
box that is not exact.

A new field of packets is a field of :class:`Masks`, whose operators cover all fields. mypy names all code that makes
masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import and_
from typing import NamedTuple

from dossim.lint.ranges import Ranges
from dossim.packet.fields import PORT_PROTOCOLS
from enforcer.model.vocabulary import Side
from enforcer.policy.conditions import FAMILIES, Icmp, InNets, InSet, Ports, Protocol, unhandled
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import Entry, NamedSets

ALL_PROTOCOLS = (1 << 256) - 1
ALL_PORTS = ALL_ICMP = (1 << 65536) - 1
WITH_PORTS = sum(1 << protocol for protocol in PORT_PROTOCOLS)
UNREADABLE, READABLE = 1, 2
ANY_READABILITY = UNREADABLE | READABLE


class Masks(NamedTuple):
    """The values that each field of a packet may have: bit n is number n. A packet must be in all masks.

    An ICMP bit is type * 256 + code. ``readability`` is that of the ports. No field has a default: code that makes
    masks gives all of them, or starts from :data:`EVERYTHING`. All are int, so that the operators can cover all fields.
    """

    protocols: int
    source_ports: int
    destination_ports: int
    icmp: int
    readability: int

    def ports(self, side: Side) -> int:
        return self.source_ports if side is Side.SOURCE else self.destination_ports

    def possible(self) -> bool:
        """Whether any packet can be in all of them."""
        return all(self)

    def within(self, other: Masks) -> bool:
        """Whether every packet in these masks is in the other ones. Most are everything, and then the same object."""
        return all(mine is theirs or not mine & ~theirs for mine, theirs in zip(self, other, strict=True))

    def meet(self, other: Masks) -> bool:
        return all(map(and_, self, other))

    def both(self, other: Masks) -> Masks:
        return Masks(*map(and_, self, other))

    def __repr__(self) -> str:
        """The fields that are restricted. Masks have up to 65,536 bits, too long to print."""
        restricted = [name for name, mask in self._asdict().items() if mask != getattr(EVERYTHING, name)]
        return f"Masks({', '.join(restricted)})"


EVERYTHING = Masks(
    protocols=ALL_PROTOCOLS,
    source_ports=ALL_PORTS,
    destination_ports=ALL_PORTS,
    icmp=ALL_ICMP,
    readability=ANY_READABILITY,
)


class Box(NamedTuple):
    """Each operator unpacks the tuple, so that mypy names the operator when a field is added."""

    version: int
    source: Ranges
    destination: Ranges
    masks: Masks
    exact: bool = True

    def __bool__(self) -> bool:
        _, source, destination, masks, _ = self
        return bool(masks.possible() and source and destination)

    @property
    def reads_ports(self) -> bool:
        return not self.masks.readability & UNREADABLE

    def addresses(self, side: Side) -> Ranges:
        return self.source if side is Side.SOURCE else self.destination

    def holds(self, other: Box) -> bool:
        """Whether every packet of the other box is proved to be in this one."""
        return self.holds_but_for_source(other) and other.source <= self.source

    def holds_but_for_source(self, other: Box) -> bool:
        """As :meth:`holds`, but ignoring sources; False if the sources are quickly seen to be disjoint."""
        version, source, destination, masks, exact = self
        return (
            exact
            and version == other.version
            and source.may_meet(other.source)  # a quick test that decides most cases
            and other.masks.within(masks)
            and other.destination <= destination
        )

    def meets(self, other: Box) -> bool:
        """Whether the two may have a packet in common; for exact boxes, whether they do."""
        version, source, destination, masks, _ = self
        return (
            version == other.version
            and source.may_meet(other.source)
            and masks.meet(other.masks)
            and destination.meets(other.destination)
            and source.meets(other.source)
        )

    def __and__(self, other: Box) -> Box:
        """The packets in both; of one family."""
        version, source, destination, masks, exact = self
        return Box(
            version,
            source & other.source,
            destination & other.destination,
            masks.both(other.masks),
            exact and other.exact,
        )


class Space:
    """Makes the boxes of one table's entries; every list of addresses is converted to ranges once."""

    def __init__(self, table: NamedSets) -> None:
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
        masks = Masks(
            protocols=protocols & WITH_PORTS if reads_ports else protocols,
            source_ports=ports[Side.SOURCE],
            destination_ports=ports[Side.DESTINATION],
            icmp=icmp,
            readability=READABLE if reads_ports else ANY_READABILITY,
        )
        source, destination = (self.addresses(addresses[side], version) for side in (Side.SOURCE, Side.DESTINATION))
        return Box(version, source, destination, masks, exact)

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
