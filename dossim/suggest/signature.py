"""Signatures: what many packets of an attack have in common and one rule can match on, such as UDP from port 53."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dossim.packet.fields import ICMP, ICMPV6, SCTP, TCP, UDP
from dossim.suggest.traffic import NONE, Bool, Traffic
from enforcer.model.vocabulary import Side

MOST = 16  # signatures of one attack: a bit each
_LEAST_SHARE = 0.01  # of the attack's packets
_CANDIDATES = 20  # of each kind that are weighed against the baseline

_NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP", ICMP: "ICMP", ICMPV6: "ICMPv6"}


@dataclass(frozen=True, order=True)
class Signature:
    """``value``: a port on this side of the packet, or without a side an ICMP type."""

    protocol: int
    side: Side | None
    value: int

    def __str__(self) -> str:
        name = _NAMES[self.protocol]
        if self.side is None:
            return f"{name} type {self.value}"
        return f"{name} {'from' if self.side is Side.SOURCE else 'to'} port {self.value}"

    @property
    def name(self) -> str:
        """As part of a resource's name."""
        return f"{_NAMES[self.protocol]}-{self.side or 'type'}-{self.value}".lower()

    @property
    def protocol_name(self) -> str:
        return _NAMES[self.protocol]

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions that its packets have."""
        return {ICMP: (4,), ICMPV6: (6,)}.get(self.protocol, (4, 6))

    def matches(self, traffic: Traffic) -> Bool:
        """bool[N]"""
        port = traffic.destination_port if self.side is Side.DESTINATION else traffic.value
        found = (traffic.protocol == self.protocol) & (port == self.value)
        if len(self.families) == 1:
            found &= traffic.is_six == (self.families == (6,))
        return np.asarray(found, np.bool_)


def signatures(attack: Traffic, baseline: Traffic) -> tuple[Signature, ...]:
    """The most telling first: of what is left of the attack, the one with the largest share beyond its share of the
    baseline.
    """
    left = np.ones(len(attack), np.bool_)
    found: list[Signature] = []
    least = max(1, int(_LEAST_SHARE * len(attack)))
    while len(found) < MOST:
        rest = attack.where(left)
        weighed = [
            (packets / len(attack) - _share(item, baseline), item)
            for item, packets in _candidates(rest)
            if packets >= least
        ]
        gain, best = max(weighed, key=lambda each: (each[0], _order(each[1])), default=(0.0, None))
        if best is None or gain <= 0:
            break
        found.append(best)
        left &= ~best.matches(attack)
    return tuple(found)


def _order(item: Signature) -> tuple[int, int, int]:
    """Among equals, source ports first: a reflector's says what it is."""
    return (item.side is Side.SOURCE, -item.protocol, -item.value)


def _share(item: Signature, traffic: Traffic) -> float:
    return int(item.matches(traffic).sum()) / len(traffic) if len(traffic) else 0.0


def _candidates(traffic: Traffic) -> Iterator[tuple[Signature, int]]:
    """With their number of packets."""
    for protocol in _NAMES:
        mine = traffic.protocol == protocol
        is_icmp = protocol in (ICMP, ICMPV6)
        yield from _most(protocol, None if is_icmp else Side.SOURCE, traffic.value[mine])
        if not is_icmp:
            yield from _most(protocol, Side.DESTINATION, traffic.destination_port[mine])


def _most(protocol: int, side: Side | None, values: np.ndarray) -> Iterator[tuple[Signature, int]]:
    counts = np.bincount(values[values != NONE])
    for value in np.argsort(-counts, kind="stable")[:_CANDIDATES].tolist():
        if counts[value]:
            yield Signature(protocol, side, value), int(counts[value])
