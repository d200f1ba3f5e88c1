"""The expected content of the address tables, computed address by address with ``ipaddress``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.tables.classes import Segments4, Segments6
from enforcer.model.nets import Nets

Net = IPv4Network | IPv6Network
LOW = (1 << 64) - 1


def members_of(atoms: Mapping[str, Nets], address: int, bits: int) -> frozenset[str]:
    kind = IPv4Address if bits == 32 else IPv6Address
    nets = {name: [net for net in item if net.max_prefixlen == bits] for name, item in atoms.items()}
    return frozenset(name for name, items in nets.items() if any(kind(address) in net for net in items))


def edges(nets: Iterable[Net], bits: int) -> list[int]:
    """Addresses where the result can change, and adjacent ones."""
    found = {0, (1 << bits) - 1}
    for net in nets:
        if net.max_prefixlen == bits:
            first, last = int(net.network_address), int(net.broadcast_address)
            found |= {first - 1, first, first + 1, last - 1, last, last + 1}
    return sorted(address for address in found if 0 <= address < 1 << bits)


def edges_of(atoms: Mapping[str, Nets], bits: int) -> list[int]:
    return edges([net for nets in atoms.values() for net in nets], bits)


def array4(addresses: Iterable[int]) -> npt.NDArray[np.uint32]:
    return np.array(list(addresses), np.uint32)


def arrays6(addresses: Iterable[int]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    values = list(addresses)
    return np.array([value >> 64 for value in values], np.uint64), np.array([v & LOW for v in values], np.uint64)


def starts_of(segments: Segments4 | Segments6) -> list[int]:
    if isinstance(segments, Segments4):
        return [int(start) for start in segments.start]
    return [int(high) << 64 | int(low) for high, low in zip(segments.high, segments.low, strict=True)]


def assert_canonical(segments: Segments4 | Segments6) -> None:
    starts = starts_of(segments)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert (segments.cls[1:] != segments.cls[:-1]).all()


def class_at(segments: Segments4 | Segments6, address: int) -> int:
    starts = starts_of(segments)
    return int(segments.cls[max(at for at, start in enumerate(starts) if start <= address)])


def same(one: Segments4 | Segments6, two: Segments4 | Segments6) -> bool:
    return starts_of(one) == starts_of(two) and np.array_equal(one.cls, two.cls)
