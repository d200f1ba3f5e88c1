"""Members of a set as sorted arrays, and as netlink attributes. Pure.

In the kernel, an interval is two elements: its first key, and the key after its last with a flag. Here it is one record
of both keys. The second key is all NUL if the interval extends to the end of the key space; then the kernel has no
second element. Nets that contain each other become one interval, because the kernel requires disjoint intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from enforcer.backends.netfilter.members import difference, differences, ordered, union
from enforcer.backends.netfilter.ports import merged_ports
from enforcer.backends.nftables.rules import NAMED_PORTS, NETS, PORTS, Members, SetType
from enforcer.kernel.netlink import ATTRIBUTE_HEADER, NLA_F_NESTED, NLA_TYPE_MASK, attribute, be32
from enforcer.model.nets import Nets
from enforcer.policy.resources import PortRange
from enforcer.policy.ruletable import PortSet

_Bytes = npt.NDArray[np.uint8]
_Numbers = npt.NDArray[np.int64]

_LIST_LIMIT = 0xFFF8  # an attribute's length is 16 bits, aligned to 4
_HEADER_BYTES = ATTRIBUTE_HEADER.size
# struct nlattr types: list element, its key, the key's value; with NLA_F_NESTED as in libnftnl
_ELEMENT, _KEY, _VALUE, _FLAGS = 1, 1, 1, 3
_INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END


def none_of(kind: SetType) -> Members:
    return np.empty(0, f"S{kind.key_bytes * (2 if kind.interval else 1)}")


def net_members(nets: Nets, version: int) -> Members:
    """The nets of one family as disjoint intervals."""
    size = NETS[version].key_bytes
    if version == 4:
        first, last = nets.intervals4
        starts = first.astype(">u4").view(np.uint8).reshape(-1, size)
        ends = (last.astype(np.uint64) + np.uint64(1)).astype(np.uint32).astype(">u4").view(np.uint8).reshape(-1, size)
        return _records(np.column_stack([starts, ends]))
    starts6, ends6 = nets.intervals6
    rows = [
        bytes(one).ljust(size, b"\0") + _following(bytes(other).ljust(size, b"\0"))
        for one, other in zip(starts6.tolist(), ends6.tolist(), strict=True)
    ]
    return ordered(np.array(rows, none_of(NETS[6]).dtype))


def _following(key: bytes) -> bytes:
    """The key after this one; all NUL after the last key."""
    return ((int.from_bytes(key, "big") + 1) % (1 << 8 * len(key))).to_bytes(len(key), "big")


def port_members(ports: Sequence[PortRange]) -> Members:
    """Port numbers as disjoint intervals."""
    rows = [item.first.to_bytes(2, "big") + _following(item.last.to_bytes(2, "big")) for item in merged_ports(ports)]
    return ordered(np.array(rows, none_of(PORTS).dtype))


def named_members(items: Iterable[PortSet], version: int) -> Members:
    """Keys of address, protocol and port for every member of one family, each part padded to four bytes."""
    rows = [
        address.packed + bytes([item.protocol, 0, 0, 0]) + port.to_bytes(2, "big") + bytes(2)
        for item in items
        for address, port in item.members
        if address.version == version
    ]
    return ordered(np.array(rows, none_of(NAMED_PORTS[version]).dtype))


def between(present: Members, wanted: Members, kind: SetType, *, lenient: bool) -> Members:
    """The members between two states: the union of both, or the intersection if the set is lenient.

    Overlapping intervals are replaced by their union or intersection; all others stay as they are.
    """
    if np.array_equal(present, wanted):
        return present
    gone, came = differences(present, wanted)
    common = difference(present, gone)
    if kind.interval:
        return union(common, _covered(gone, came, kind, 2 if lenient else 1))
    return common if lenient else union(present, wanted)


def _covered(one: Members, other: Members, kind: SetType, times: int) -> Members:
    """The intervals covered by at least ``times`` of two lists of disjoint intervals (1: union, 2: intersection)."""
    rows = _rows(np.concatenate([one, other]), none_of(kind).itemsize)
    starts, ends = (_joined([rows[:, half]], kind) for half in np.split(np.arange(rows.shape[1]), 2))
    is_open = ends == b""
    keys = ordered(np.concatenate([starts, ends[~is_open]]))
    changes = np.zeros(len(keys) + 1, np.int64)
    np.add.at(changes, np.searchsorted(keys, starts), 1)
    np.add.at(changes, np.where(is_open, len(keys), np.searchsorted(keys, ends)), -1)
    # From each key to the next one, the last to the end of the address space.
    inside = np.concatenate([[False], np.cumsum(changes[:-1]) >= times, [False]])
    edges = np.diff(inside.astype(np.int8))
    closing = np.append(keys, np.zeros(1, keys.dtype))[edges == -1]
    opening = keys[edges[:-1] == 1]
    return _records(np.column_stack([_rows(opening, kind.key_bytes), _rows(closing, kind.key_bytes)]))


def pack(members: Members, kind: SetType) -> Iterator[bytes]:
    """The members as element lists, split so that each fits in an attribute."""
    rows = _rows(members, none_of(kind).itemsize)
    if not kind.interval:
        yield from _pieces(_elements(rows, kind))
        return
    starts, ends = rows[:, : kind.key_bytes], rows[:, kind.key_bytes :]
    is_open = ~ends.any(axis=1)
    both = np.column_stack([_elements(starts, kind), _elements(ends, kind, end=True)])
    yield from _pieces(both[~is_open])
    yield from _pieces(_elements(starts[is_open], kind))


def _pieces(records: _Bytes) -> Iterator[bytes]:
    step = _LIST_LIMIT // records.shape[1]
    for first in range(0, len(records), step):
        yield records[first : first + step].tobytes()


def _elements(keys: _Bytes, kind: SetType, *, end: bool = False) -> _Bytes:
    """Each key as an element: NFTA_LIST_ELEM { KEY { VALUE } }, with FLAGS for the end of an interval."""
    template = _template(kind, end=end, flag=NLA_F_NESTED)
    records = np.tile(np.frombuffer(template, np.uint8), (len(keys), 1))
    records[:, 3 * _HEADER_BYTES : 3 * _HEADER_BYTES + kind.key_bytes] = keys
    return records


def _template(kind: SetType, *, end: bool, flag: int) -> bytes:
    """An element whose key is all NUL."""
    key = attribute(_KEY | flag, attribute(_VALUE, bytes(kind.key_bytes)))
    return attribute(_ELEMENT | flag, key + (be32(_FLAGS, _INTERVAL_END) if end else b""))


def parse(lists: Iterable[bytes], kind: SetType) -> Members | None:
    """The members in a set's element lists. None if an element has options or an interval has no matching end."""
    starts: list[_Bytes] = []
    ends: list[_Bytes] = []
    for data in lists:
        begins, sizes = _offsets(data)
        for found, is_end in ((starts, False), (ends, True)):
            template = np.frombuffer(_template(kind, end=is_end, flag=0), np.uint8)
            found.append(_keys(data, begins[sizes == len(template)], template, kind))
        if len(starts[-1]) + len(ends[-1]) != len(begins):
            return None
    first = np.sort(_joined(starts, kind))
    last = np.sort(_joined(ends, kind))
    if not kind.interval:
        return None if len(last) else first
    return _paired(first, last, kind)


def _offsets(data: bytes) -> tuple[_Numbers, _Numbers]:
    """The offset and the length of each element of a list, in bytes."""
    view = memoryview(data).cast("H")
    begins: list[int] = []
    sizes: list[int] = []
    at, end = 0, len(view)
    while at < end and view[at]:
        begins.append(at * 2)
        sizes.append(view[at])
        at += (view[at] + 3) // 4 * 2
    return np.array(begins, np.int64), np.array(sizes, np.int64)


def _keys(data: bytes, begins: _Numbers, template: _Bytes, kind: SetType) -> _Bytes:
    """The keys of the elements at these offsets that equal the template except for the key."""
    buf = np.frombuffer(data, np.uint8)
    records = buf[begins[:, None] + np.arange(len(template))].copy()
    for at in (0, _HEADER_BYTES):  # whether the kernel flags nested attributes depends on its version
        records[:, at + 2 : at + 4] = (records[:, at + 2 : at + 4].copy().view(np.uint16) & NLA_TYPE_MASK).view(
            np.uint8
        )
    fixed = np.ones(len(template), np.bool_)
    where = slice(3 * _HEADER_BYTES, 3 * _HEADER_BYTES + kind.key_bytes)
    fixed[where] = False
    same = (records[:, fixed] == template[fixed]).all(axis=1)
    return np.ascontiguousarray(records[same][:, where])


def _joined(parts: list[_Bytes], kind: SetType) -> Members:
    rows = np.concatenate([np.empty((0, kind.key_bytes), np.uint8), *parts])
    return np.ascontiguousarray(rows).view(f"S{kind.key_bytes}").ravel()


def _paired(first: Members, last: Members, kind: SetType) -> Members | None:
    """Each start with its end; the last one may have none."""
    if len(first) == len(last) + 1:
        last = np.append(last, np.zeros(1, last.dtype))
    if len(first) != len(last):
        return None
    bounded = last[:-1] if len(last) and not last[-1] else last
    overlapping = (bounded <= first[: len(bounded)]).any() or (bounded[: len(first) - 1] > first[1:]).any()
    if overlapping:
        return None
    return _records(np.column_stack([_rows(first, kind.key_bytes), _rows(last, kind.key_bytes)]))


def _rows(members: Members, size: int) -> _Bytes:
    return np.ascontiguousarray(members).view(np.uint8).reshape(-1, size)


def _records(rows: _Bytes) -> Members:
    return np.ascontiguousarray(rows.astype(np.uint8)).view(f"S{rows.shape[1]}").ravel()
