"""Members of a hash:net set as sorted arrays, and as the netlink attributes the kernel has for them. Pure.

A member is a byte string: the address in network order, then the prefix length, 5 bytes for IPv4 and 17 for IPv6. The
length is never 0 (hash:net has no /0: it is stored as its two halves), so numpy's stripping of trailing NUL bytes
loses nothing, and byte order is the order of prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from enforcer.policy.nets import Nets

Members = npt.NDArray[np.bytes_]
_Bytes = npt.NDArray[np.uint8]

_ADDRESS_BYTES = {4: 4, 6: 16}
_ATTRIBUTE_LIMIT = 0xFFF8  # an attribute's length is 16 bits, aligned to 4

# struct nlattr types (linux/netfilter/ipset/ip_set.h) with NLA_F_NESTED or NLA_F_NET_BYTEORDER as libipset sets them
_DATA, _IP, _CIDR = 7 | 0x8000, 1 | 0x8000, 3
_IPADDR = {4: 1 | 0x4000, 6: 2 | 0x4000}
_TYPE_MASK = 0x3FFF


def members_of(nets: Nets, version: int) -> Members:
    """The prefixes of one family as set members, sorted, without duplicates."""
    if version == 4:
        addresses = nets.net4.astype(">u4").view(np.uint8).reshape(-1, 4)
        lengths = nets.len4
    else:
        addresses = np.ascontiguousarray(nets.net6.astype(">u8")).view(np.uint8).reshape(-1, 16)
        lengths = nets.len6
    rows = np.column_stack([addresses, lengths]).astype(np.uint8)
    return np.unique(_members(_halved(rows)))


def none_of(version: int) -> Members:
    return np.empty(0, f"S{_ADDRESS_BYTES[version] + 1}")


def difference(left: Members, right: Members) -> Members:
    """The members of ``left`` that are not in ``right``. Both sorted, without duplicates."""
    return np.setdiff1d(left, right, assume_unique=True)


def union(left: Members, right: Members) -> Members:
    return np.union1d(left, right)


def intersection(left: Members, right: Members) -> Members:
    return np.intersect1d(left, right, assume_unique=True)


def pack(members: Members, version: int) -> Iterator[bytes]:
    """The members as IPSET_ATTR_DATA attributes, cut so that each piece fits an IPSET_ATTR_ADT."""
    rows = np.ascontiguousarray(members).view(np.uint8).reshape(-1, _ADDRESS_BYTES[version] + 1)
    records = np.zeros(len(rows), _record(version))
    template = _template(version)
    for name in template.dtype.names or ():
        records[name] = template[name]
    records["address"] = rows[:, :-1]
    records["length"] = rows[:, -1]
    step = _ATTRIBUTE_LIMIT // records.itemsize
    for start, stop in pairwise([*range(0, len(records), step), len(records)]):
        yield records[start:stop].tobytes()


def parse(data: bytes, version: int) -> Members | None:
    """The members of the content of an IPSET_ATTR_ADT, in its order.

    None if a member is anything but a plain prefix (it has a timeout, a comment or "nomatch"): then it is none of ours.
    """
    layout = _record(version)
    if len(data) % layout.itemsize:
        return None
    records = np.frombuffer(data, layout)
    template = _template(version)
    for name in template.dtype.names or ():
        mask = _TYPE_MASK if name.endswith("_type") else 0xFFFF
        if np.any((records[name] & mask) != (template[name] & mask)):
            return None
    return _members(np.column_stack([records["address"], records["length"]]))


def _record(version: int) -> np.dtype[np.void]:
    """IPSET_ATTR_DATA { IPSET_ATTR_IP { IPADDR_IPV4 or _IPV6 }, IPSET_ATTR_CIDR }; every size is a multiple of 4."""
    return np.dtype(
        [
            *_HEADERS[:6],
            ("address", np.uint8, (_ADDRESS_BYTES[version],)),
            *_HEADERS[6:],
            ("length", np.uint8),
            ("padding", np.uint8, (3,)),
        ]
    )


# struct nlattr: length (header included, padding not) and type, in the host's byte order
_HEADERS = [(f"{name}_{part}", np.uint16) for name in ("data", "ip", "ipaddr", "cidr") for part in ("size", "type")]


def _template(version: int) -> npt.NDArray[np.void]:
    """The headers of a record, which are the same for all."""
    address = _ADDRESS_BYTES[version]
    sizes = (_record(version).itemsize, 8 + address, 4 + address, 5)
    types = (_DATA, _IP, _IPADDR[version], _CIDR)
    values = tuple(value for pair in zip(sizes, types, strict=True) for value in pair)
    return np.array(values, np.dtype(_HEADERS))


def _members(rows: _Bytes) -> Members:
    return np.ascontiguousarray(rows).view(f"S{rows.shape[1]}").ravel()


def _halved(rows: _Bytes) -> _Bytes:
    """The rows with each /0 as two /1."""
    everything = rows[:, -1] == 0
    if not everything.any():
        return rows
    halves = np.zeros((2, rows.shape[1]), np.uint8)
    halves[:, -1] = 1
    halves[1, 0] = 0x80
    return np.concatenate([rows[~everything], halves])
