"""Members of an ipset as sorted arrays, and as netlink attributes. Pure.

A member is a byte string: the address in network order, then for hash:net the prefix length (one byte), for
hash:ip,port the port in network order and the protocol (three bytes). The last byte is never 0 (hash:net has no /0, so
/0 is stored as two /1; protocol 0 has no ports). So numpy loses nothing when it strips trailing NUL bytes, and sorting
the bytes sorts the prefixes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from enforcer.backends.iptables.rules import PortMember, SetSpec, SetType
from enforcer.backends.netfilter.members import Members, ordered
from enforcer.kernel.netlink import ATTRIBUTE_HEADER, NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_TYPE_MASK
from enforcer.model.nets import Nets

_Bytes = npt.NDArray[np.uint8]

_ADDRESS_BYTES = {4: 4, 6: 16}
_ATTRIBUTE_LIMIT = 0xFFF8  # an attribute's length is 16 bits, aligned to 4
_HEADER_BYTES = ATTRIBUTE_HEADER.size

# struct nlattr types (linux/netfilter/ipset/ip_set.h), with NLA_F_NESTED or NLA_F_NET_BYTEORDER as in libipset
_DATA, _IP, _CIDR, _PORT, _PROTO = 7 | NLA_F_NESTED, 1 | NLA_F_NESTED, 3, 4 | NLA_F_NET_BYTEORDER, 7
_IPADDR = {4: 1 | NLA_F_NET_BYTEORDER, 6: 2 | NLA_F_NET_BYTEORDER}


@dataclass(frozen=True)
class _Value:
    """An attribute after the address: its name in this module, its type, and its length in bytes."""

    name: str
    type: int
    width: int


_VALUES = {
    SetType.NET: (_Value("cidr", _CIDR, 1),),
    SetType.IP_PORT: (_Value("port", _PORT, 2), _Value("proto", _PROTO, 1)),
}


def wanted_members(spec: SetSpec) -> Members:
    """The members that a set must have, sorted."""
    if spec.type is SetType.IP_PORT:
        return port_members_of(spec.ports, spec.version)
    return members_of(spec.nets, spec.version)


def members_of(nets: Nets, version: int) -> Members:
    """The prefixes of one family as set members, sorted, without duplicates."""
    if version == 4:
        addresses = nets.net4.astype(">u4").view(np.uint8).reshape(-1, 4)
        lengths = nets.len4
    else:
        addresses = np.ascontiguousarray(nets.net6.astype(">u8")).view(np.uint8).reshape(-1, 16)
        lengths = nets.len6
    rows = np.column_stack([addresses, lengths]).astype(np.uint8)
    everything = lengths == 0
    return ordered(_members(_halved(rows, everything))) if everything.any() else _members(rows)


def port_members_of(ports: Iterable[PortMember], version: int) -> Members:
    """The pairs of one family as set members, sorted, without duplicates."""
    rows = [
        item.address.packed + item.port.to_bytes(2, "big") + bytes([item.protocol])
        for item in ports
        if item.address.version == version
    ]
    return ordered(np.array(rows, none_of(version, SetType.IP_PORT).dtype))


def none_of(version: int, kind: SetType = SetType.NET) -> Members:
    return np.empty(0, f"S{_ADDRESS_BYTES[version] + sum(value.width for value in _VALUES[kind])}")


def pack(members: Members, version: int, kind: SetType = SetType.NET) -> Iterator[bytes]:
    """The members as IPSET_ATTR_DATA attributes, cut so that each piece fits an IPSET_ATTR_ADT."""
    rows = np.ascontiguousarray(members).view(np.uint8).reshape(-1, none_of(version, kind).itemsize)
    records = np.zeros(len(rows), _record(version, kind))
    for name, number in _template(version, kind).items():
        records[name] = number
    start = 0
    for name, width in _fields(version, kind):
        records[name] = rows[:, start : start + width]
        start += width
    step = _ATTRIBUTE_LIMIT // records.itemsize
    for first, last in pairwise([*range(0, len(records), step), len(records)]):
        yield records[first:last].tobytes()


def parse(data: bytes, version: int, kind: SetType = SetType.NET) -> Members | None:
    """The members in the content of an IPSET_ATTR_ADT, in its order.

    None if a member has options (a timeout, a comment, "nomatch"): the enforcer did not create it.
    """
    layout = _record(version, kind)
    if len(data) % layout.itemsize:
        return None
    records = np.frombuffer(data, layout)
    for name, number in _template(version, kind).items():
        mask = NLA_TYPE_MASK if name.endswith("_type") else 0xFFFF
        if np.any((records[name] & mask) != (number & mask)):
            return None
    return _members(np.column_stack([records[name] for name, _ in _fields(version, kind)]))


def members_in(listing: bytes, version: int) -> Members | None:
    """The members in a listing, sorted. None if a member has options, or if they are neither all prefixes nor all
    addresses with ports.
    """
    for kind in SetType:
        if (found := parse(listing, version, kind)) is not None:
            return ordered(found)
    return None


def _fields(version: int, kind: SetType) -> list[tuple[str, int]]:
    """The fields of a member in order: (name in the record, length in bytes)."""
    return [("address", _ADDRESS_BYTES[version]), *((value.name, value.width) for value in _VALUES[kind])]


def _record(version: int, kind: SetType) -> np.dtype[np.void]:
    """IPSET_ATTR_DATA { IPSET_ATTR_IP { IPADDR_IPV4 or _IPV6 }, and an attribute for each value }, each padded to 4."""
    layout: list[tuple[str, type[np.uint8]] | tuple[str, type[np.uint16]] | tuple[str, type[np.uint8], tuple[int]]] = []
    for name, width in (("data", 0), ("ip", 0), *_fields(version, kind)):
        layout += [(f"{name}_size", np.uint16), (f"{name}_type", np.uint16)]
        if width:
            layout += [(name, np.uint8, (width,)), (f"{name}_padding", np.uint8, (-width % 4,))]
    return np.dtype(layout)


def _template(version: int, kind: SetType) -> dict[str, int]:
    """The attribute headers of a record; they are the same for all members."""
    address = _ADDRESS_BYTES[version]
    attributes = {
        "data": (_record(version, kind).itemsize, _DATA),
        "ip": (2 * _HEADER_BYTES + address, _IP),
        "address": (_HEADER_BYTES + address, _IPADDR[version]),
    }
    attributes |= {value.name: (_HEADER_BYTES + value.width, value.type) for value in _VALUES[kind]}
    return {f"{name}_{part}": pair[at] for name, pair in attributes.items() for at, part in enumerate(("size", "type"))}


def _members(rows: _Bytes) -> Members:
    return np.ascontiguousarray(rows).view(f"S{rows.shape[1]}").ravel()


def _halved(rows: _Bytes, everything: npt.NDArray[np.bool_]) -> _Bytes:
    """The rows with each /0 replaced by two /1."""
    halves = np.zeros((2, rows.shape[1]), np.uint8)
    halves[:, -1] = 1
    halves[1, 0] = 0x80
    return np.concatenate([rows[~everything], halves])
