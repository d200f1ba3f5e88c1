"""From an InterfacePlan to the contents of the XDP program's maps (bpf/include/abi.h). Pure.

The deny tries answer with the longest prefix only, but the first entry that applies to a source is the lowest index
over all prefixes that cover it. So each prefix is given that minimum when the trie is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enforcer.plan import InterfacePlan
from enforcer.policy.nets import Nets
from enforcer.policy.resources import Failsafe
from enforcer.policy.ruletable import Entry, IpSet

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

KEY4 = np.dtype([("prefix_length", "=u4"), ("address", ">u4")])
KEY6 = np.dtype([("prefix_length", "=u4"), ("high", ">u8"), ("low", ">u8")])
FAILSAFE = np.dtype([("port", ">u2"), ("protocol", "u1"), ("side", "u1")])

SIDE_INBOUND, SIDE_RETURN, SIDE_ANY = range(3)
ANY_PROTOCOL = 0

_FULL6 = (1 << 128) - 1
_EVERYWHERE = {4: Nets.of(["0.0.0.0/0"]), 6: Nets.of(["::/0"]), None: Nets.of(["0.0.0.0/0", "::/0"])}


@dataclass(frozen=True)
class MapContent:
    """What a map holds: keys and values, each concatenated, without repetition."""

    key_size: int
    value_size: int
    keys: bytes = b""
    values: bytes = b""

    def __len__(self) -> int:
        return len(self.keys) // self.key_size

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        values = (self.values[at : at + self.value_size] for at in range(0, len(self.values), self.value_size))
        keys = (self.keys[at : at + self.key_size] for at in range(0, len(self.keys), self.key_size))
        return zip(keys, values, strict=True)


@dataclass(frozen=True)
class XdpTable:
    """The maps of one interface. ``entries[i]`` is the name behind the index ``i`` in deny tries and counters."""

    entries: tuple[str, ...]
    deny4: MapContent
    deny6: MapContent
    failsafe: MapContent


def render(plan: InterfacePlan, *, ipv6: bool = True) -> XdpTable:
    """The maps that enforce the XDP entries of the plan. ``ipv6`` False leaves IPv6 alone, as raw then does."""
    sources = [_source(entry, plan.table.sets) for entry in plan.xdp_entries]
    return XdpTable(
        entries=tuple(entry.name for entry in plan.xdp_entries),
        deny4=_deny4(sources),
        deny6=_deny6(sources if ipv6 else []),
        failsafe=_failsafe(plan.table.failsafe_inbound, plan.table.failsafe_outbound),
    )


def _source(entry: Entry, sets: Mapping[str, IpSet]) -> Nets:
    """The sources an entry drops, of the families it applies to."""
    if entry.source.ip_set is not None:
        nets = sets[entry.source.ip_set].nets
    elif entry.source.nets:
        nets = Nets.of(entry.source.nets)
    else:
        return _EVERYWHERE[entry.ip_version]
    if entry.ip_version == 4:
        return Nets(nets.net4, nets.len4)
    if entry.ip_version == 6:
        return Nets(net6=nets.net6, len6=nets.len6)
    return nets


def _deny4(sources: Sequence[Nets]) -> MapContent:
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
    keys = np.empty(len(network), KEY4)
    keys["prefix_length"], keys["address"] = length, network
    return MapContent(KEY4.itemsize, 4, keys.tobytes(), entry.tobytes())


def _deny6(sources: Sequence[Nets]) -> MapContent:
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
    keys = np.empty(len(length), KEY6)
    keys["prefix_length"], keys["high"], keys["low"] = length, high, low
    return MapContent(KEY6.itemsize, 4, keys.tobytes(), entry.tobytes())


def _entry_numbers(lengths: Sequence[int]) -> U32:
    return np.repeat(np.arange(len(lengths), dtype=np.uint32), lengths)


def _firsts(*columns: U64) -> npt.NDArray[np.bool_]:
    """Where a row differs from the one before it in any column; rows are sorted."""
    first = np.ones(len(columns[0]), np.bool_)
    first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return first


def _lowest_covering(networks: Sequence[int], lasts: Sequence[int], entries: U32) -> U32:
    """For each prefix the lowest entry over itself and all that cover it; prefixes sorted, covering ones first.

    Prefixes nest or are disjoint, so those that cover the current one are a stack, and its top knows the minimum.
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


def _failsafe(inbound: Iterable[Failsafe], outbound: Iterable[Failsafe]) -> MapContent:
    """Ports that pass, whatever their net: which net a packet is from is left to raw (XDP passes in doubt)."""
    ports = {(item.port, item.protocol, SIDE_INBOUND) for item in inbound}
    ports |= {(item.port, item.protocol, SIDE_RETURN) for item in outbound}
    ports |= {(0, protocol, SIDE_ANY) for _, protocol, _ in ports}
    if ports:
        ports.add((0, ANY_PROTOCOL, SIDE_ANY))
    keys = np.array(sorted(ports), FAILSAFE)
    return MapContent(FAILSAFE.itemsize, 1, keys.tobytes(), b"\1" * len(ports))
