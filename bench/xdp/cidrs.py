"""Lists of CIDRs and the sources that hit or miss them: random, spread out, and the same for the same seed. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from enforcer.policy.nets import Nets

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

POOL = 65_536
"""Distinct sources of a measurement."""

# Prefix length -> share. Mostly /24 to /32; wide ones are rare, so that a million CIDRs leave most addresses unlisted.
_SHARES4 = {16: 1, 17: 1, 18: 1, 19: 2, 20: 10, 21: 10, 22: 20, 23: 25, 24: 450, **dict.fromkeys(range(25, 32), 23), 32: 319}
_SHARES6 = {32: 20, 36: 20, 40: 40, 44: 50, 48: 300, 52: 40, 56: 150, 60: 40, 64: 290, 128: 50}
_CLUSTER_SHARES6 = {length: share for length, share in _SHARES6.items() if length >= 44}
_CLUSTER = 0x20010DB8  # RFC 3849
_SIXTEEN = 16  # the first IPv4 CIDR's length: it holds POOL addresses by itself


def nets4(count: int, seed: int = 1) -> Nets:
    """Distinct IPv4 CIDRs all over the unicast space (1/8 to 223/8 without 127/8), a /16 among them."""
    return _collect(count, _draw4, np.random.default_rng(seed))


def nets6(count: int, seed: int = 1, *, clustered: bool = False) -> Nets:
    """Distinct IPv6 CIDRs in 2000::/3, or all of them in 2001:db8::/32."""
    return _collect(count, _clustered6 if clustered else _spread6, np.random.default_rng(seed))


def hits4(nets: Nets, seed: int = 2, count: int = POOL) -> U32:
    """That many distinct listed addresses, in random order. Every CIDR gives as many as any other, if it has them."""
    rng = np.random.default_rng(seed)
    first, last = (item.astype(np.uint64) for item in nets.intervals4)
    quota = _quotas(last - first + np.uint64(1), count, rng)
    chosen = np.repeat(np.arange(len(first)), quota)
    turn = np.arange(count) - np.repeat(np.cumsum(quota) - quota, quota)
    size = (last - first + np.uint64(1))[chosen]
    # Spread evenly from a random start, so that they are distinct: start + turn * (size // quota), around the interval.
    step = np.maximum(size // np.maximum(quota, 1).astype(np.uint64)[chosen], np.uint64(1))
    start = rng.integers(0, 1 << 32, len(first), dtype=np.uint64)[chosen]
    found = first[chosen] + (start + turn.astype(np.uint64) * step) % size
    return rng.permutation(found.astype(np.uint32))


def hits6(nets: Nets, seed: int = 2, count: int = POOL) -> U64:
    """Listed addresses as ``uint64[count, 2]``: of each CIDR as many as of any other, their host bits random."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.arange(count) % len(nets.net6))
    chosen = rng.permutation(len(nets.net6))[:count] if len(nets.net6) >= count else chosen
    host = _host_masks6(nets.len6)[chosen]
    return nets.net6[chosen] | (_random64(rng, (count, 2)) & host)


def misses4(nets: Nets, seed: int = 3, count: int = POOL) -> U32:
    """Distinct unicast addresses that no CIDR holds."""
    rng = np.random.default_rng(seed)
    found = np.empty(0, np.uint32)
    while len(found) < count:
        drawn = rng.integers(1 << 24, 224 << 24, 4 * count, dtype=np.uint64).astype(np.uint32)
        drawn = drawn[(drawn >> np.uint32(24) != 127) & ~nets.contains4(drawn)]
        found = rng.permutation(np.unique(np.concatenate([found, drawn])))
    return found[:count]


def near_misses4(nets: Nets, seed: int = 3, count: int = POOL) -> U32:
    """Like :func:`misses4`, each with a listed CIDR in its own /16: no lookup may stop after 16 bits."""
    rng = np.random.default_rng(seed)
    found = np.empty(0, np.uint32)
    for _ in range(64):
        drawn = nets.net4[rng.integers(0, len(nets.net4), 4 * count)] & np.uint32(0xFFFF0000)
        drawn |= rng.integers(0, 1 << 16, 4 * count, dtype=np.uint64).astype(np.uint32)
        found = rng.permutation(np.unique(np.concatenate([found, drawn[~nets.contains4(drawn)]])))
        if len(found) >= count:
            return found[:count]
    return np.resize(found, count) if len(found) else found


def misses6(nets: Nets, seed: int = 3, count: int = POOL, *, clustered: bool = False) -> U64:
    """Addresses of 2000::/3, or of 2001:db8::/32, that no CIDR holds."""
    rng = np.random.default_rng(seed)
    found = np.empty((0, 2), np.uint64)
    while len(found) < count:
        drawn = _random64(rng, (2 * count, 2))
        drawn[:, 0] = _within6(drawn[:, 0], clustered=clustered)
        found = np.concatenate([found, drawn[~nets.contains6(drawn[:, 0], drawn[:, 1])]])
    return found[:count]


def _collect(count: int, draw: Callable[[int, np.random.Generator], Nets], rng: np.random.Generator) -> Nets:
    """Exactly ``count`` distinct CIDRs, the first drawn always among them."""
    drawn = draw(count, rng)
    while len(distinct := Nets.union([drawn, Nets()])) < count:
        more = draw(max(64, count // 8), rng)
        drawn = Nets(
            np.concatenate([drawn.net4, more.net4]),
            np.concatenate([drawn.len4, more.len4]),
            np.concatenate([drawn.net6, more.net6]),
            np.concatenate([drawn.len6, more.len6]),
        )
    surplus = len(distinct) - count
    if not surplus:
        return distinct
    widest = int(np.argmin(distinct.len4)) if len(distinct.net4) else 0
    others = np.delete(np.arange(len(distinct)), widest)
    keep = np.sort(np.append(rng.permutation(others)[: count - 1], widest))
    if len(distinct.net4):
        return Nets(distinct.net4[keep], distinct.len4[keep])
    return Nets(net6=distinct.net6[keep], len6=distinct.len6[keep])


def _draw4(count: int, rng: np.random.Generator) -> Nets:
    length = _lengths(_SHARES4, count, rng)
    length[0] = _SIXTEEN
    address = rng.integers(1 << 24, 224 << 24, count, dtype=np.uint64)
    address = np.where(address >> np.uint64(24) == 127, address ^ np.uint64(64 << 24), address)  # 127/8 -> 63/8
    shift = np.uint64(32) - length
    return Nets((address >> shift << shift).astype(np.uint32), length)


def _spread6(count: int, rng: np.random.Generator) -> Nets:
    return _draw6(count, rng, _SHARES6, clustered=False)


def _clustered6(count: int, rng: np.random.Generator) -> Nets:
    return _draw6(count, rng, _CLUSTER_SHARES6, clustered=True)


def _draw6(count: int, rng: np.random.Generator, shares: dict[int, int], *, clustered: bool) -> Nets:
    length = _lengths(shares, count, rng)
    address = _random64(rng, (count, 2))
    address[:, 0] = _within6(address[:, 0], clustered=clustered)
    return Nets(net6=address & ~_host_masks6(length), len6=length)


def _within6(high: U64, *, clustered: bool) -> U64:
    if clustered:
        return high & np.uint64(0xFFFFFFFF) | np.uint64(_CLUSTER << 32)
    return high >> np.uint64(3) | np.uint64(1 << 61)


def _lengths(shares: dict[int, int], count: int, rng: np.random.Generator) -> U8:
    weights = np.array(list(shares.values()), float)
    return rng.choice(np.array(list(shares), np.uint8), count, p=weights / weights.sum())


def _host_masks6(length: U8) -> U64:
    """The host bits of prefixes, as two halves each."""
    masks = [((1 << (128 - bits)) - 1) if bits < 129 else 0 for bits in range(129)]
    table = np.array([[mask >> 64, mask & 0xFFFFFFFFFFFFFFFF] for mask in masks], np.uint64)
    return np.asarray(table[length], np.uint64)


def _random64(rng: np.random.Generator, shape: tuple[int, int]) -> U64:
    return rng.integers(0, 1 << 64, shape, dtype=np.uint64)


def _quotas(sizes: U64, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How many addresses each interval gives: ``count`` in all, evenly, none more than it has."""
    left, quota = count, np.zeros(len(sizes), np.int64)
    room = np.minimum(sizes, np.uint64(count)).astype(np.int64)
    while left:
        open_ = np.flatnonzero(room > quota)
        assert len(open_), "the list holds too few addresses"
        share = left // len(open_)
        if share:
            more = np.minimum(room[open_] - quota[open_], share)
        else:
            open_ = rng.permutation(open_)[:left]
            more = np.ones(len(open_), np.int64)
        quota[open_] += more
        left -= int(more.sum())
    return quota
