"""Source deny lists in the hardware of an interface: from an InterfacePlan to the maps of bpf/xdp_offload.bpf.c.

A device has hash maps but no LPM tries, so the program makes one look-up for each prefix length that occurs, longest
first. The first entry that applies to a source has the lowest number among all prefixes that contain the source. So
each prefix stores that minimum, and the longest prefix that contains a source gives the result. :func:`render_offload`
is pure; :func:`load_offload` loads into the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.compile.receiver import Receiver
from enforcer.kernel.bpf.conn import BpfConn, OffloadObject
from enforcer.kernel.bpf.offload import NO_PRIVILEGE, PROGRAM, refusal
from enforcer.model import abi
from enforcer.model.abi import ANY_PROTOCOL, MAX_LENGTHS6, PORT_ANY, PORT_INBOUND, PORT_RETURN
from enforcer.model.errors import HostError, InternalError, KernelError
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Side
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.conditions import Icmp, InNets, InSet, Ports, Protocol, name_of, unhandled
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, IpSet

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

NET4, LENGTH4 = np.dtype(abi.NET4), np.dtype(abi.LENGTH4)
SETTINGS, FAILSAFE_PORT = np.dtype(abi.OFFLOAD_SETTINGS), np.dtype(abi.FAILSAFE_PORT)
# Four big-endian words, read as two big-endian halves.
_HALVES = [("high", ">u8"), ("low", ">u8")]
NET6, LENGTH6 = np.dtype([abi.NET6[0], *_HALVES]), np.dtype([abi.LENGTH6[0], *_HALVES])

# Pinned name -> the map's name in the program.
OFFLOAD_MAPS = {
    **{name: name for name in ("settings", "lengths4", "lengths6", "deny4", "deny6", "failsafe")},
    "counters": "entry_counters",
}

_FULL6 = (1 << 128) - 1
_LOW = (1 << 64) - 1
_EVERYWHERE, _NOWHERE = Nets.of(["0.0.0.0/0", "::/0"]), Nets()


class TooManyLengthsError(HostError):
    """There are more prefix lengths than the program for devices looks up."""


@dataclass(frozen=True)
class Filling:
    """The contents of a map: concatenated keys, concatenated values, and their number."""

    keys: bytes
    values: bytes
    count: int


@dataclass(frozen=True)
class OffloadTable:
    """The maps of one interface, by name. ``entries[i]`` is the name of number ``i`` in deny maps and counters."""

    entries: tuple[str, ...]
    maps: Mapping[str, Filling]


def render_offload(plan: InterfacePlan, *, receiver: Receiver, ipv6: bool = True) -> OffloadTable:
    """The maps that enforce the XDP entries of a plan. ``ipv6`` False: IPv6 packets pass, as in raw.

    Raises TooManyLengthsError.
    """
    sources = [_source(entry, plan.table.sets) for entry in plan.xdp_entries]
    deny4, deny6 = _deny4(sources), _deny6(sources if ipv6 else [])
    lengths6 = _lengths(deny6["key"]["length"])
    if len(lengths6) > MAX_LENGTHS6:
        raise TooManyLengthsError(
            f"{plan.interface}: IPv6 sources of {len(lengths6)} different prefix lengths; "
            f"the program for the device looks up {MAX_LENGTHS6} at most"
        )
    maps = {
        "settings": _array(np.array([tuple(receiver.address_settings.values())], SETTINGS)),
        "lengths4": _array(_masks4(_lengths(deny4["key"]["length"]))),
        "lengths6": _array(_masks6(lengths6)),
        "deny4": _hash(deny4["key"], deny4["entry"]),
        "deny6": _hash(deny6["key"], deny6["entry"]),
        "failsafe": _failsafe(plan.table.failsafe_inbound, plan.table.failsafe_outbound),
    }
    return OffloadTable(tuple(entry.name for entry in plan.xdp_entries), maps)


def load_offload(bpf: BpfConn, table: OffloadTable, ifindex: int | None) -> OffloadObject:
    """Load the object for the device of an interface and fill its maps. ``ifindex`` None: for this host (in tests).

    The caller pins ``OFFLOAD_MAPS`` and the program ``PROGRAM``, and closes the object. Raises KernelError with what
    was refused.
    """
    obj = bpf.open_offload()
    try:
        for name, filling in table.maps.items():
            obj.resize_map(name, max(1, filling.count))
        obj.resize_map("entry_counters", max(1, len(table.entries)))
        _load(obj, ifindex)
        for name, filling in table.maps.items():
            with obj.map(name) as target:
                target.update_batch(filling.keys, filling.values, filling.count)
    except BaseException:
        obj.close()
        raise
    return obj


def _load(obj: OffloadObject, ifindex: int | None) -> None:
    if ifindex is None:
        return obj.load()
    obj.bind_to_device(PROGRAM, ifindex)
    try:
        return obj.load()
    except KernelError as error:
        if error.errno in NO_PRIVILEGE:
            raise
        raise KernelError(refusal(error), log=error.log) from error


def _source(entry: Entry, sets: Mapping[str, IpSet]) -> Nets:
    """The sources that an entry drops, of its families. The planner only offloads entries with one list of sources."""
    nets = _EVERYWHERE
    for condition in entry.conditions:
        match condition:
            case InSet(Side.SOURCE, name, False):
                nets = sets[name].nets
            case InNets(Side.SOURCE, literal, False):
                nets = Nets.of(literal)
            case Protocol() | InNets() | InSet() | Ports() | Icmp():
                raise InternalError(f"{entry.name} in a device, which does not match on {name_of(condition)}")
            case _:
                raise unhandled(condition, f"a device cannot enforce {entry.name}: it")
    net4, len4 = (nets.net4, nets.len4) if 4 in entry.families else (_NOWHERE.net4, _NOWHERE.len4)
    net6, len6 = (nets.net6, nets.len6) if 6 in entry.families else (_NOWHERE.net6, _NOWHERE.len6)
    return Nets(net4, len4, net6, len6)


def _deny4(sources: Sequence[Nets]) -> npt.NDArray[np.void]:
    network = np.concatenate([np.empty(0, np.uint32), *(nets.net4 for nets in sources)]).astype(np.uint64)
    length = np.concatenate([np.empty(0, np.uint8), *(nets.len4 for nets in sources)]).astype(np.uint64)
    entry = _entry_numbers([len(nets.net4) for nets in sources])
    order = np.lexsort((entry, length, network))  # by network, then shortest prefix, then first entry
    network, length, entry = network[order], length[order], entry[order]
    first = _firsts(network, length)
    network, length, entry = network[first], length[first], entry[first]
    if len(sources) > 1:
        last = network | np.uint64(0xFFFFFFFF) >> length
        entry = _lowest_covering(network.tolist(), last.tolist(), entry)
    deny = np.empty(len(network), [("key", NET4), ("entry", "=u4")])
    deny["key"]["length"], deny["key"]["address"], deny["entry"] = length, network, entry
    return deny


def _deny6(sources: Sequence[Nets]) -> npt.NDArray[np.void]:
    network = np.concatenate([np.empty((0, 2), np.uint64), *(nets.net6 for nets in sources)])
    length = np.concatenate([np.empty(0, np.uint8), *(nets.len6 for nets in sources)]).astype(np.uint64)
    entry = _entry_numbers([len(nets.net6) for nets in sources])
    high, low = network[:, 0], network[:, 1]
    order = np.lexsort((entry, length, low, high))
    high, low, length, entry = high[order], low[order], length[order], entry[order]
    first = _firsts(high, low, length)
    high, low, length, entry = high[first], low[first], length[first], entry[first]
    if len(sources) > 1:
        networks = [top << 64 | bottom for top, bottom in zip(high.tolist(), low.tolist(), strict=True)]
        lasts = [net | _FULL6 >> bits for net, bits in zip(networks, length.tolist(), strict=True)]
        entry = _lowest_covering(networks, lasts, entry)
    deny = np.empty(len(length), [("key", NET6), ("entry", "=u4")])
    deny["key"]["length"], deny["key"]["high"], deny["key"]["low"], deny["entry"] = length, high, low, entry
    return deny


def _entry_numbers(lengths: Sequence[int]) -> U32:
    return np.repeat(np.arange(len(lengths), dtype=np.uint32), lengths)


def _firsts(*columns: U64) -> npt.NDArray[np.bool_]:
    """Which sorted rows differ from the previous row in any column."""
    first = np.ones(len(columns[0]), np.bool_)
    first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return first


def _lowest_covering(networks: Sequence[int], lasts: Sequence[int], entries: U32) -> U32:
    """For each prefix, the lowest entry of itself and all prefixes that contain it. Prefixes are sorted, containing
    ones first.

    Prefixes are nested or disjoint, so those that contain the current one form a stack whose top has the minimum.
    """
    result: list[int] = []
    ends: list[int] = []
    minima: list[int] = []
    for network, last, entry in zip(networks, lasts, entries.tolist(), strict=True):
        while ends and ends[-1] < network:
            ends.pop()
            minima.pop()
        lowest = min(entry, minima[-1]) if minima else entry
        ends.append(last)
        minima.append(lowest)
        result.append(lowest)
    return np.array(result, np.uint32)


def _lengths(column: U32) -> list[int]:
    """The prefix lengths that occur, longest first."""
    return sorted(set(column.tolist()), reverse=True)


def _masks4(lengths: Sequence[int]) -> npt.NDArray[np.void]:
    return np.array([(length, 0xFFFFFFFF >> length ^ 0xFFFFFFFF) for length in lengths or [0]], LENGTH4)


def _masks6(lengths: Sequence[int]) -> npt.NDArray[np.void]:
    masks = [(length, _FULL6 >> length ^ _FULL6) for length in lengths or [0]]
    return np.array([(length, mask >> 64, mask & _LOW) for length, mask in masks], LENGTH6)


def _array(values: npt.NDArray[np.generic]) -> Filling:
    return Filling(np.arange(len(values), dtype=np.uint32).tobytes(), values.tobytes(), len(values))


def _hash(keys: npt.NDArray[np.void], entries: U32) -> Filling:
    return Filling(keys.tobytes(), entries.tobytes(), len(keys))


def _failsafe(inbound: Iterable[Failsafe], outbound: Iterable[Failsafe]) -> Filling:
    """The ports of failsafes. The program passes them whatever the failsafe's net is, and leaves the net to raw."""
    ports = {(item.port, item.protocol, PORT_INBOUND) for item in inbound}
    ports |= {(item.port, item.protocol, PORT_RETURN) for item in outbound}
    ports |= {(0, protocol, PORT_ANY) for _, protocol, _ in ports}
    if ports:
        ports.add((0, ANY_PROTOCOL, PORT_ANY))
    return Filling(np.array(sorted(ports), FAILSAFE_PORT).tobytes(), b"\1" * len(ports), len(ports))
