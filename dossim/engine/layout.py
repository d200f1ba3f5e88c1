"""The structures of ``engine/predict.h``: rows of arrays as numpy types, what points to them as ctypes structures.

Arrays have to live as long as a structure that points to them: :class:`Kept` holds them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from enforcer.model.nets import Nets

_U8, _U16, _U32, _U64 = np.uint8, np.uint16, np.uint32, np.uint64
_I16, _I32, _I64 = np.int16, np.int32, np.int64

# Lists of fewer ranges are searched without an index.
_INDEXED_FROM = 16

RANGE4 = np.dtype([("first", _U32), ("last", _U32)])
RANGE6 = np.dtype([("first", _U64, 2), ("last", _U64, 2)])
CONDITION = np.dtype(
    [
        ("kind", _U8),
        ("side", _U8),
        ("negated", _U8),
        ("single", _U8),
        ("a", _I32),
        ("b", _I32),
        ("c", _I32),
        ("d", _I32),
    ],
    align=True,
)
ENTRY = np.dtype(
    [
        *((name, _U8) for name in ("action", "families", "protocols", "ports", "numbers", "types")),
        *(("tier", _U16), ("first", _U32), ("count", _U32), ("index", _I32)),
    ],
    align=True,
)
PORT_RANGE = np.dtype([("first", _U16), ("last", _U16)])
PORT_MEMBER = np.dtype([("address", _U64, 2), ("port", _U16), ("version", _U8), ("pad", _U8, 5)])
PORT_SET = np.dtype([("first", _U32), ("count", _U32), ("protocol", _I32), ("pad", _U32)])
FAILSAFE = np.dtype([("protocol", _I32), ("port", _I32), ("nets", _I32), ("version", _I32)])
TIER = np.dtype([("first", _U32), ("count", _U32), ("by_default", _I32)])
ROUTE = np.dtype([("net", _U64, 2), ("mask", _U64, 2), ("version", _I32), ("length", _I32)])
FLOW = np.dtype(
    [
        *(("source", _U64, 2), ("destination", _U64, 2), ("number", _I64), ("at", _I64)),
        *((name, _I32) for name in ("length", "captured", "sport", "dport")),
        *((name, _I16) for name in ("protocol", "icmp_type", "icmp_code")),
        *((name, _U8) for name in ("version", "later_fragment", "whole_header", "group", "untracked", "marked")),
        *((name, _U8) for name in ("way", "sum", "extended", "pad")),
    ],
    align=True,
)
OUTCOME = np.dtype(
    [
        *(("fate", _U8), ("stage", _U8), ("reason", _U16), ("entry", _I32), ("untracked", _U32)),
        *(("elsewhere", _U32), ("packets", _I64)),
    ],
    align=True,
)
LEFT = np.dtype(
    [
        *(("row", _I64), ("key", _U64), ("mark", _U64), ("part", _U32), ("pad", _U32), ("code", _U32)),
        *((name, _U8) for name in ("flags", "marking", "is_from_host", "is_cut")),
    ]
)

SEVERAL = np.dtype(
    [
        *(("number", _I64), ("entry", _I32, 5), ("reason", _U16, 5), ("fate", _U8, 5), ("stage", _U8, 5)),
        *(("states", _U8), ("is_set", _U8)),
    ],
    align=True,
)
LATE = np.dtype(
    [
        *(("number", _I64), ("entry", _I32), ("reason", _U16), ("said", _U16)),
        *((name, _U8) for name in ("fate", "stage", "untracked", "states")),
        ("pad", _U32),
    ],
    align=True,
)
TOLD = np.dtype([("number", _I64), ("captured", _I32), ("wire", _I32)], align=True)
CUT_COUNT = np.dtype([("code", _U32), ("captured", _I32), ("wire", _I32), ("pad", _U32), ("packets", _I64)], align=True)
FLOW_CLASSES = 10  # enum flow_class of engine/new_flows.h
SAID = np.dtype([("state", _U8), ("because", _U8), ("remark", _U8)])
SAYING = np.dtype([("outcomes", SAID, 8), ("count", _U8), ("coin", _U8), ("pad", _U8, 6)])

Rows = npt.NDArray[np.void]
_POINTER = ctypes.c_void_p


class NetsStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("four", "six", "root4")),
        *((name, ctypes.c_uint32) for name in ("count4", "count6")),
    )


class RulesStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("entries", "conditions", "nets", "ranges", "names", "port_sets")),
        *((name, _POINTER) for name in ("port_members", "own", "other")),
        *((name, ctypes.c_uint32) for name in ("entry_count", "own_count", "other_count")),
        *(("egress", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3)),
    )


class ChainStruct(ctypes.Structure):
    _fields_ = (
        *(("rules", RulesStruct), ("tiers", _POINTER), ("tier_count", ctypes.c_uint32)),
        *(("by_invalid", ctypes.c_int32), ("by_end", ctypes.c_int32)),
    )


class AfterStruct(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.POINTER(ChainStruct))
        for name in ("pre_dnat", "input", "forward_in", "forward_out", "forward_inside")
    )


class WorldStruct(ctypes.Structure):
    _fields_ = (
        *(("raw", RulesStruct), ("held", ctypes.c_uint32)),
        *((name, ctypes.c_uint8) for name in ("early", "early_stage", "skips_authentication", "forward")),
        *((name, ctypes.c_uint8) for name in ("rp_filter", "has4", "records_flows", "pad")),
        *(("mtu", ctypes.c_uint32), ("classes", _POINTER)),
        *((name, NetsStruct) for name in ("own", "broadcasts", "anycasts", "joined", "routed")),
        *(("inside", _POINTER), ("outside", _POINTER)),
        *(("inside_count", ctypes.c_uint32), ("outside_count", ctypes.c_uint32)),
        *(("udp_ports", _POINTER), ("udp_count", ctypes.c_uint32)),
    )


class CaptureStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("data", "offset", "length", "wire_length")),
        ("size", ctypes.c_int64),
    )


class ColumnsStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("fate", "stage", "entry", "reason", "untracked", "odd", "flows")),
        ("flow_count", ctypes.c_int64),
    )


class SweepStruct(ctypes.Structure):
    _fields_ = (
        *(("run", _POINTER), ("follower", _POINTER)),
        *((name, ctypes.c_int64) for name in ("packets", "from_host", "cut", "earliest_ns", "latest_ns")),
    )


class WindowStruct(ctypes.Structure):
    _fields_ = (
        *(("data", _POINTER), ("size", ctypes.c_int64), ("used", ctypes.c_int64)),
        *((name, _POINTER) for name in ("offset", "length", "wire_length", "number", "timestamp_ns")),
        *(("most", ctypes.c_int64), ("count", ctypes.c_int64)),
    )


class FileStruct(ctypes.Structure):
    _fields_ = (
        *(("data", _POINTER), ("size", ctypes.c_int64)),
        *((name, ctypes.c_uint32) for name in ("big_endian", "header", "unit_ns", "largest", "longest")),
        ("largest_block", ctypes.c_uint32),
    )


class WalkStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("offset", "length", "wire_length", "timestamp_ns", "number")),
        *((name, _POINTER) for name in ("link", "fcs", "cause")),
        *((name, ctypes.c_int64) for name in ("most", "at", "count", "number_next")),
    )


class BlocksStruct(ctypes.Structure):
    _fields_ = (
        *(("interfaces", _POINTER), ("interface_count", ctypes.c_uint32), ("plain", ctypes.c_uint32)),
        ("late", ctypes.c_int64),
    )


class ReadingStruct(ctypes.Structure):
    _fields_ = (
        *(("file", FileStruct), ("blocks", BlocksStruct)),
        *(("is_pcapng", ctypes.c_uint32), ("descriptor", ctypes.c_int32), ("size", ctypes.c_int64)),
        ("rest", _POINTER),
        *((name, ctypes.c_int64) for name in ("rest_size", "base", "number", "taken", "packets")),
    )


class RunnerStruct(ctypes.Structure):
    _fields_ = (
        *(("data", _POINTER), ("walk", WalkStruct), ("sweep", _POINTER), ("left", _POINTER)),
        *((name, ctypes.c_int64) for name in ("left_count", "handed_on", "place")),
    )


class DoubtStruct(ctypes.Structure):
    _fields_ = (
        *(("rows", _POINTER), ("otherwise", _POINTER), ("count", ctypes.c_int64)),
        *(("reason", ctypes.c_uint16), ("pad", ctypes.c_uint8 * 6)),
    )


class WayStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("after", "sends_outside", "sends_inside", "tcp_ports")),
        *(("tcp_count", ctypes.c_uint32), ("tracks", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3)),
    )


class FollowerStruct(ctypes.Structure):
    _fields_ = (
        *(("world", _POINTER), ("ways", _POINTER), ("way_count", ctypes.c_uint64), ("new_flows", _POINTER)),
        *((name, ctypes.c_uint64) for name in ("seed", "most_flow_bytes", "most_fragment_bytes")),
        *(("alone", ctypes.c_uint16), ("pad", ctypes.c_uint8 * 6)),
    )


class WayColumnsStruct(ctypes.Structure):
    _fields_ = tuple((name, _POINTER) for name in ("fate", "stage", "entry", "reason", "untracked", "states", "said"))


class BatchStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("capture", "columns", "times", "doubt", "refused", "refused_reasons")),
        *(("refused_count", ctypes.c_int64), ("shortened", _POINTER), ("whole_length", _POINTER)),
        ("count", ctypes.c_int64),
        *(("shortened_reason", ctypes.c_uint16), ("is_last", ctypes.c_uint8), ("stops", ctypes.c_uint8)),
        ("pad", ctypes.c_uint8 * 4),
        *((name, ctypes.c_int64) for name in ("taken", "from_host", "cut")),
    )


class FollowedStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("several", "late", "told", "sayings")),
        *((f"{name}_count", ctypes.c_uint64) for name in ("several", "late", "told", "saying")),
    )


class CountedStruct(ctypes.Structure):
    _fields_ = (
        *((name, _POINTER) for name in ("outcomes", "packets", "cuts")),
        *((name, ctypes.c_uint64) for name in ("outcome_count", "packet_count", "cut_count")),
        *((name, ctypes.c_int64) for name in ("several", "several_after", "open_here")),
    )


FlowKeys = ctypes.c_uint64 * 16  # two for each of FLOW_KEYS of engine/new_flows.h


class FlowSetupStruct(ctypes.Structure):
    _fields_ = (
        *(("own", NetsStruct), ("tcp_ports", _POINTER), ("tcp_count", ctypes.c_uint32)),
        *(("forward", ctypes.c_uint8), ("tcp_loose", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 2)),
        *(("keys", FlowKeys), ("most", ctypes.c_uint64)),
    )


class FlowCountsStruct(ctypes.Structure):
    _fields_ = (
        ("flows", ctypes.c_int64 * FLOW_CLASSES),
        *((name, ctypes.c_int64) for name in ("beginning", "unknown", "is_more")),
    )


# In the order of engine/layout.c.
LAYOUT: tuple[np.dtype[np.void] | type[ctypes.Structure], ...] = (
    *(RANGE4, RANGE6, CONDITION, ENTRY, PORT_RANGE, PORT_MEMBER, PORT_SET, FAILSAFE, TIER, ROUTE, FLOW),
    *(NetsStruct, RulesStruct, ChainStruct, AfterStruct, WorldStruct, CaptureStruct, ColumnsStruct),
    *(OUTCOME, LEFT, SweepStruct, WindowStruct, FileStruct, WalkStruct, BlocksStruct, ReadingStruct, RunnerStruct),
    *(SEVERAL, LATE, TOLD, SAYING, DoubtStruct, WayStruct, FollowerStruct, WayColumnsStruct, BatchStruct),
    *(FollowedStruct, CUT_COUNT, CountedStruct, FlowSetupStruct, FlowCountsStruct),
)


class Kept:
    """The arrays that structures point to."""

    def __init__(self) -> None:
        self._arrays: list[Any] = []

    def rows(self, kind: npt.DTypeLike, rows: Sequence[Any]) -> int:
        """The address of an array of these rows."""
        return self.array(np.array(rows, kind))

    def array(self, array: npt.NDArray[Any]) -> int:
        """The address of a contiguous array with these values."""
        array = np.ascontiguousarray(array)
        self._arrays.append(array)
        return int(array.ctypes.data)

    def nets(self, nets: Nets) -> NetsStruct:
        first, last = nets.intervals4
        four = np.empty(len(first), RANGE4)
        four["first"], four["last"] = first, last
        root = None
        if len(first) >= _INDEXED_FROM:
            starts = np.arange(65537, dtype=np.uint64) << np.uint64(16)
            root = self.array(np.searchsorted(first.astype(np.uint64), starts).astype(np.uint32))
        six = np.empty(len(nets.ranges6[0]), RANGE6)
        six["first"], six["last"] = nets.ranges6
        return NetsStruct(self.array(four), self.array(six), root, len(four), len(six))

    def all_nets(self, nets: Sequence[Nets]) -> int:
        """The address of an array of structures."""
        found = (NetsStruct * len(nets))(*map(self.nets, nets))
        self._arrays.append(found)
        return ctypes.addressof(found)
