"""Random CIDRs and sources, the same for the same seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from enforcer.model.nets import Nets

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

POOL = 65_536  # distinct sources a measurement sends from
# Mixed /16 to /32, mostly /24 and longer: shares of a hundred.
_LENGTHS4 = np.arange(16, 33)
_SHARES4 = np.array([1, 1, 1, 1, 2, 2, 3, 5, 30, 5, 5, 5, 5, 5, 5, 5, 19]) / 100
_LENGTHS6 = np.array([32, 36, 40, 44, 48, 52, 56, 60, 64, 128])
_SHARES6 = np.array([5, 3, 5, 5, 25, 5, 12, 10, 25, 5]) / 100
_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def nets4(count: int, seed: int = 1) -> Nets:
    """Distinct IPv4 CIDRs all over the unicast space but 0/8."""
    rng = np.random.default_rng(seed)
    length = rng.choice(_LENGTHS4, count + count // 8 + 8, p=_SHARES4).astype(np.uint8)
    address = rng.integers(1 << 24, 224 << 24, len(length), dtype=np.uint64)
    network = (address & (_ALL << (np.uint64(32) - length))).astype(np.uint32)
    nets = Nets.union([Nets(network, length), Nets()])
    keep = np.sort(rng.permutation(len(nets.net4))[:count])
    return Nets(nets.net4[keep], nets.len4[keep])


def nets6(count: int, seed: int = 1, *, clustered: bool = False) -> Nets:
    """Distinct IPv6 CIDRs in 2000::/3, or all in 2001:db8::/32."""
    rng = np.random.default_rng(seed)
    lengths, shares = (_LENGTHS6[4:], _SHARES6[4:] / _SHARES6[4:].sum()) if clustered else (_LENGTHS6, _SHARES6)
    length = rng.choice(lengths, count + count // 8 + 8, p=shares).astype(np.uint8)
    free = np.uint64((1 << 32) - 1 if clustered else (1 << 61) - 1)
    high = (rng.integers(0, 1 << 63, len(length), dtype=np.uint64) << _ONE) & free
    high |= np.uint64(0x20010DB8 << 32 if clustered else 1 << 61)
    kept = np.where(length < 64, _ALL << (np.uint64(64) - np.minimum(length, 64)).astype(np.uint64), _ALL)
    low = np.where(length == 128, rng.integers(0, 1 << 63, len(length), dtype=np.uint64), np.uint64(0))
    nets = Nets.union([Nets(net6=np.column_stack([high & kept, low]), len6=length), Nets()])
    keep = np.sort(rng.permutation(len(nets.net6))[:count])
    return Nets(net6=nets.net6[keep], len6=nets.len6[keep])


def sources4(nets: Nets, seed: int = 2) -> U32:
    """Addresses within the CIDRs, each CIDR as often as any other."""
    rng = np.random.default_rng(seed)
    at = rng.integers(0, len(nets.net4), POOL)
    host = rng.integers(0, 1 << 32, POOL, dtype=np.uint64)
    hosts = (_ONE << (np.uint64(32) - nets.len4[at].astype(np.uint64))) - _ONE
    return nets.net4[at] | (host & hosts).astype(np.uint32)


def sources6(nets: Nets, seed: int = 2) -> U64:
    """The same for IPv6: uint64[POOL, 2]."""
    rng = np.random.default_rng(seed)
    at = rng.integers(0, len(nets.net6), POOL)
    length = nets.len6[at].astype(np.uint64)
    host = rng.integers(0, 1 << 63, (POOL, 2), dtype=np.uint64)
    mask = np.where(length < 64, (_ONE << (np.uint64(64) - np.minimum(length, np.uint64(63)))) - _ONE, np.uint64(0))
    low = np.where(length == 128, np.uint64(0), _ALL)
    return np.column_stack([nets.net6[at, 0] | (host[:, 0] & mask), nets.net6[at, 1] | (host[:, 1] & low)])


def misses4(nets: Nets, seed: int = 3) -> U32:
    """Addresses that none of the CIDRs holds."""
    rng = np.random.default_rng(seed)
    found = np.empty(0, np.uint32)
    while len(found) < POOL:
        more = rng.integers(1 << 24, 224 << 24, POOL, dtype=np.uint64).astype(np.uint32)
        found = np.concatenate([found, more[~nets.contains4(more)]])
    return found[:POOL]
