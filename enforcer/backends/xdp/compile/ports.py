"""Ports and ICMP types as bit vectors: directories, pages, rows, and the members of named ports. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.compile.bits import Bit
from enforcer.model.abi import (
    NAMED_KEY,
    NEXT_IS_PAGE,
    PORT_PAGE_BYTES,
    PORT_PAGE_ENTRIES,
    SIDE_DESTINATION,
    SIDE_SOURCE,
)
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Side
from enforcer.policy.conditions import Icmp
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import PortSet

NUMBERS = 1 << 16
_NAMED_KEY = np.dtype(NAMED_KEY)

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Pair = tuple[int, int]  # wanted, unwanted: rows


class TooManyPorts(ValueError):
    """The ports of a policy need more different rows than there are row numbers."""


@dataclass(frozen=True)
class Ports:
    """``directories``: uint32[4, 256] (source, destination, ICMP, ICMPv6); ``pages``: uint16[n, 256], at least one;
    ``rows``: (wanted, unwanted) by number; ``named`` by key.
    """

    directories: U32
    pages: U16
    rows: tuple[Pair, ...]
    named: Mapping[bytes, Pair]


@dataclass
class _Numbering:
    """Numbers rows and pages; equal ones are stored once."""

    rows: dict[Pair, int] = field(default_factory=dict)
    pages: dict[bytes, int] = field(default_factory=dict)

    def row(self, pair: Pair) -> int:
        return self.rows.setdefault(pair, len(self.rows))

    def page(self, page: U16) -> int:
        return self.pages.setdefault(page.tobytes(), len(self.pages))


def ports_of(bits: Sequence[Bit], port_sets: Mapping[str, PortSet]) -> Ports:
    """The maps for the ports and ICMP types that the entries match on. Raises TooManyPorts."""
    numbering = _Numbering()
    source = _directory(bits, Side.SOURCE, numbering)
    destination = _directory(bits, Side.DESTINATION, numbering)
    icmp = _icmp_directory(bits, numbering)
    if len(numbering.rows) > NUMBERS:
        raise TooManyPorts(f"ports that differ in {len(numbering.rows)} ways; XDP holds {NUMBERS}")
    pages = [np.frombuffer(page, np.uint16) for page in numbering.pages or [bytes(PORT_PAGE_BYTES)]]
    directories = np.stack([source, destination, icmp, icmp])
    return Ports(directories, np.stack(pages), tuple(numbering.rows), _named(bits, port_sets))


def _directory(bits: Sequence[Bit], side: Side, numbering: _Numbering) -> U32:
    ranges = [item for bit in bits for item in (*bit.wanted[side].ranges, *bit.unwanted[side].ranges)]
    ends = {0, *(item.first for item in ranges), *(item.last + 1 for item in ranges)} - {NUMBERS}
    cuts = np.array(sorted(ends))  # the row is constant between two of them
    numbers = [numbering.row(pair) for pair in _pairs(bits, side, cuts)]
    return _paged(np.repeat(np.array(numbers), np.diff(cuts, append=NUMBERS)), numbering)


def _pairs(bits: Sequence[Bit], side: Side, ports: I64) -> Iterator[Pair]:
    """The rows of each port. Without named ports, ``wanted`` alone is the result for a side."""
    wanted = np.zeros((len(ports), len(bits)), np.bool_)
    unwanted = np.zeros_like(wanted)
    for number, bit in enumerate(bits):
        yes, no = bit.wanted[side], bit.unwanted[side]
        wanted[:, number] = _holds(yes.ranges, ports) if yes.ranges else not yes.names
        excluded = _holds(no.ranges, ports)
        if yes.names or no.names:
            unwanted[:, number] = excluded
        else:
            wanted[:, number] &= ~excluded
    packed = (np.packbits(rows, axis=1, bitorder="little") for rows in (wanted, unwanted))
    for rows in zip(*packed, strict=True):
        yield int.from_bytes(rows[0].tobytes(), "little"), int.from_bytes(rows[1].tobytes(), "little")


def _holds(ranges: Sequence[PortRange], ports: I64) -> Bool:
    """Which of the sorted ports are in a range."""
    change = np.zeros(len(ports) + 1, np.int64)
    np.add.at(change, np.searchsorted(ports, [item.first for item in ranges]), 1)
    np.add.at(change, np.searchsorted(ports, [item.last + 1 for item in ranges]), -1)
    return np.asarray(change.cumsum()[:-1] > 0, np.bool_)


def _icmp_directory(bits: Sequence[Bit], numbering: _Numbering) -> U32:
    """The directory by type and code. It serves both families, because an entry's protocol tells ICMP from ICMPv6."""
    named = [icmp for bit in bits for icmp in (bit.icmp, bit.not_icmp) if icmp is not None]
    numbers = np.full((PORT_PAGE_ENTRIES, PORT_PAGE_ENTRIES), numbering.row(_icmp_pair(bits, None, 0)))
    for kind in {icmp.type for icmp in named}:
        numbers[kind] = numbering.row(_icmp_pair(bits, kind, None))
        for code in {icmp.code for icmp in named if icmp.type == kind and icmp.code is not None}:
            numbers[kind, code] = numbering.row(_icmp_pair(bits, kind, code))
    return _paged(numbers.reshape(-1), numbering)


def _icmp_pair(bits: Sequence[Bit], kind: int | None, code: int | None) -> Pair:
    """``None``: any type, or code, that no entry matches on."""

    def is_it(icmp: Icmp) -> bool:
        return icmp.type == kind and icmp.code in (None, code)

    wanted = 0
    for number, bit in enumerate(bits):
        excluded = bit.not_icmp is not None and is_it(bit.not_icmp)
        wanted |= ((bit.icmp is None or is_it(bit.icmp)) and not excluded) << number
    return wanted, 0


def _paged(numbers: npt.NDArray[np.int64], numbering: _Numbering) -> U32:
    """A directory. If all ports with the same high byte have one row, it refers to that row and saves a look-up."""
    pages = numbers.reshape(PORT_PAGE_ENTRIES, PORT_PAGE_ENTRIES)
    found = pages[:, 0].astype(np.uint32)
    for high in np.flatnonzero((pages != pages[:, :1]).any(axis=1)).tolist():
        found[high] = NEXT_IS_PAGE | numbering.page(pages[high].astype(np.uint16))
    return found


def _named(bits: Sequence[Bit], port_sets: Mapping[str, PortSet]) -> dict[bytes, Pair]:
    found: dict[bytes, Pair] = {}
    for number, bit in enumerate(bits):
        for which, side in ((SIDE_SOURCE, Side.SOURCE), (SIDE_DESTINATION, Side.DESTINATION)):
            for names, at in ((bit.wanted[side].names, 0), (bit.unwanted[side].names, 1)):
                for key in (key for name in names for key in _keys(port_sets[name], which)):
                    pair = list(found.get(key, (0, 0)))
                    pair[at] |= 1 << number
                    found[key] = (pair[0], pair[1])
    return found


def _keys(port_set: PortSet, side: int) -> Iterable[bytes]:
    return (_key(address, port, port_set.protocol, side) for address, port in port_set.members)


def _key(address: IPAddress, port: int, protocol: int, side: int) -> bytes:
    words = np.frombuffer(address.packed.ljust(16, b"\0"), ">u4")
    return np.array((words, port, protocol, side, address.version, 0), _NAMED_KEY).tobytes()
