"""Nets: a canonical, immutable set of CIDRs of both families, packed for millions of them.

IPv4 prefixes are two numpy arrays (network as uint32 in host order, length as uint8); IPv6 prefixes an ``(n, 2)``
uint64 array (high and low half) and lengths. Both are sorted by (network, length) and free of duplicates; covered
prefixes are kept, because an operator who lists both wants both listed. Membership is a search in merged intervals.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np
import numpy.typing as npt

from enforcer.model.cidr_text import LONGEST, masks6, parse4

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]

_LOW = (1 << 64) - 1
_COLUMNS_FROM = 64  # CIDRs: below it, parsing one by one is faster
_MAPPED, _IPV4 = 0xFFFF, (1 << 32) - 1  # the 96 bits before an IPv4-mapped address, and those that it has


def parse_cidr(text: str) -> tuple[int, int, int]:
    """``(version, network, prefix length)`` of a CIDR or bare address; host bits are masked off, as Calico's sets do.

    An IPv4-mapped address (``::ffff:203.0.113.9``, as dual-stack daemons log them) is the IPv4 address, as Go reads it.
    Raises ValueError with what was found when the text is neither.
    """
    address, slash, length_text = text.partition("/")
    version = 6 if ":" in address else 4
    family, bits = (socket.AF_INET6, 128) if version == 6 else (socket.AF_INET, 32)
    try:
        value = int.from_bytes(socket.inet_pton(family, address), "big")
    except (OSError, ValueError):  # ValueError: NUL or other characters that no address has
        raise ValueError(f"expected an IP address or CIDR, found {text!r}") from None
    mapped = version == 6 and value >> 32 == _MAPPED
    if not slash:
        return (4, value & _IPV4, 32) if mapped else (version, value, bits)
    if not (length_text.isascii() and length_text.isdigit() and len(length_text) <= 3) or int(length_text) > bits:
        raise ValueError(f"expected a prefix length of 0..{bits}, found {length_text!r} in {text!r}")
    length = int(length_text)
    if mapped and length >= 96:
        version, value, bits, length = 4, value & _IPV4, 32, length - 96
    return version, value >> (bits - length) << (bits - length), length


class Nets:
    """A set of CIDRs. Build with :meth:`of`; combine with ``|``."""

    __slots__ = ("__dict__", "len4", "len6", "net4", "net6")

    def __init__(
        self, net4: U32 | None = None, len4: U8 | None = None, net6: U64 | None = None, len6: U8 | None = None
    ) -> None:
        self.net4: U32 = np.empty(0, np.uint32) if net4 is None else net4
        self.len4: U8 = np.empty(0, np.uint8) if len4 is None else len4
        self.net6: U64 = np.empty((0, 2), np.uint64) if net6 is None else net6
        self.len6: U8 = np.empty(0, np.uint8) if len6 is None else len6

    @classmethod
    def of(cls, cidrs: Iterable[str | IPv4Network | IPv6Network | IPv4Address | IPv6Address]) -> Nets:
        """The set of these CIDRs. Raises ValueError naming the first text that is none."""
        texts = [str(item) for item in cidrs]
        if len(texts) < _COLUMNS_FROM:
            return cls._in_order(sorted({parse_cidr(text) for text in texts}))
        lines = "\n".join(texts)
        if not lines.isascii() or lines.count("\n") != len(texts) - 1:
            return cls.of_rows([cls._in_order(map(parse_cidr, texts))])
        buffer = np.frombuffer(lines.encode() + b"\n" + bytes(LONGEST), np.uint8)
        breaks = np.flatnonzero(buffer == ord("\n"))
        good, network, length, behind = parse4(buffer, np.append(0, breaks[:-1] + 1))
        good &= behind == breaks
        others = cls._in_order(parse_cidr(texts[at]) for at in np.flatnonzero(~good).tolist())
        return cls.of_rows([cls(network[good], length[good]), others])

    @classmethod
    def _in_order(cls, prefixes: Iterable[tuple[int, int, int]]) -> Nets:
        """These prefixes, of each family in the order given."""
        four: list[tuple[int, int]] = []
        six: list[tuple[int, int, int]] = []
        for version, network, length in prefixes:
            if version == 4:
                four.append((network, length))
            else:
                six.append((network >> 64, network & _LOW, length))
        v4, v6 = np.array(four, np.int64).reshape(-1, 2), np.array(six, np.uint64).reshape(-1, 3)
        return cls(v4[:, 0].astype(np.uint32), v4[:, 1].astype(np.uint8), v6[:, :2].copy(), v6[:, 2].astype(np.uint8))

    def __or__(self, other: Nets) -> Nets:
        return Nets.union([self, other])

    @classmethod
    def union(cls, parts: Iterable[Nets]) -> Nets:
        """All CIDRs of all parts."""
        parts = list(parts)
        if len(parts) == 1:
            return parts[0]
        return cls.of_rows(parts)

    @classmethod
    def of_rows(cls, parts: Iterable[Nets]) -> Nets:
        """All CIDRs of all parts, which may be in any order and have duplicates."""
        parts = list(parts)
        return cls(
            *_distinct4([part for part in parts if len(part.net4)]),
            *_distinct6([part for part in parts if len(part.net6)]),
        )

    def __len__(self) -> int:
        return len(self.net4) + len(self.net6)

    def __iter__(self) -> Iterator[IPv4Network | IPv6Network]:
        for net, length in zip(self.net4.tolist(), self.len4.tolist(), strict=True):
            yield IPv4Network((net, length))
        for (high, low), length in zip(self.net6.tolist(), self.len6.tolist(), strict=True):
            yield IPv6Network((high << 64 | low, length))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Nets):
            return NotImplemented
        return (
            np.array_equal(self.net4, other.net4)
            and np.array_equal(self.len4, other.len4)
            and np.array_equal(self.net6, other.net6)
            and np.array_equal(self.len6, other.len6)
        )

    def __hash__(self) -> int:
        return hash((self.net4.tobytes(), self.len4.tobytes(), self.net6.tobytes(), self.len6.tobytes()))

    def __repr__(self) -> str:
        shown = ", ".join(str(net) for net, _ in zip(self, range(4), strict=False))
        more = f", ... {len(self)} in all" if len(self) > 4 else ""
        return f"Nets({shown}{more})"

    @cached_property
    def intervals4(self) -> tuple[U32, U32]:
        """Disjoint, sorted ``(first, last)`` address arrays that cover exactly the IPv4 prefixes."""
        if not len(self.net4):
            return np.empty(0, np.uint32), np.empty(0, np.uint32)
        first = self.net4.astype(np.uint64)
        last = first + (np.uint64(1) << (np.uint64(32) - self.len4.astype(np.uint64))) - np.uint64(1)
        # Prefixes nest or are disjoint, so one starts a new interval when it begins after all earlier ones ended.
        ends = np.maximum.accumulate(last)
        starts = np.concatenate([[True], first[1:] > ends[:-1]])
        index = np.flatnonzero(starts)
        stop = np.concatenate([index[1:], [len(first)]]) - 1
        return first[index].astype(np.uint32), ends[stop].astype(np.uint32)

    @cached_property
    def ranges6(self) -> tuple[U64, U64]:
        """Like :attr:`intervals4` for IPv6, as rows of the high and the low half."""
        if not len(self.net6):
            return self.net6, self.net6
        first, last = self.net6, self.net6 | ~masks6(self.len6)
        begins = _is_after(first[1:], last[:-1])
        if begins.all():  # no prefix lies within the one before it, and so within none
            return first, last
        order = np.lexsort((last[:, 1], last[:, 0]))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        ends = last[order[np.maximum.accumulate(rank)]]
        index = np.flatnonzero(np.concatenate([[True], _is_after(first[1:], ends[:-1])]))
        stop = np.concatenate([index[1:], [len(first)]]) - 1
        return first[index], ends[stop]

    @cached_property
    def _intervals6(self) -> tuple[list[int], list[int]]:
        firsts, lasts = ([high << 64 | low for high, low in halves.tolist()] for halves in self.ranges6)
        return firsts, lasts

    @cached_property
    def intervals6(self) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.bytes_]]:
        """:attr:`ranges6` as 16-byte big-endian strings, which sort as the addresses do."""
        firsts, lasts = (halves.astype(">u8").view("S16").ravel() for halves in self.ranges6)
        return firsts, lasts

    def contains(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether one address is in the set."""
        return self.covering(address) is not None

    def covering(self, address: IPv4Address | IPv6Address) -> IPv4Network | IPv6Network | None:
        """The longest prefix of the set that contains the address, or None."""
        value = int(address)
        if isinstance(address, IPv4Address):
            for length in sorted(set(self.len4.tolist()), reverse=True):
                network = value >> (32 - length) << (32 - length)
                at = np.searchsorted(self.net4, np.uint32(network))
                while at < len(self.net4) and self.net4[at] == network:
                    if self.len4[at] == length:
                        return IPv4Network((network, length))
                    at += 1
            return None
        return max((net for net in self._networks6 if address in net), key=lambda net: net.prefixlen, default=None)

    def covers(self, network: IPv4Network | IPv6Network) -> bool:
        """Whether every address of the network is in the set."""
        firsts, lasts = self._intervals(network.version)
        wanted, end = int(network.network_address), int(network.broadcast_address)
        at = bisect_right(firsts, wanted) - 1
        while 0 <= at < len(firsts) and firsts[at] <= wanted <= lasts[at]:
            if lasts[at] >= end:
                return True
            wanted, at = lasts[at] + 1, at + 1
        return False

    def overlaps(self, network: IPv4Network | IPv6Network) -> bool:
        """Whether any address of the network is in the set."""
        firsts, lasts = self._intervals(network.version)
        at = bisect_right(firsts, int(network.broadcast_address)) - 1
        return at >= 0 and lasts[at] >= int(network.network_address)

    def _intervals(self, version: int) -> tuple[list[int], list[int]]:
        return self._intervals4 if version == 4 else self._intervals6

    @cached_property
    def _intervals4(self) -> tuple[list[int], list[int]]:
        first, last = self.intervals4
        return first.tolist(), last.tolist()

    @cached_property
    def _networks6(self) -> tuple[IPv6Network, ...]:
        return tuple(net for net in self if isinstance(net, IPv6Network))

    def contains4(self, addresses: U32) -> Bool:
        """Membership of many IPv4 addresses (uint32, host order)."""
        first, last = self.intervals4
        if not len(first):
            return np.zeros(len(addresses), np.bool_)
        at = np.searchsorted(first, addresses, side="right").astype(np.int64) - 1
        return np.asarray((at >= 0) & (addresses <= last[at]), np.bool_)

    def contains6(self, high: U64, low: U64) -> Bool:
        """Membership of many IPv6 addresses (two uint64 halves, host order)."""
        first, last = self.intervals6
        if not len(first):
            return np.zeros(len(high), np.bool_)
        # numpy compares S16 as if padded with NUL, so stripped trailing zero bytes do not disturb the order.
        keys = np.column_stack([high, low]).astype(">u8").view("S16").ravel()
        at = np.searchsorted(first, keys, side="right") - 1
        return np.asarray((at >= 0) & (keys <= last[at]), np.bool_)


def _is_after(halves: U64, others: U64) -> Bool:
    """Whether each address is larger than the other."""
    high, other = halves[:, 0], others[:, 0]
    return np.asarray((high > other) | (high == other) & (halves[:, 1] > others[:, 1]), np.bool_)


def _distinct4(parts: list[Nets]) -> tuple[U32 | None, U8 | None]:
    """The prefixes of all parts, which have some; None: no parts."""
    if not parts:
        return None, None
    # np.unique hashes and takes forty times as long on ten million rows.
    keys = np.concatenate([part.net4.astype(np.uint64) << np.uint64(8) | part.len4 for part in parts])
    keys.sort(kind="stable")  # a merge sort: the parts are sorted, most of them
    keys = keys[_firsts(len(keys), keys[1:] != keys[:-1])]
    return (keys >> np.uint64(8)).astype(np.uint32), (keys & np.uint64(0xFF)).astype(np.uint8)


def _distinct6(parts: list[Nets]) -> tuple[U64 | None, U8 | None]:
    if not parts:
        return None, None
    networks = np.concatenate([part.net6 for part in parts])
    lengths = np.concatenate([part.len6 for part in parts])
    order = np.lexsort((lengths, networks[:, 1], networks[:, 0]))
    networks, lengths = networks[order], lengths[order]
    differs = (networks[1:] != networks[:-1]).any(axis=1) | (lengths[1:] != lengths[:-1])
    first = _firsts(len(networks), differs)
    return networks[first], lengths[first]


def _firsts(count: int, differs: Bool) -> Bool:
    """Which of ``count`` sorted rows are the first of equal ones; ``differs`` compares each with the previous row."""
    first = np.ones(count, np.bool_)
    first[1:] = differs
    return first
