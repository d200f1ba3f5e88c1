"""``engine/match.c``, ``early.c`` and ``chain.c``: lists of entries, applied to rows of FLOW."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import (
    CONDITION,
    ENTRY,
    FAILSAFE,
    PORT_MEMBER,
    PORT_RANGE,
    PORT_SET,
    TIER,
    AfterStruct,
    ChainStruct,
    Kept,
    Rows,
    RulesStruct,
)
from dossim.engine.library import function
from enforcer.model.nets import Nets

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

NONE, CUT = -1, -2  # a field that a packet does not have; one that the capture cut


class Ends(Protocol):
    """Columns with a row for each packet: those of a Draft."""

    fate: U8
    stage: U8
    entry: I32
    reason: npt.NDArray[np.uint16]
    untracked: npt.NDArray[np.bool_]


class Verdict(IntEnum):
    """ACCEPTED: by a failsafe."""

    PASSED = 0
    ALLOWED = 1
    DENIED = 2
    HOTDROPPED = 3
    LEFT_OPEN = 4
    ACCEPTED = 5


@dataclass
class RuleRows:
    """Rows of the structures of their names, as tuples; ``nets`` and ``names`` are what those refer to."""

    entries: list[tuple[Any, ...]] = field(default_factory=list)
    conditions: list[tuple[Any, ...]] = field(default_factory=list)
    nets: list[Nets] = field(default_factory=list)
    ranges: list[tuple[Any, ...]] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    port_sets: list[tuple[Any, ...]] = field(default_factory=list)
    port_members: list[tuple[Any, ...]] = field(default_factory=list)
    own: list[tuple[Any, ...]] = field(default_factory=list)
    other: list[tuple[Any, ...]] = field(default_factory=list)

    def struct(self, kept: Kept, *, egress: bool) -> RulesStruct:
        return RulesStruct(
            kept.rows(ENTRY, self.entries),
            kept.rows(CONDITION, self.conditions),
            kept.all_nets(self.nets),
            kept.rows(PORT_RANGE, self.ranges),
            kept.rows(np.uint32, self.names),
            kept.rows(PORT_SET, self.port_sets),
            kept.rows(PORT_MEMBER, self.port_members),
            kept.rows(FAILSAFE, self.own),
            kept.rows(FAILSAFE, self.other),
            len(self.entries),
            len(self.own),
            len(self.other),
            egress,
        )


class Rules:
    """One direction of a RuleTable."""

    def __init__(self, rows: RuleRows, *, egress: bool) -> None:
        self._kept = Kept()
        self.struct = rows.struct(self._kept, egress=egress)
        self.address = ctypes.addressof(self.struct)

    def decide(self, flows: Rows) -> tuple[U8, I32]:
        """The verdict on each flow, and the index of the entry that denies or allows it."""
        verdict, by = np.empty(len(flows), np.uint8), np.empty(len(flows), np.int32)
        pointers = [ctypes.c_void_p] * 2
        decide = function("engine_decide", [*pointers, ctypes.c_int64, *pointers], None)
        flows = np.ascontiguousarray(flows)
        decide(ctypes.addressof(self.struct), flows.ctypes.data, len(flows), verdict.ctypes.data, by.ctypes.data)
        return verdict, by


class Chain:
    """The policy of a hook after conntrack. ``tiers``: rows of TIER; ``by_invalid``, ``by_end``: what denies INVALID,
    and what nothing decides, -1 for nothing.
    """

    def __init__(
        self, rows: RuleRows, tiers: Sequence[tuple[int, int, int]], *, by_invalid: int, by_end: int, egress: bool
    ) -> None:
        self._kept = Kept()
        rules = rows.struct(self._kept, egress=egress)
        self.struct = ChainStruct(rules, self._kept.rows(TIER, tiers), len(tiers), by_invalid, by_end)
        self.address = ctypes.addressof(self.struct) + ChainStruct.rules.offset  # of its rules


class After:
    """The policy of all hooks after conntrack. ``chains``: fields of AfterStruct, and their chains."""

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        self.chains = chains
        pointers = {name: ctypes.pointer(chain.struct) for name, chain in chains.items()}
        self.struct = AfterStruct(**pointers)
