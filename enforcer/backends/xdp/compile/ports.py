"""Ports and ICMP types as bit vectors: directories, pages, rows, and what named ports stand for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from enforcer.model.abi import (
    NAMED_KEY,
    NEXT_IS_PAGE,
    PORT_PAGE_BYTES,
    PORT_PAGE_ENTRIES,
    SIDE_DESTINATION,
    SIDE_SOURCE,
)
from enforcer.model.nets import IPAddress
from enforcer.policy.resources import IcmpMatch, PortRange
from enforcer.policy.ruletable import AddressMatch, Entry, PortSet

NUMBERS = 1 << 16
_NAMED_KEY = np.dtype(NAMED_KEY)

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Pair = tuple[int, int]  # wanted, unwanted: rows


class TooManyPorts(ValueError):
    """The ports of a policy make more different rows than their numbers can say."""


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
    """Rows and pages, each stored once."""

    rows: dict[Pair, int] = field(default_factory=dict)
    pages: dict[bytes, int] = field(default_factory=dict)

    def row(self, pair: Pair) -> int:
        return self.rows.setdefault(pair, len(self.rows))

    def page(self, page: U16) -> int:
        return self.pages.setdefault(page.tobytes(), len(self.pages))


def ports_of(entries: Sequence[Entry], port_sets: Mapping[str, PortSet]) -> Ports:
    """What the entries (entry n is bit n) ask of ports and ICMP types. Raises TooManyPorts."""
    numbering = _Numbering()
    source = _directory([entry.source for entry in entries], numbering)
    destination = _directory([entry.destination for entry in entries], numbering)
    icmp = _icmp_directory(entries, numbering)
    if len(numbering.rows) > NUMBERS:
        raise TooManyPorts(f"ports that differ in {len(numbering.rows)} ways; XDP holds {NUMBERS}")
    pages = [np.frombuffer(page, np.uint16) for page in numbering.pages or [bytes(PORT_PAGE_BYTES)]]
    directories = np.stack([source, destination, icmp, icmp])
    return Ports(directories, np.stack(pages), tuple(numbering.rows), _named(entries, port_sets))


def _directory(sides: Sequence[AddressMatch], numbering: _Numbering) -> U32:
    ranges = [item for side in sides for item in (*side.ports, *side.not_ports)]
    ends = {0, *(item.first for item in ranges), *(item.last + 1 for item in ranges)} - {NUMBERS}
    cuts = np.array(sorted(ends))  # between two of them no answer changes
    numbers = [numbering.row(pair) for pair in _pairs(sides, cuts)]
    return _paged(np.repeat(np.array(numbers), np.diff(cuts, append=NUMBERS)), numbering)


def _pairs(sides: Sequence[AddressMatch], ports: I64) -> Iterator[Pair]:
    """The rows of each port. Without named ports all of a side's answer is in ``wanted``."""
    wanted = np.zeros((len(ports), len(sides)), np.bool_)
    unwanted = np.zeros_like(wanted)
    for bit, side in enumerate(sides):
        wanted[:, bit] = _holds(side.ports, ports) if side.ports else not side.named_ports
        excluded = _holds(side.not_ports, ports)
        if side.named_ports or side.not_named_ports:
            unwanted[:, bit] = excluded
        else:
            wanted[:, bit] &= ~excluded
    packed = (np.packbits(rows, axis=1, bitorder="little") for rows in (wanted, unwanted))
    for rows in zip(*packed, strict=True):
        yield int.from_bytes(rows[0].tobytes(), "little"), int.from_bytes(rows[1].tobytes(), "little")


def _holds(ranges: Sequence[PortRange], ports: I64) -> Bool:
    """Which of the ports, which are sorted, are in a range."""
    change = np.zeros(len(ports) + 1, np.int64)
    np.add.at(change, np.searchsorted(ports, [item.first for item in ranges]), 1)
    np.add.at(change, np.searchsorted(ports, [item.last + 1 for item in ranges]), -1)
    return np.asarray(change.cumsum()[:-1] > 0, np.bool_)


def _icmp_directory(entries: Sequence[Entry], numbering: _Numbering) -> U32:
    """By type and code. One serves both families: an entry's protocol says whose types it means."""
    asked = {icmp.type for entry in entries for icmp in (entry.icmp, entry.not_icmp) if icmp and icmp.type is not None}
    other = numbering.row(_icmp_pair(entries, None, 0))
    numbers = np.full((PORT_PAGE_ENTRIES, PORT_PAGE_ENTRIES), other)
    for kind in asked:
        codes = {entry_code for entry in entries for entry_code in _codes(entry, kind)}
        numbers[kind] = numbering.row(_icmp_pair(entries, kind, None))
        for code in codes:
            numbers[kind, code] = numbering.row(_icmp_pair(entries, kind, code))
    return _paged(numbers.reshape(-1), numbering)


def _codes(entry: Entry, kind: int) -> list[int]:
    return [i.code for i in (entry.icmp, entry.not_icmp) if i and i.type == kind and i.code is not None]


def _icmp_pair(entries: Sequence[Entry], kind: int | None, code: int | None) -> Pair:
    """``None``: a type, or code, that no entry names."""

    def matches(icmp: IcmpMatch | None) -> bool:
        return icmp is None or icmp.type is None or (icmp.type == kind and icmp.code in (None, code))

    wanted = 0
    for bit, entry in enumerate(entries):
        excluded = entry.not_icmp is not None and entry.not_icmp.type is not None and matches(entry.not_icmp)
        wanted |= (matches(entry.icmp) and not excluded) << bit
    return wanted, 0


def _paged(numbers: npt.NDArray[np.int64], numbering: _Numbering) -> U32:
    """A directory. Where a high octet has one row for all low ones it leads there, which spares a look-up."""
    pages = numbers.reshape(PORT_PAGE_ENTRIES, PORT_PAGE_ENTRIES)
    found = pages[:, 0].astype(np.uint32)
    for high in np.flatnonzero((pages != pages[:, :1]).any(axis=1)).tolist():
        found[high] = NEXT_IS_PAGE | numbering.page(pages[high].astype(np.uint16))
    return found


def _named(entries: Sequence[Entry], port_sets: Mapping[str, PortSet]) -> dict[bytes, Pair]:
    found: dict[bytes, Pair] = {}
    for bit, entry in enumerate(entries):
        for which, side in ((SIDE_SOURCE, entry.source), (SIDE_DESTINATION, entry.destination)):
            for names, at in ((side.named_ports, 0), (side.not_named_ports, 1)):
                for key in (key for name in names for key in _keys(port_sets[name], which)):
                    pair = list(found.get(key, (0, 0)))
                    pair[at] |= 1 << bit
                    found[key] = (pair[0], pair[1])
    return found


def _keys(port_set: PortSet, side: int) -> Iterable[bytes]:
    return (_key(address, port, port_set.protocol, side) for address, port in port_set.members)


def _key(address: IPAddress, port: int, protocol: int, side: int) -> bytes:
    words = np.frombuffer(address.packed.ljust(16, b"\0"), ">u4")
    return np.array((words, port, protocol, side, address.version, 0), _NAMED_KEY).tobytes()
