"""From an InterfacePlan to bit vectors: what the XDP program's maps hold (bpf/include/abi.h). Pure.

Every held entry is one bit, in evaluation order, with the failsafes in front as entries that allow. A row says for
which bits one condition holds; here it is an int whose bit n is that of entry n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.compile.ports import Ports, ports_of
from enforcer.model.abi import MAX_BITS, PROTOCOLS, ROW_BYTES
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action
from enforcer.planning.plan import InterfacePlan
from enforcer.planning.xdp_capability import failsafe_entries
from enforcer.policy.ruletable import AddressMatch, Entry

FAMILY_OF_ICMP = {1: 4, 58: 6}

Members = Mapping[int, frozenset[str]]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class XdpRows:
    """The maps of one interface, but for what depends on addresses. ``names[i]`` is bit i's, "" for a failsafe.

    ``words`` are the words of a row in use: 1, 2 or 8.
    """

    names: tuple[str, ...]
    words: int
    policy: bytes
    tiers: bytes
    protocols: bytes
    ports: Ports
    matches_destination: bool
    may_skip: bool
    drops_unlisted: bool
    matches_named_ports: bool


def render(plan: InterfacePlan, *, ipv6: bool = True) -> XdpRows:
    """The bit vectors of the entries that XDP holds. ``ipv6`` False leaves IPv6 alone, as raw then does."""
    entries = bits_of(plan)
    named = {number for entry in entries for number in (entry.protocol, entry.not_protocol) if number is not None}
    protocols = [_protocol(entries, -1)] * (PROTOCOLS - 1) + [_all(entries)]
    for number in named:
        protocols[number] = _protocol(entries, number)
    others = {tier: _others(entries, tier) for tier in {entry.tier for entry in entries}}
    return XdpRows(
        names=tuple(entry.name for entry in entries),
        words=next(words for words in (1, 2, MAX_BITS // 64) if len(entries) <= 64 * words),
        policy=_rows(_policy(entries)),
        tiers=_rows(others[entry.tier] for entry in entries),
        protocols=_rows(protocols),
        ports=ports_of(entries, plan.table.port_sets),
        matches_destination=any(_asks_address(entry.destination) for entry in entries),
        may_skip=any(entry.action is Action.PASS for entry in entries),
        drops_unlisted=_drops_unlisted(entries, ipv6=ipv6),
        matches_named_ports=any(
            side.named_ports or side.not_named_ports for entry in entries for side in _sides(entry)
        ),
    )


def bits_of(plan: InterfacePlan) -> tuple[Entry, ...]:
    """The entry of each bit. Failsafes are entries without a name, in a tier of their own."""
    return (*failsafe_entries(plan.table), *plan.xdp_entries)


def atoms(plan: InterfacePlan) -> dict[str, Nets]:
    """The lists of nets whose members must be told apart, by id: those that some entry or failsafe asks for."""
    found: dict[str, Nets] = {}
    for entry in bits_of(plan):
        for match in (entry.source, entry.destination):
            for nets in (match.nets, match.not_nets):
                if nets:
                    found[_id(nets)] = Nets.of(nets)
            for ip_set in (match.ip_set, match.not_ip_set):
                if ip_set is not None:
                    found[ip_set] = plan.table.sets[ip_set].nets
    return found


def address_rows(plan: InterfacePlan, members: Members, *, ipv6: bool = True) -> bytes:
    """``struct address_rows`` of each class of addresses, in the order given; ``members`` are the atoms of each."""
    column = {name: at for at, name in enumerate(atoms(plan))}
    holds = np.zeros((len(members), len(column)), np.bool_)
    for row, held in enumerate(members.values()):
        holds[row, [column[name] for name in held & column.keys()]] = True
    of = {name: holds[:, at] for name, at in column.items()}
    bits = np.zeros((len(members), 4, MAX_BITS), np.bool_)
    for bit, entry in enumerate(bits_of(plan)):
        source, destination = (_side(match, of, len(members)) for match in (entry.source, entry.destination))
        for at, version in ((0, 4), (2, 6)):
            if is_of(entry, version) and (version == 4 or ipv6):
                bits[:, at, bit], bits[:, at + 1, bit] = source, destination
    packed = np.packbits(bits, axis=-1, bitorder="little")
    return packed.view("<u8").astype(np.uint64).tobytes()


def is_of(entry: Entry, version: int) -> bool:
    """Whether an entry is for an IP version: not written otherwise, and neither its ICMP types nor all of one of its
    lists are the other's.
    """
    if entry.ip_version not in (None, version):
        return False
    if _asks_icmp(entry) and FAMILY_OF_ICMP.get(entry.protocol or 0) != version:
        return False
    lists = (nets for side in (entry.source, entry.destination) for nets in (side.nets, side.not_nets) if nets)
    return all(any(net.version == version for net in nets) for nets in lists)


def _side(match: AddressMatch, of: Mapping[str, Bool], classes: int) -> Bool:
    """Which classes of addresses one side of an entry matches."""
    held = np.ones(classes, np.bool_)
    if match.nets:
        held &= of[_id(match.nets)]
    if match.not_nets:
        held &= ~of[_id(match.not_nets)]
    if match.ip_set is not None:
        held &= of[match.ip_set]
    if match.not_ip_set is not None:
        held &= ~of[match.not_ip_set]
    return held


def _drops_unlisted(entries: Sequence[Entry], *, ipv6: bool) -> bool:
    """Whether an entry may drop a source that is in no atom (class 0)."""
    return any(
        entry.action is Action.DENY
        and not entry.source.nets
        and entry.source.ip_set is None
        and (is_of(entry, 4) or (ipv6 and is_of(entry, 6)))
        for entry in entries
    )


def _policy(entries: Sequence[Entry]) -> Iterator[int]:
    """The rows of ``struct policy``, in its order."""
    yield _mask(entries, lambda entry: entry.action is Action.DENY)
    yield _mask(entries, lambda entry: entry.action is Action.PASS)
    yield _mask(entries, _asks_protocol)
    yield _mask(entries, _asks_ports)
    yield _mask(entries, _asks_icmp)
    yield _mask(entries, lambda entry: not any(side.ports or side.named_ports for side in _sides(entry)))


def _sides(entry: Entry) -> tuple[AddressMatch, AddressMatch]:
    return entry.source, entry.destination


def _asks_protocol(entry: Entry) -> bool:
    """Only IPv6 hides its protocol; the program takes these for possible whatever their addresses say."""
    asks = entry.protocol is not None or entry.not_protocol is not None
    asks = asks or _asks_ports(entry) or entry.icmp is not None or entry.not_icmp is not None
    return asks and is_of(entry, 6)


def _asks_ports(entry: Entry) -> bool:
    return any(side.ports or side.not_ports or side.named_ports or side.not_named_ports for side in _sides(entry))


def _asks_icmp(entry: Entry) -> bool:
    return any(icmp is not None and icmp.type is not None for icmp in (entry.icmp, entry.not_icmp))


def _asks_address(match: AddressMatch) -> bool:
    return bool(match.nets or match.not_nets) or match.ip_set is not None or match.not_ip_set is not None


def _others(entries: Sequence[Entry], tier: str) -> int:
    return _mask(entries, lambda entry: entry.tier != tier)


def _protocol(entries: Sequence[Entry], number: int) -> int:
    return _mask(entries, lambda entry: entry.protocol in (None, number) and entry.not_protocol != number)


def _all(entries: Sequence[Entry]) -> int:
    return (1 << len(entries)) - 1


def _mask(entries: Sequence[Entry], holds: Callable[[Entry], bool]) -> int:
    return sum(1 << bit for bit, entry in enumerate(entries) if holds(entry))


def _rows(rows: Iterator[int] | Sequence[int]) -> bytes:
    return b"".join(row_octets(row) for row in rows)


def row_octets(row: int) -> bytes:
    """A row as the program reads it: words in the machine's byte order, the first one first."""
    return np.frombuffer(row.to_bytes(ROW_BYTES, "little"), "<u8").astype(np.uint64).tobytes()


def _id(nets: tuple[IPNetwork, ...]) -> str:
    return "n:" + ",".join(sorted(str(net) for net in nets))
