"""``engine/predict.c``: all stages, for the packets of a capture."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import FLOW, ROUTE, CaptureStruct, ColumnsStruct, DoubtStruct, Kept, Rows, WorldStruct
from dossim.engine.library import function
from dossim.engine.rules import I32, U8, Chain, Ends, RuleRows, Rules
from enforcer.model.nets import Nets

NOT_EARLY, XDP, DEVICE, NETDEV = range(4)
NOWHERE, TO_HOST, OUT_AGAIN, INSIDE = range(4)
NOT_ODD, FRAGMENT, OPEN = range(3)
_OUT_OF_MEMORY = -2


class Frames(Protocol):
    """The arrays of a Capture."""

    @property
    def data(self) -> U8: ...
    @property
    def offset(self) -> npt.NDArray[np.int64]: ...
    @property
    def length(self) -> I32: ...
    @property
    def wire_length(self) -> I32: ...


@dataclass(frozen=True)
class World:
    """The host and its interface. ``early`` is NOT_EARLY, XDP, DEVICE or NETDEV; ``early_stage`` its code; the stage
    holds the first ``held`` entries. ``inside`` and ``outside``: rows of ROUTE.
    """

    rules: RuleRows
    held: int
    early: int
    early_stage: int
    skips_authentication: bool
    forward: bool
    rp_filter: int
    has4: bool
    mtu: int
    own: Nets
    broadcasts: Nets
    anycasts: Nets
    joined: Nets
    routed: Nets
    inside: Sequence[tuple[tuple[int, int], tuple[int, int], int, int]]
    outside: Sequence[tuple[tuple[int, int], tuple[int, int], int, int]]
    udp_ports: Sequence[int]


class Predictor:
    """The engine for one host and interface. ``others``: rules beside those of the world by which packets are told
    apart, so that what they say of usual ones is remembered.
    """

    def __init__(self, world: World, others: Sequence[Rules | Chain] = ()) -> None:
        kept = self._kept = Kept()
        self.struct = WorldStruct(
            raw=world.rules.struct(kept, egress=False),
            held=world.held,
            early=world.early,
            early_stage=world.early_stage,
            skips_authentication=world.skips_authentication,
            forward=world.forward,
            rp_filter=world.rp_filter,
            has4=world.has4,
            mtu=world.mtu,
            inside=kept.rows(ROUTE, world.inside),
            outside=kept.rows(ROUTE, world.outside),
            inside_count=len(world.inside),
            outside_count=len(world.outside),
            udp_ports=kept.rows(np.uint16, world.udp_ports),
            udp_count=len(world.udp_ports),
            **{name: kept.nets(getattr(world, name)) for name in ("own", "broadcasts", "anycasts", "joined", "routed")},
        )
        pointer = ctypes.c_void_p
        self._others = others  # the engine knows them by their addresses
        addresses = (pointer * len(others))(*(one.address for one in others))
        divide = function("engine_classes", [pointer, pointer, ctypes.c_uint32], pointer)
        self.struct.classes = divide(ctypes.byref(self.struct), addresses, len(others))
        weakref.finalize(self, function("engine_classes_free", [pointer], None), self.struct.classes)

    def predict(
        self, capture: Frames, ends: Ends, doubt: DoubtGiven | None = None, *, records_flows: bool
    ) -> tuple[U8, Rows]:
        """Fill in the ends of all packets, as far as they do not depend on others. Returns for each NOT_ODD or what it
        means for those after it (uint8[N]): it is a FRAGMENT, which is not decided yet, or OPEN, of which it is not
        known whether it gets to conntrack; and if ``records_flows`` those that got to conntrack, as rows of FLOW.
        """
        self.struct.records_flows = records_flows
        count = len(capture.offset)
        odd = np.zeros(count, np.uint8)
        flows = np.empty(count if records_flows else 1, FLOW)  # of the rest the system gives no memory
        given = Given(capture)
        arrays = (ends.fate, ends.stage, ends.entry, ends.reason, ends.untracked, odd, flows)
        columns = ColumnsStruct(*(array.ctypes.data for array in arrays))
        pointer = ctypes.c_void_p
        run = function("engine_predict", [pointer, pointer, ctypes.c_int64, pointer, pointer], ctypes.c_int64)
        of = None if doubt is None else doubt.address
        given.require(run(ctypes.byref(self.struct), given.address, count, of, ctypes.byref(columns)))
        return odd, flows[: columns.flow_count]


@cache
def reasons() -> tuple[str, ...]:
    """The texts of the engine's reasons, by code."""
    reason = function("engine_reason", [ctypes.c_uint32], ctypes.c_char_p)
    found: list[str] = []
    while (text := reason(len(found))) is not None:
        found.append(text.decode())
    return tuple(found)


@cache
def cut_reasons() -> int:
    """The first of the reasons of packets that the capture cut, which do not say where."""
    return int(function("engine_cut_reasons", [], ctypes.c_uint32)())


class Given:
    """A capture as the engine reads it."""

    def __init__(self, capture: Frames) -> None:
        self._kept = Kept()
        offset = self._kept.array(np.asarray(capture.offset, np.int64))
        lengths = [self._kept.array(np.asarray(item, np.int32)) for item in (capture.length, capture.wire_length)]
        self._struct = CaptureStruct(self._kept.array(capture.data), offset, *lengths, len(capture.data))
        self.address = ctypes.addressof(self._struct)

    @staticmethod
    def require(number: int) -> None:
        """Raises ValueError if a packet is not within the data, MemoryError."""
        if number == _OUT_OF_MEMORY:
            raise MemoryError("the capture does not fit into memory")
        if number >= 0:
            raise ValueError(f"packet {number} is not within the capture's data")


class DoubtGiven:
    """Packets of a capture, by number in ascending order, of which it is not known whether they were on the wire as
    they are given, or ``otherwise``: the same packets alone. Where that matters they are undetermined from the earlier
    stage on, for the reason with this code, and it is not known whether they get to conntrack.
    """

    def __init__(self, rows: npt.NDArray[np.int64], otherwise: Frames, reason: int) -> None:
        self._kept, self._given = Kept(), Given(otherwise)
        self._struct = DoubtStruct(self._kept.array(rows), self._given.address, len(rows), reason)
        self.address = ctypes.addressof(self._struct)
