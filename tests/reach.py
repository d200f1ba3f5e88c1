"""Packets that reach the entries of a RuleTable: each one's own values and those just beside them.

For every entry and family, candidates are drawn from what its match says (first and last address of a net and their
neighbours, ports and theirs, the protocol and others), put together at random, and kept where ``predict`` says that the
entry decides them, or hardly not. So an entry that can be reached is reached, on both sides of its edges.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from dossim.host import Host
from dossim.packet.capture import Capture
from dossim.predict import predict
from enforcer.plan import InterfacePlan, PlannedEntry
from enforcer.policy.resources import IcmpMatch, PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, RuleTable
from enforcer.words import Action, Backend, Direction, Stage
from tests.frames import ME4, ME6, PORTS, SOURCES4, SOURCES6, ethernet, ipv4, ipv6, segment

CANDIDATES, KEPT_INSIDE, KEPT_OUTSIDE = 24, 2, 2
LAST_ADDRESS = {4: (1 << 32) - 1, 6: (1 << 128) - 1}
USUAL_SOURCES = {4: SOURCES4, 6: SOURCES6}
ME = {4: ME4, 6: ME6}
ICMP, ICMPV6 = 1, 58

Values = Sequence[int]


@dataclass(frozen=True)
class Reached:
    """Frames, and for each entry the number of frames that it decides (Deny), as ``predict`` has it."""

    frames: tuple[bytes, ...]
    decided: dict[str, int]


def reach(table: RuleTable, host: Host, seed: int = 0, *, candidates_each: int = CANDIDATES) -> Reached:
    """Frames for every ingress entry of the table; the candidates are so many for each entry and family."""
    rng = random.Random(seed)
    frames: list[bytes] = []
    for entry in table.ingress:
        candidates = [
            _frame(rng, entry, table, version)
            for version in (4, 6)
            if entry.ip_version in (None, version)
            for _ in range(candidates_each)
        ]
        hits = set(_denied(candidates, table, host, entry)) if entry.action is Action.DENY else set(range(6))
        inside = [frame for at, frame in enumerate(candidates) if at in hits]
        outside = [frame for at, frame in enumerate(candidates) if at not in hits]
        frames += [*inside[:KEPT_INSIDE], *outside[:KEPT_OUTSIDE]]
    decided = {
        entry.name: len(_denied(frames, table, host, entry)) for entry in table.ingress if entry.action is Action.DENY
    }
    return Reached(tuple(frames), decided)


def sent(table: RuleTable, seed: int = 0) -> list[bytes]:
    """IP packets for every egress entry."""
    rng = random.Random(seed)
    return [
        _frame(rng, entry, table, version)[14:]
        for entry in table.egress
        for version in (4, 6)
        if entry.ip_version in (None, version)
        for _ in range(4)
    ]


def _denied(frames: Sequence[bytes], table: RuleTable, host: Host, entry: Entry) -> list[int]:
    """The frames that the entry drops in raw."""
    plan = InterfacePlan(table, None, Backend.IPTABLES, tuple(PlannedEntry(item, Stage.RAW) for item in table.ingress))
    prediction = predict(Capture.from_frames(frames), plan, host)
    return [at for at in range(len(frames)) if prediction.disposition(at).entry == entry.name]


def _frame(rng: random.Random, entry: Entry, table: RuleTable, version: int) -> bytes:
    """One frame of the entry's own and neighbouring values."""
    inbound = entry.direction is Direction.INGRESS
    usual = [int(ip_address(text)) for text in USUAL_SOURCES[version]]
    mine = [int(ip_address(ME[version]))]
    source = _address(rng, entry.source, table, version, usual if inbound else mine)
    destination = _address(rng, entry.destination, table, version, mine if inbound else usual)
    protocol = _protocol(rng, entry, table, version)
    ports = tuple(_port(rng, match, table) for match in (entry.source, entry.destination))
    octets = _transport(rng, entry, protocol, source, destination, (ports[0], ports[1]))
    if version == 6:
        return ethernet(ipv6(octets, source=source, destination=destination, next_header=protocol), 0x86DD)
    return ethernet(ipv4(octets, source=source, destination=destination, protocol=protocol), 0x0800)


def _transport(
    rng: random.Random, entry: Entry, protocol: int, source: str, destination: str, ports: tuple[int, int]
) -> bytes:
    octets = segment(protocol, source, destination, ports, b"")
    if protocol in (ICMP, ICMPV6):
        octets = bytes(_icmp(rng, entry)) + octets[2:]
    return octets[: rng.randrange(len(octets) + 1)] if rng.randrange(12) == 0 else octets


def _address(rng: random.Random, match: AddressMatch, table: RuleTable, version: int, usual: Values) -> str:
    """An edge of one of the match's nets, or an address just outside it, or a usual one."""
    nets = [
        (int(net.network_address), net.prefixlen) for net in (*match.nets, *match.not_nets) if net.version == version
    ]
    for name in filter(None, (match.ip_set, match.not_ip_set)):
        members = [net for net in table.sets[name].nets if net.version == version]
        nets += [(int(net.network_address), net.prefixlen) for net in rng.sample(members, min(4, len(members)))]
    bits = 32 if version == 4 else 128
    edges = [value for first, length in nets for value in _around(first, first + (1 << (bits - length)) - 1)]
    edges += [
        int(address)
        for name in (*match.named_ports, *match.not_named_ports)
        for address, _ in table.port_sets[name].members
        if address.version == version
    ]
    value = rng.choice([*edges, *usual]) if rng.randrange(3) else rng.choice(usual)
    value = min(max(value, 0), LAST_ADDRESS[version])
    return str(IPv4Address(value) if version == 4 else IPv6Address(value))


def _protocol(rng: random.Random, entry: Entry, table: RuleTable, version: int) -> int:
    wanted = [entry.protocol] if entry.protocol is not None else [6, 17]
    for match in (entry.source, entry.destination):
        wanted += [table.port_sets[name].protocol for name in (*match.named_ports, *match.not_named_ports)]
    unwanted = [entry.not_protocol] if entry.not_protocol is not None else []
    usual = [6, 17, 132, ICMP if version == 4 else ICMPV6, 253]
    return rng.choice(usual + unwanted) if rng.randrange(6) == 0 else rng.choice(wanted)


def _port(rng: random.Random, match: AddressMatch, table: RuleTable) -> int:
    edges = [edge for item in (*match.ports, *match.not_ports) for edge in _port_edges(item)]
    named = (*match.named_ports, *match.not_named_ports)
    edges += [port + off for name in named for _, port in table.port_sets[name].members for off in (-1, 0, 0, 1)]
    return min(max(rng.choice(edges or PORTS), 0), 0xFFFF)


def _port_edges(item: PortRange) -> Iterable[int]:
    return _around(item.first, item.last)


def _around(first: int, last: int) -> tuple[int, ...]:
    return (first - 1, first, last, last + 1)


def _icmp(rng: random.Random, entry: Entry) -> tuple[int, int]:
    wanted = [icmp for icmp in (entry.icmp, entry.not_icmp) if icmp is not None and icmp.type is not None]
    chosen = rng.choice(wanted) if wanted else IcmpMatch(8, 0)
    kind, code = chosen.type or 0, chosen.code or 0
    return (kind + rng.choice((0, 0, 0, 1))) % 256, (code + rng.choice((0, 0, 1))) % 256
