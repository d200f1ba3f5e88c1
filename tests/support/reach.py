"""Packets that reach the entries of a RuleTable: each one's own values and adjacent ones.

For every entry and family, random candidates are built from the values of its conditions, and ``predict`` tells which
of them the entry decides. From the first of those, one field at a time is moved to the edges of its condition:
addresses to the first and last of a net and the adjacent ones, ports likewise, protocol, ICMP type and code to others;
and to the failsafes and next to them. So an entry that can be reached is reached, on both sides of its edges.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np

from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.parse import internet_checksum
from dossim.predict import predict
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Backend, Direction, Stage
from enforcer.planning.plan import InterfacePlan, PlannedEntry
from enforcer.policy.conditions import Icmp
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, RuleTable
from tests.support.conversations import checked
from tests.support.entries import Said, SideMatch, names_of, said_by
from tests.support.frames import ME4, ME6, PORTS, SOURCES4, SOURCES6, ethernet, ipv4, ipv6, segment

CANDIDATES, KEPT_OUTSIDE, ADJACENT = 24, 2, 6


def numbers(texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(ip_address(text)) for text in texts)


LAST_ADDRESS = {4: (1 << 32) - 1, 6: (1 << 128) - 1}
USUAL_SOURCES = {4: numbers(SOURCES4), 6: numbers(SOURCES6)}
ME = {4: numbers([ME4]), 6: numbers([ME6])}
ICMP, ICMPV6 = 1, 58
ICMP_OF = {4: ICMP, 6: ICMPV6}
OTHER_PROTOCOL = 253

Values = Sequence[int]


@dataclass(frozen=True)
class Point:
    """The fields of one packet that entries can match on. ``cut``: bytes left of the transport header; None: all."""

    version: int
    source: int
    destination: int
    protocol: int
    ports: tuple[int, int]
    icmp: tuple[int, int]
    cut: int | None = None

    def packet(self) -> bytes:
        source, destination = _address(self.version, self.source), _address(self.version, self.destination)
        buf = segment(self.protocol, source, destination, self.ports, b"")
        if self.protocol in (ICMP, ICMPV6):
            buf = bytes(self.icmp) + bytes(2) + buf[4:]
            if self.protocol == ICMP:
                buf = buf[:2] + internet_checksum(buf).to_bytes(2, "big") + buf[4:]
            else:
                buf = checked(ICMPV6, source, destination, buf, 2)
        buf = buf[: self.cut]
        if self.version == 6:
            return ipv6(buf, source=source, destination=destination, next_header=self.protocol)
        return ipv4(buf, source=source, destination=destination, protocol=self.protocol)

    def frame(self) -> bytes:
        return ethernet(self.packet(), 0x86DD if self.version == 6 else 0x0800)


@dataclass(frozen=True)
class Reached:
    """Frames for a table, aimed at its ingress entries."""

    frames: tuple[bytes, ...]
    table: RuleTable
    host: Host

    @cached_property
    def decided(self) -> dict[str, tuple[int, ...]]:
        """For each entry the numbers of the frames that it decides in raw according to ``predict``: by Deny or Allow,
        or that reach a Log or Pass and match it.
        """
        capture = Capture.from_frames(self.frames)
        return {entry.name: _decided(capture, self.table, self.host, entry) for entry in self.table.ingress}


def reach(
    table: RuleTable, host: Host, seed: int = 0, *, candidates_each: int = CANDIDATES, adjacent: int | None = ADJACENT
) -> Reached:
    """Frames for every ingress entry of the table.

    The candidates are so many for each entry and family; ``adjacent`` is how many of the points adjacent to its edges
    are taken at random; None: all.
    """
    rng = random.Random(seed)
    frames: list[bytes] = []
    for entry in table.ingress:
        each = {version: [candidate(rng, entry, table, version) for _ in range(candidates_each)] for version in (4, 6)}
        capture = Capture.from_frames([point.frame() for points in each.values() for point in points])
        decided = _decided(capture, table, host, entry)
        for number, points in enumerate(each.values()):
            hits = [at - number * candidates_each for at in decided if at // candidates_each == number]
            chosen = [point for at, point in enumerate(points) if at not in hits][:KEPT_OUTSIDE]
            if hits:
                first = points[hits[0]]
                near = list(adjacent_points(rng, first, entry, table))
                chosen += [first, *(near if adjacent is None else rng.sample(near, min(adjacent, len(near))))]
            frames += [point.frame() for point in chosen]
    return Reached(tuple(frames), table, host)


def sent(table: RuleTable, seed: int = 0) -> list[bytes]:
    """IP packets for every egress entry."""
    rng = random.Random(seed)
    return [
        candidate(rng, entry, table, version).packet()
        for entry in table.egress
        for version in (4, 6)
        if version in entry.families
        for _ in range(4)
    ]


def _decided(capture: Capture, table: RuleTable, host: Host, entry: Entry) -> tuple[int, ...]:
    """The frames that reach the entry in raw and match it: those that it drops if its action is Deny."""
    denying = replace(entry, action=Action.DENY)
    ingress = tuple(denying if item.name == entry.name else item for item in table.ingress)
    chosen_table = replace(table, ingress=ingress)
    plan = InterfacePlan(chosen_table, None, Backend.IPTABLES, tuple(PlannedEntry(item, Stage.RAW) for item in ingress))
    prediction = predict(capture, plan, host)
    numbers = [at for at, item in enumerate(prediction.entries) if item.name == entry.name]
    return tuple(np.flatnonzero(np.isin(prediction.entry, numbers)).tolist())


# --- one packet of an entry's own values ----------------------------------------------------------------------------


def candidate(rng: random.Random, entry: Entry, table: RuleTable, version: int) -> Point:
    """Random combinations of the entry's values and adjacent ones."""
    inbound = entry.direction is Direction.INGRESS
    usual, mine = USUAL_SOURCES[version], ME[version]
    said = said_by(entry)
    return Point(
        version,
        _choose_address(rng, said.source, table, version, usual if inbound else mine),
        _choose_address(rng, said.destination, table, version, mine if inbound else usual),
        _choose_protocol(rng, said, table, version),
        (_choose_port(rng, said.source, table), _choose_port(rng, said.destination, table)),
        _choose_icmp(rng, said),
        rng.randrange(9) if rng.randrange(16) == 0 else None,
    )


def _choose_address(rng: random.Random, match: SideMatch, table: RuleTable, version: int, usual: Values) -> int:
    edges = _address_edges(rng, match, table, version)
    return rng.choice([*edges, *usual]) if rng.randrange(3) else rng.choice(usual)


def _choose_protocol(rng: random.Random, said: Said, table: RuleTable, version: int) -> int:
    wanted = [said.protocol] if said.protocol is not None else [6, 17]
    for match in said.sides:
        wanted += [table.port_sets[name].protocol for name in names_of(match)]
    return rng.choice(_other_protocols(said, version)) if rng.randrange(6) == 0 else rng.choice(wanted)


def _choose_port(rng: random.Random, match: SideMatch, table: RuleTable) -> int:
    return rng.choice(_port_edges(match, table) or PORTS)


def _choose_icmp(rng: random.Random, said: Said) -> tuple[int, int]:
    chosen = rng.choice(said.types) if said.types else Icmp(8, 0)
    kind, code = chosen.type, chosen.code or 0
    return (kind + rng.choice((0, 0, 0, 1))) % 256, (code + rng.choice((0, 0, 1))) % 256


# --- the adjacent points --------------------------------------------------------------------------------------------


def adjacent_points(rng: random.Random, point: Point, entry: Entry, table: RuleTable) -> Iterator[Point]:
    """The point with one field moved to, or across, each edge of the entry and of the failsafes."""
    said = said_by(entry)
    yield from (replace(point, source=at) for at in _address_edges(rng, said.source, table, point.version))
    yield from (replace(point, destination=at) for at in _address_edges(rng, said.destination, table, point.version))
    yield from (replace(point, protocol=other) for other in _other_protocols(said, point.version))
    yield from (replace(point, ports=(at, point.ports[1])) for at in _port_edges(said.source, table))
    yield from (replace(point, ports=(point.ports[0], at)) for at in _port_edges(said.destination, table))
    if point.protocol in (ICMP, ICMPV6):
        kind, code = point.icmp
        yield from (replace(point, icmp=(at % 256, code)) for at in (kind - 1, kind + 1))
        yield from (replace(point, icmp=(kind, at % 256)) for at in (code - 1, code + 1))
    yield from (replace(point, cut=buf) for buf in (0, 1, 2, 3, 4, 8))
    own, other = table.failsafe_inbound, table.failsafe_outbound
    if entry.direction is Direction.EGRESS:
        own, other = other, own
    for failsafe in own:
        for at in _within(_around(failsafe.port, failsafe.port), 0xFFFF):
            yield from _at_failsafe(point, entry, failsafe, (point.ports[0], at))
    for failsafe in other:
        for at in _within(_around(failsafe.port, failsafe.port), 0xFFFF):
            yield from _at_failsafe(point, entry, failsafe, (at, point.ports[1]))


def _at_failsafe(point: Point, entry: Entry, failsafe: Failsafe, ports: tuple[int, int]) -> Iterator[Point]:
    """With these ports; of a failsafe with a net also from the net's edges."""
    moved = replace(point, protocol=failsafe.protocol, ports=ports)
    yield moved
    if failsafe.net is not None and failsafe.net.version == point.version:
        for at in _net_edges(failsafe.net):
            yield replace(moved, source=at) if entry.direction is Direction.INGRESS else replace(moved, destination=at)


# --- edges ----------------------------------------------------------------------------------------------------------


def _address_edges(rng: random.Random, match: SideMatch, table: RuleTable, version: int) -> list[int]:
    """First and last addresses of the condition's nets, and adjacent ones outside; for a large set, of some nets."""
    nets = [net for net in (*match.nets, *match.not_nets) if net.version == version]
    for name in filter(None, (match.ip_set, match.not_ip_set)):
        members = [net for net in table.sets[name].nets if net.version == version]
        nets += rng.sample(members, min(4, len(members)))
    edges = [edge for net in nets for edge in _net_edges(net)]
    edges += [
        int(address)
        for name in names_of(match)
        for address, _ in table.port_sets[name].members
        if address.version == version
    ]
    return list(dict.fromkeys(edges))


def _net_edges(net: IPNetwork) -> list[int]:
    return _within(_around(int(net.network_address), int(net.broadcast_address)), LAST_ADDRESS[net.version])


def _port_edges(match: SideMatch, table: RuleTable) -> list[int]:
    ranges = [(item.first, item.last) for item in (*match.ports, *match.not_ports)]
    ranges += [(port, port) for name in names_of(match) for _, port in table.port_sets[name].members]
    return _within((edge for item in ranges for edge in _around(*item)), 0xFFFF)


def _other_protocols(said: Said, version: int) -> list[int]:
    unwanted = [said.not_protocol] if said.not_protocol is not None else []
    return list(dict.fromkeys([6, 17, 132, ICMP_OF[version], OTHER_PROTOCOL, *unwanted]))


def _around(first: int, last: int) -> tuple[int, ...]:
    return (first - 1, first, last, last + 1)


def _within(values: Iterable[int], last: int) -> list[int]:
    """The values from 0 to ``last``, each once."""
    return [value for value in dict.fromkeys(values) if 0 <= value <= last]


@lru_cache(maxsize=1 << 14)  # few addresses, many packets
def _address(version: int, value: int) -> str:
    return str(IPv4Address(value) if version == 4 else IPv6Address(value))
