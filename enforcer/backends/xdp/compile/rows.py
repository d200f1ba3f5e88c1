"""From an InterfacePlan to bit vectors, the contents of the XDP program's maps (bpf/include/abi.h). Pure.

Every held entry is one bit, in evaluation order, preceded by the failsafes as Allow entries. A row states for which
bits one condition holds; here it is an int whose bit n is entry n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.compile.bits import Bit, Lists, bits_of
from enforcer.backends.xdp.compile.ports import Ports, ports_of
from enforcer.model.abi import MAX_BITS, PROTOCOLS, ROW_BYTES
from enforcer.model.nets import IPNetwork, Nets
from enforcer.model.vocabulary import Action, Side
from enforcer.planning.plan import InterfacePlan

Members = Mapping[int, frozenset[str]]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class XdpRows:
    """The maps of one interface that do not depend on addresses. ``names[i]``: the name of bit i's entry, "" for a
    failsafe. ``words``: the number of 64-bit words of a row that are used: 1, 2 or 8.
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
    """The bit vectors of the entries that XDP holds. ``ipv6`` False: IPv6 packets pass, as in raw."""
    bits = bits_of(plan)
    named = {number for bit in bits for number in (bit.protocol, bit.not_protocol) if number is not None}
    protocols = [_protocol(bits, -1)] * (PROTOCOLS - 1) + [_all(bits)]
    for number in named:
        protocols[number] = _protocol(bits, number)
    others = {tier: _others(bits, tier) for tier in {bit.tier for bit in bits}}
    return XdpRows(
        names=tuple(bit.entry.name for bit in bits),
        words=next(words for words in (1, 2, MAX_BITS // 64) if len(bits) <= 64 * words),
        policy=rows_bytes(_policy(bits)),
        tiers=rows_bytes(others[bit.tier] for bit in bits),
        protocols=rows_bytes(protocols),
        ports=ports_of(bits, plan.table.port_sets),
        matches_destination=any(bit.of(Side.DESTINATION, negated=no).addresses for bit in bits for no in (False, True)),
        may_skip=any(bit.action is Action.PASS for bit in bits),
        drops_unlisted=_drops_unlisted(bits, ipv6=ipv6),
        matches_named_ports=any(lists.names for bit in bits for lists in bit.lists),
    )


def atoms(plan: InterfacePlan) -> dict[str, Nets]:
    """The address lists that an entry or failsafe matches on, by id. Classes are their combinations."""
    found: dict[str, Nets] = {}
    for bit in bits_of(plan):
        for lists in bit.lists:
            if lists.nets and (name := _id(lists.nets)) not in found:
                found[name] = Nets.of(lists.nets)
            if lists.ip_set is not None:
                found[lists.ip_set] = plan.table.sets[lists.ip_set].nets
    return found


def address_rows(plan: InterfacePlan, members: Members, *, ipv6: bool = True) -> bytes:
    """``struct address_rows`` of each address class, in the given order; ``members``: the atoms of each class."""
    column = {name: at for at, name in enumerate(atoms(plan))}
    holds = np.zeros((len(members), len(column)), np.bool_)
    for row, held in enumerate(members.values()):
        holds[row, [column[name] for name in held & column.keys()]] = True
    of = {name: holds[:, at] for name, at in column.items()}
    bits = np.zeros((len(members), 4, MAX_BITS), np.bool_)
    for number, bit in enumerate(bits_of(plan)):
        source, destination = (_side(bit, side, of, len(members)) for side in (Side.SOURCE, Side.DESTINATION))
        for at, version in ((0, 4), (2, 6)):
            if bit.is_of(version) and (version == 4 or ipv6):
                bits[:, at, number], bits[:, at + 1, number] = source, destination
    packed = np.packbits(bits, axis=-1, bitorder="little")
    return packed.view("<u8").astype(np.uint64).tobytes()


def _side(bit: Bit, side: Side, of: Mapping[str, Bool], classes: int) -> Bool:
    """Which address classes one side of an entry matches."""
    held = np.ones(classes, np.bool_)
    for name in _names(bit.wanted[side]):
        held &= of[name]
    for name in _names(bit.unwanted[side]):
        held &= ~of[name]
    return held


def _names(lists: Lists) -> Iterator[str]:
    """The names of the atoms in these lists."""
    if lists.nets:
        yield _id(lists.nets)
    if lists.ip_set is not None:
        yield lists.ip_set


def _drops_unlisted(bits: Sequence[Bit], *, ipv6: bool) -> bool:
    """Whether any entry may drop a source that is in no atom (class 0)."""
    return any(
        bit.action is Action.DENY
        and not bit.wanted[Side.SOURCE].addresses
        and (bit.is_of(4) or (ipv6 and bit.is_of(6)))
        for bit in bits
    )


def _policy(bits: Sequence[Bit]) -> Iterator[int]:
    """The rows of ``struct policy`` in order."""
    yield _mask(bits, lambda bit: bit.action is Action.DENY)
    yield _mask(bits, lambda bit: bit.action is Action.PASS)
    yield _mask(bits, _reads_protocol)
    yield _mask(bits, lambda bit: bit.reads_ports)
    yield _mask(bits, lambda bit: bit.reads_icmp)
    yield _mask(bits, lambda bit: not any(lists.ports for lists in bit.wanted.values()))


def _reads_protocol(bit: Bit) -> bool:
    """Whether the bit matches on the protocol, which IPv6 extension headers can hide. For such a packet the program
    treats these bits as possible matches, whatever their addresses.
    """
    reads = bit.protocol is not None or bit.not_protocol is not None or bit.reads_ports or bit.reads_icmp
    return reads and bit.is_of(6)


def _others(bits: Sequence[Bit], tier: str) -> int:
    return _mask(bits, lambda bit: bit.tier != tier)


def _protocol(bits: Sequence[Bit], number: int) -> int:
    return _mask(bits, lambda bit: bit.protocol in (None, number) and bit.not_protocol != number)


def _all(bits: Sequence[Bit]) -> int:
    return (1 << len(bits)) - 1


def _mask(bits: Sequence[Bit], holds: Callable[[Bit], bool]) -> int:
    return sum(1 << number for number, bit in enumerate(bits) if holds(bit))


def rows_bytes(rows: Iterable[int]) -> bytes:
    """As the program reads them: words in host byte order, the lowest bits first."""
    words = b"".join(row.to_bytes(ROW_BYTES, "little") for row in rows)
    return np.frombuffer(words, "<u8").astype(np.uint64).tobytes()


def _id(nets: tuple[IPNetwork, ...]) -> str:
    return "n:" + ",".join(sorted(str(net) for net in nets))
