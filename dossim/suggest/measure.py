"""What a list denies: counted in a tally, packet for packet, whatever overlaps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dossim.suggest.signature import Signature
from dossim.suggest.tally import FAMILIES, Ranges, Tally, network_of, range_of
from dossim.suggest.traffic import Bool
from enforcer.model.nets import IPNetwork

SPREAD = {4: 0, 6: 3}  # the prefix length over which an even spread of addresses is spread: 2000::/3


@dataclass(frozen=True)
class Rule:
    """Denies packets of a signature, or all packets if that is None, from these networks. ``anywhere``: of these IP
    versions from everywhere but what is protected.
    """

    signature: Signature | None
    nets: tuple[IPNetwork, ...] = ()
    anywhere: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """What it takes of a budget."""
        return len(self.nets) + len(self.anywhere)

    @cached_property
    def ranges(self) -> Ranges:
        return Ranges(self.nets)


@dataclass(frozen=True)
class Suggested:
    """``signatures``: those that the bits of a tally's mask mean. ``protected``: what rules for all
    sources leave out.
    """

    rules: tuple[Rule, ...]
    signatures: tuple[Signature, ...]
    protected: Ranges

    @property
    def size(self) -> int:
        return sum(rule.size for rule in self.rules)

    def denies(self, tally: Tally) -> Bool:
        """Which rows."""
        found = np.zeros(len(tally.key), np.bool_)
        for rule in self.rules:
            found |= self._matches(rule, tally)
        return found

    def _matches(self, rule: Rule, tally: Tally) -> Bool:
        mine = rule.ranges.contain(tally.is_six, tally.key)
        if rule.anywhere:
            is_protected = self.protected.contain(tally.is_six, tally.key)
            mine |= ~is_protected & np.isin(tally.is_six, [version == 6 for version in rule.anywhere])
        if rule.signature is not None:
            mine &= tally.mask >> np.uint32(self.signatures.index(rule.signature)) & np.uint32(1) > 0
        return mine


@dataclass(frozen=True)
class Point:
    """What the best list of one size does. ``blocked``, ``collateral``: packets of the attack and of the baseline.
    ``share``: of the baseline, or without one of all addresses, that the list denies.
    """

    size: int
    blocked: int
    collateral: int
    share: float


def point(suggested: Suggested, attack: Tally, baseline: Tally | None) -> Point:
    denied = attack.count(suggested.denies(attack))
    if baseline is None:
        return Point(suggested.size, denied, 0, share_of_addresses(suggested))
    collateral = baseline.count(suggested.denies(baseline))
    return Point(suggested.size, denied, collateral, collateral / baseline.total)


def share_of_addresses(suggested: Suggested) -> float:
    """Of all addresses of the family of which more are denied."""
    shares = dict.fromkeys(FAMILIES, 0.0)
    for rule in suggested.rules:
        for net in rule.nets:
            shares[net.version] += 2.0 ** (SPREAD[net.version] - net.prefixlen)
        for version in rule.anywhere:
            shares[version] = 1.0
    return max(shares.values())


@dataclass(frozen=True)
class Costly:
    """A part of the list with customers in it: up to three, those with most packets, and how many there are."""

    rule: Rule
    net: IPNetwork | None  # None: anywhere
    blocked: int
    collateral: int
    customers: tuple[tuple[IPNetwork, int], ...]
    others: int


def costly(suggested: Suggested, attack: Tally, baseline: Tally, most: int) -> list[Costly]:
    """The parts of the list with most collateral, of those that have any."""
    found: list[tuple[int, Rule, IPNetwork | None, Tally]] = []
    for rule in suggested.rules:
        hit = _denied(suggested, rule, baseline)
        for net in (*rule.nets, *([None] if rule.anywhere else [])) if len(hit.key) else ():
            rows = hit if net is None else hit.where(_within(hit, net))
            found += [(rows.total, rule, net, rows)] if rows.total else []
    worst = sorted(found, key=lambda item: (-item[0], str(item[1].signature), str(item[2])))[:most]
    return [_costly(rule, net, rows, _denied(suggested, rule, attack)) for _, rule, net, rows in worst]


_SHOWN = 3


def _denied(suggested: Suggested, rule: Rule, tally: Tally) -> Tally:
    return tally.where(Suggested((rule,), suggested.signatures, suggested.protected).denies(tally))


def _costly(rule: Rule, net: IPNetwork | None, rows: Tally, denied: Tally) -> Costly:
    blocked = denied if net is None else denied.where(_within(denied, net))
    return Costly(rule, net, blocked.total, rows.total, *_customers(rows))


def _within(tally: Tally, net: IPNetwork) -> Bool:
    first, last = range_of(net)
    inside = (tally.key >= np.uint64(first)) & (tally.key <= np.uint64(last))
    return np.asarray(inside & (tally.is_six == (net.version == 6)), np.bool_)


def _customers(rows: Tally) -> tuple[tuple[tuple[IPNetwork, int], ...], int]:
    sources, which = np.unique(np.stack([rows.is_six.astype(np.uint64), rows.key]), axis=1, return_inverse=True)
    packets = np.bincount(which.ravel(), weights=rows.packets).astype(np.int64)
    order = np.argsort(-packets, kind="stable")[:_SHOWN]
    shown = [
        (
            network_of(6, int(sources[1, at]), 64) if sources[0, at] else network_of(4, int(sources[1, at]), 32),
            int(packets[at]),
        )
        for at in order
    ]
    return tuple(shown), len(packets) - len(shown)


def busiest(attack: Tally, protected: Ranges, length: int, size: int) -> Suggested:
    """What is often done instead: the IPv4 networks of this length with most packets of the attack."""
    mine = attack.where(~attack.is_six & ~protected.contain(attack.is_six, attack.key))
    shift = np.uint64(64 - length)
    nets = mine.key >> shift
    first = np.flatnonzero(np.concatenate([[True], nets[1:] != nets[:-1]])) if len(nets) else np.zeros(0, np.int64)
    packets = np.add.reduceat(mine.packets, first) if len(first) else first
    chosen = nets[first[np.argsort(-packets, kind="stable")[:size]]] << shift
    return Suggested((Rule(None, tuple(network_of(4, int(key), length) for key in chosen)),), (), protected)
