"""The canonical form of a list: the fewest networks with the same addresses, without those that are protected. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from enforcer.lists.entry import BITS, Network, covering

FAMILIES = (4, 6)


@dataclass(frozen=True)
class Protected:
    """A network that is never denied, and what it is, such as "an address of HostEndpoint jasper-eth0"."""

    network: Network
    what: str


@dataclass(frozen=True)
class Taken:
    """A network of a list that was left out, wholly or partly, because of something protected."""

    network: Network
    because: Protected


@dataclass(frozen=True)
class Size:
    """How much a list denies. ``addresses4``: of IPv4; ``networks6``: of IPv6, in /64 (the network of one link)."""

    cidrs: int = 0
    addresses4: int = 0
    networks6: int = 0


def aggregated(networks: Iterable[Network]) -> list[Network]:
    """The fewest networks with the same addresses: IPv4 first, each family in order."""
    rows = sorted(set(networks))
    found: list[Network] = []
    for version, value, length in rows:
        if found and found[-1][0] == version and _contains(found[-1], value):
            continue
        found.append((version, value, length))
        while len(found) > 1 and (both := _joined(found[-2], found[-1])) is not None:
            found[-2:] = [both]
    return found


def _contains(network: Network, value: int) -> bool:
    version, begin, length = network
    return (value ^ begin) >> (BITS[version] - length) == 0


def _joined(one: Network, other: Network) -> Network | None:
    """The network whose two halves these are."""
    version, value, length = one
    if length == 0 or other != (version, value | 1 << (BITS[version] - length), length) or other == one:
        return None
    return version, value, length - 1


def without(networks: Sequence[Network], protected: Iterable[Protected]) -> tuple[list[Network], list[Taken]]:
    """The networks without the protected ones; a network that is partly protected is split. And what was left out,
    because of the widest protected network that is in it or around it.
    """
    holes = {version: _Holes(version, protected) for version in FAMILIES}
    kept: list[Network] = []
    taken: list[Taken] = []
    for network in networks:
        hit = holes[network[0]].in_(network)
        taken += [Taken(network, item) for item in hit]
        kept += _rest(network, hit) if hit else [network]
    return kept, taken


class _Holes:
    """The protected networks of a family that are in no other: they do not overlap. Of equal ones the first counts."""

    def __init__(self, version: int, protected: Iterable[Protected]) -> None:
        self._items: list[Protected] = []
        for item in sorted((item for item in protected if item.network[0] == version), key=lambda item: item.network):
            if not (self._items and _contains(self._items[-1].network, item.network[1])):
                self._items.append(item)
        self._firsts = [item.network[1] for item in self._items]

    def in_(self, network: Network) -> list[Protected]:
        """Those that have addresses of the network, in order."""
        begin, end = _ends(network)
        first, last = bisect_right(self._firsts, begin), bisect_right(self._firsts, end)
        around = first > 0 and _ends(self._items[first - 1].network)[1] >= begin
        return self._items[first - around : last]


def size_of(networks: Iterable[Network]) -> Size:
    """Of networks that do not overlap."""
    cidrs = addresses4 = networks6 = 0
    for version, _, length in networks:
        cidrs += 1
        if version == 4:
            addresses4 += 1 << (32 - length)
        else:
            networks6 += 1 << max(0, 64 - length)
    return Size(cidrs, addresses4, networks6)


def _ends(network: Network) -> tuple[int, int]:
    version, value, length = network
    return value, value + (1 << (BITS[version] - length)) - 1


def _rest(network: Network, holes: Iterable[Protected]) -> Iterator[Network]:
    """The parts of a network outside of the holes, which are in order and do not overlap."""
    begin, end = _ends(network)
    for item in holes:
        first, last = _ends(item.network)
        yield from covering(network[0], begin, first - 1)
        begin = last + 1
    yield from covering(network[0], begin, end)
