"""Plan: which stage of an interface enforces which entries, and why not an earlier one. Pure.

XDP only accelerates: every entry is in raw as well, so what XDP leaves alone raw still decides (Calico does the same).
An entry is *enforced at* the earliest stage that can drop its packets; its ``reason`` says why no earlier stage does.
"""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.policy.ruletable import Entry, RuleTable
from enforcer.words import Backend, Mode, Stage


@dataclass(frozen=True)
class PlannedEntry:
    entry: Entry
    stage: Stage
    reason: str = ""  # why not an earlier stage; "" when it is at the earliest there is


@dataclass(frozen=True)
class InterfacePlan:
    """``mode`` None: no XDP here. ``mode_reasons`` says, for each mode not used that is earlier, why not."""

    table: RuleTable
    mode: Mode | None
    raw_backend: Backend
    entries: tuple[PlannedEntry, ...]
    mode_reasons: tuple[tuple[Mode, str], ...] = ()

    @property
    def interface(self) -> str:
        return self.table.interface

    @property
    def xdp_entries(self) -> tuple[Entry, ...]:
        """What the XDP program holds: a prefix of the table's ingress entries."""
        return tuple(item.entry for item in self.entries if item.stage is not Stage.RAW)


@dataclass(frozen=True)
class Plan:
    node: str
    interfaces: tuple[InterfacePlan, ...]
