"""Random frames aimed at a RuleTable, tens of thousands a second: well-formed, cut, mutated, fragmented, of every
shape.

A frame is aimed at one entry or failsafe of the table: most of its fields have values of that entry or adjacent ones
(the edges of nets, ports and ICMP types), the others have values of the whole table. So frames match entries, and just
fail to match them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from hypothesis import strategies as st

from dossim.packet.parse import internet_checksum
from enforcer.model.nets import IPNetwork
from enforcer.policy.conditions import Icmp
from enforcer.policy.resources import Failsafe, PortRange
from enforcer.policy.ruletable import Entry, RuleTable
from tests.support.entries import SideMatch, names_of, said_by
from tests.support.frames import (
    BROADCAST_MAC,
    GROUP_MAC,
    MAC,
    ME4,
    ME6,
    ODD_DESTINATIONS4,
    ODD_DESTINATIONS6,
    SOURCES4,
    SOURCES6,
)

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, FRAGMENT, AUTHENTICATION, DESTINATION, DESTINATION)
PROTOCOLS = (TCP, TCP, UDP, UDP, SCTP, ICMP, ICMPV6)
ODD_PROTOCOLS = (*PROTOCOLS, 0, 2, DCCP, 47, NO_NEXT, UDPLITE, 253, 255)
WIDTH = {4: 4, 6: 16}
MORE, DONT = 0x2000, 0x4000
SOURCES = (*SOURCES4, *SOURCES6)
DESTINATIONS = (*[ME4, ME6] * 10, *ODD_DESTINATIONS4, *ODD_DESTINATIONS6)
SHORTEST = 14  # bytes: what BPF_PROG_TEST_RUN takes, and a network card
MEMBERS_LOOKED_AT = 32  # of a set: its edges are taken from so many nets

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Aim:
    """Values to try. Addresses are bytes, by version; an empty tuple: any value."""

    sources: dict[int, tuple[bytes, ...]]
    destinations: dict[int, tuple[bytes, ...]]
    protocols: tuple[int, ...]
    sports: tuple[int, ...]
    dports: tuple[int, ...]
    icmp: Pairs


def random_frames(table: RuleTable, rng: random.Random, count: int) -> list[bytes]:
    """``count`` frames for the table's ingress side, none below SHORTEST bytes; the fragments of one datagram are
    consecutive.
    """
    targets = [_aim_at_entry(entry, table, rng) for entry in table.ingress]
    targets += [_aim_at_failsafe(item, inbound=True) for item in table.failsafe_inbound]
    targets += [_aim_at_failsafe(item, inbound=False) for item in table.failsafe_outbound]
    everything = _together(targets)
    found: list[bytes] = []
    while len(found) < count:
        found += _some(rng, rng.choice(targets) if targets else everything, everything)
    return found[:count]


def frames_aimed_at(table: RuleTable, *, max_size: int = 200) -> st.SearchStrategy[list[bytes]]:
    """The same as a strategy: a seed and a number."""
    return st.builds(
        lambda seed, count: random_frames(table, random.Random(seed), count),
        st.integers(0, 1 << 32),
        st.integers(1, max_size),
    )


# -- what to aim at ----------------------------------------------------------------------------------------------------


def _aim_at_entry(entry: Entry, table: RuleTable, rng: random.Random) -> Aim:
    said = said_by(entry)
    protocols = [number for number in (said.protocol, said.not_protocol) if number is not None]
    protocols += [table.port_sets[name].protocol for side in said.sides for name in names_of(side)]
    return Aim(
        _addresses(said.source, table, rng),
        _addresses(said.destination, table, rng),
        tuple(protocols),
        _ports(said.source, table),
        _ports(said.destination, table),
        tuple(pair for item in said.types for pair in _around_type(item)),
    )


def _aim_at_failsafe(failsafe: Failsafe, *, inbound: bool) -> Aim:
    ports = _edges([(failsafe.port, failsafe.port)], 0xFFFF)
    sources = {4: (), 6: ()} | ({failsafe.net.version: _edges_of([failsafe.net])} if failsafe.net else {})
    none: tuple[int, ...] = ()
    sides = (none, ports) if inbound else (ports, none)
    return Aim(sources, {4: (), 6: ()}, (failsafe.protocol,), *sides, ())


def _together(aims: Sequence[Aim]) -> Aim:
    """The values of all targets, and common ones."""

    def usual(texts: Iterable[str], version: int) -> tuple[bytes, ...]:
        return tuple(ip_address(text).packed for text in texts if ip_address(text).version == version)

    return Aim(
        {v: (*usual(SOURCES, v), *(value for aim in aims for value in aim.sources[v])) for v in (4, 6)},
        {v: (*usual(DESTINATIONS, v), *(value for aim in aims for value in aim.destinations[v])) for v in (4, 6)},
        (*PROTOCOLS, *(value for aim in aims for value in aim.protocols)),
        (9, 1024, *(value for aim in aims for value in aim.sports)),
        (9, 80, *(value for aim in aims for value in aim.dports)),
        ((8, 0), (128, 0), *(pair for aim in aims for pair in aim.icmp)),
    )


def _addresses(match: SideMatch, table: RuleTable, rng: random.Random) -> dict[int, tuple[bytes, ...]]:
    nets = [*match.nets, *match.not_nets]
    for name in filter(None, (match.ip_set, match.not_ip_set)):
        members = list(table.sets[name].nets)
        nets += rng.sample(members, min(MEMBERS_LOOKED_AT, len(members)))
    named = [address for name in names_of(match) for address, _ in table.port_sets[name].members]
    return {
        version: (
            *_edges_of(net for net in nets if net.version == version),
            *(address.packed for address in named if address.version == version),
        )
        for version in (4, 6)
    }


def _edges_of(nets: Iterable[IPNetwork]) -> tuple[bytes, ...]:
    """First and last addresses and the adjacent ones outside; the first twice, so that more frames match."""
    found: list[bytes] = []
    for net in nets:
        width = WIDTH[net.version]
        edges = _edges([(int(net.network_address), int(net.broadcast_address))], (1 << 8 * width) - 1)
        found += [value.to_bytes(width, "big") for value in (int(net.network_address), *edges)]
    return tuple(found)


def _ports(match: SideMatch, table: RuleTable) -> tuple[int, ...]:
    ranges: list[PortRange] = [*match.ports, *match.not_ports]
    ranges += [PortRange(port, port) for name in names_of(match) for _, port in table.port_sets[name].members]
    return _edges([(item.first, item.last) for item in ranges], 0xFFFF)


def _edges(ranges: Iterable[tuple[int, int]], last: int) -> tuple[int, ...]:
    values = (value for low, high in ranges for value in (low - 1, low, high, high + 1))
    return tuple(value for value in dict.fromkeys(values) if 0 <= value <= last)


def _around_type(icmp: Icmp) -> Iterator[tuple[int, int]]:
    kind, code = icmp.type, icmp.code or 0
    yield from ((kind, code), (kind, code), (kind, (code + 1) % 256), ((kind + 1) % 256, code))


# -- frames ------------------------------------------------------------------------------------------------------------


def _some(rng: random.Random, aim: Aim, everything: Aim) -> list[bytes]:
    """One frame, or the fragments of one datagram."""
    weights = (1 + 3 * bool(aim.sources[4]), 1 + 3 * bool(aim.sources[6]))
    version = rng.choices((4, 6), weights)[0]

    def own(mine: Sequence[bytes], others: Sequence[bytes]) -> bytes:
        return rng.choice(mine) if mine and rng.random() < 0.8 else rng.choice(others)

    source = own(aim.sources[version], everything.sources[version])
    destination = own(aim.destinations[version], everything.destinations[version])
    protocol = _protocol(rng, aim, everything, version)
    buf = _transport(rng, aim, everything, protocol, source, destination)
    ident = rng.randrange(4)
    if version == 4:
        packets = _packets4(rng, buf, protocol, source, destination, ident)
    else:
        packets = _packets6(rng, buf, protocol, source, destination, ident)
    return [_frame(rng, packet, version) for packet in packets]


def _protocol(rng: random.Random, aim: Aim, everything: Aim, version: int) -> int:
    chance = rng.random()
    if aim.protocols and chance < 0.75:
        return rng.choice(aim.protocols)
    if chance < 0.8 and aim.icmp:
        return ICMP if version == 4 else ICMPV6
    return rng.choice(everything.protocols if chance < 0.95 else ODD_PROTOCOLS)


def _transport(
    rng: random.Random, aim: Aim, everything: Aim, protocol: int, source: bytes, destination: bytes
) -> bytes:
    """A header with data after it, one time in five cut near the end of the header."""
    sport = rng.choice(aim.sports if aim.sports and rng.random() < 0.8 else everything.sports)
    dport = rng.choice(aim.dports if aim.dports and rng.random() < 0.8 else everything.dports)
    data = bytes(rng.choice((0, 0, 1, 8, 13, 40)))
    front = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    if protocol == TCP:
        buf = _checked(protocol, source, destination, front + bytes(8) + b"\x50\x02\x20\0" + bytes(4) + data, 16)
    elif protocol in (UDP, UDPLITE):
        buf = front + (8 + len(data)).to_bytes(2, "big") + bytes(2) + data
        buf = _checked(protocol, source, destination, buf, 6)
    elif protocol in (ICMP, ICMPV6):
        kind, code = rng.choice(aim.icmp if aim.icmp and rng.random() < 0.8 else everything.icmp)
        buf = bytes([kind, code]) + bytes(6) + data
        if protocol == ICMPV6:
            buf = _checked(protocol, source, destination, buf, 2)
        else:
            buf = buf[:2] + internet_checksum(buf).to_bytes(2, "big") + buf[4:]
    else:
        buf = front + bytes(8) + data
    return buf[: rng.randrange(25)] if rng.random() < 0.2 else buf


def _checked(protocol: int, source: bytes, destination: bytes, buf: bytes, at: int) -> bytes:
    pseudo = source + destination + len(buf).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    checksum = internet_checksum(pseudo, buf) or 0xFFFF
    return buf[:at] + checksum.to_bytes(2, "big") + buf[at + 2 :]


def _packets4(
    rng: random.Random, buf: bytes, protocol: int, source: bytes, destination: bytes, ident: int
) -> list[bytes]:
    options = b"\1" * 4 * rng.randrange(1, 11) if rng.random() < 0.1 else b""
    how = rng.random()
    if how < 0.8:
        pieces = [(rng.choice((0, 0, DONT)), buf)]
    elif how < 0.9:
        pieces = [(rng.choice((MORE, MORE, MORE | 1, 1, 2, 3, 0x1FFF, MORE | 0x1FFF)), buf)]
    else:
        cuts = _cuts(rng, len(buf))
        pieces = [(at // 8 | MORE * (end < len(buf)), buf[at:end]) for at, end in cuts]
    made = []
    for field, data in pieces:
        size = 20 + len(options)
        total = size + len(data) if rng.random() < 0.96 else rng.choice((0, size - 1, size, size + 19, 1500, 65535))
        head = bytes([0x45 + len(options) // 4, 0]) + total.to_bytes(2, "big") + ident.to_bytes(2, "big")
        head += field.to_bytes(2, "big") + bytes([64, protocol, 0, 0]) + source + destination + options
        made.append(head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + data)
    return made


def _packets6(
    rng: random.Random, buf: bytes, protocol: int, source: bytes, destination: bytes, ident: int
) -> list[bytes]:
    how = rng.random()
    if how > 0.9:  # a fragmented datagram, perhaps after hop-by-hop options
        before = [HOP_BY_HOP] if how > 0.97 else []
        made = []
        for at, end in _cuts(rng, len(buf)):
            field = (at | (end < len(buf))).to_bytes(2, "big")
            piece = bytes([protocol, 0]) + field + ident.to_bytes(4, "big") + buf[at:end]
            made.append(_packet6(rng, piece, FRAGMENT, before, source, destination, ident))
        return made
    kinds: list[int] = []
    if how > 0.6:
        kinds = rng.choices(EXTENSIONS, k=rng.choice((1, 1, 1, 2, 2, 3)))
    elif how > 0.57:
        kinds = [DESTINATION] * rng.randrange(7, 11)
    return [_packet6(rng, buf, protocol, kinds, source, destination, ident)]


def _packet6(
    rng: random.Random, buf: bytes, protocol: int, kinds: list[int], source: bytes, destination: bytes, ident: int
) -> bytes:
    for kind in kinds:
        buf, protocol = _extension(rng, kind, protocol, ident) + buf, kind
    length = len(buf) if rng.random() < 0.96 else rng.choice((0, 1, 7, 8, 19, len(buf) + 9, 65535))
    return b"\x60\0\0\0" + length.to_bytes(2, "big") + bytes([protocol, 64]) + source + destination + buf


def _extension(rng: random.Random, kind: int, following: int, ident: int) -> bytes:
    if kind == FRAGMENT:
        field = rng.choice((0, 0, 1, 1, 8, 9, 16, 0xFFF8))
        return bytes([following, rng.choice((0, 0, 9))]) + field.to_bytes(2, "big") + ident.to_bytes(4, "big")
    if kind == AUTHENTICATION:
        units = rng.choice((4, 4, 0, 1, 40))
        return bytes([following, units]) + bytes(22)
    longer = rng.choice((0, 0, 0, 0, 1, 3, 255))
    padding = b"\1" + bytes([4]) + bytes(4) + (b"\1\6" + bytes(6)) * min(longer, 3)
    return bytes([following, longer]) + (padding if kind != ROUTING else bytes(len(padding)))


def _cuts(rng: random.Random, length: int) -> list[tuple[int, int]]:
    """Where to split a datagram: at multiples of eight bytes, one time in five elsewhere."""
    step = rng.choice((8, 16, 24, 32))
    cuts = [(at, min(at + step, length)) for at in range(0, max(length, 1), step)]
    if rng.random() < 0.2:
        at = rng.randrange(len(cuts))
        cuts[at] = (cuts[at][0], min(cuts[at][1] + rng.choice((-4, -1, 4)), length))
    if len(cuts) > 1 and rng.random() < 0.3:
        rng.shuffle(cuts)
    return [(at, end) for at, end in cuts if end >= at]


def _frame(rng: random.Random, packet: bytes, version: int) -> bytes:
    """The packet in a frame: tags, damage, padding."""
    front = rng.choices((MAC, BROADCAST_MAC, GROUP_MAC), (30, 1, 1))[0] + b"\x02\0\0\0\0\x02"
    if rng.random() < 0.12:
        for _ in range(rng.choice((1, 1, 2, 2, 3))):
            front += rng.choice((b"\x81\0", b"\x88\xa8")) + rng.choice((b"\0\0", b"\0\0", b"\xe0\0", b"\0\5"))
    ethertype = (0x0800 if version == 4 else 0x86DD) if rng.random() < 0.99 else rng.choice((0x86DD, 0x0800, 0x0806))
    frame = front + ethertype.to_bytes(2, "big") + packet
    damage = rng.random()
    if damage < 0.05:
        frame = frame[: rng.randrange(SHORTEST, len(frame) + 1)]
    elif damage < 0.11:
        at = rng.randrange(12, min(len(frame), 110))
        frame = frame[:at] + bytes([rng.randrange(256)]) + frame[at + 1 :]
    elif damage < 0.2:
        frame += bytes(rng.randrange(1, 30))
    return frame
