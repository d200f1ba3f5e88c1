"""Plan: which stage of an interface enforces which entries, and why not an earlier one. Pure.

XDP only accelerates: every entry is in raw as well, so what XDP leaves alone raw still decides (Calico does the same).
An entry is *enforced at* the earliest stage that can drop its packets; its ``reason`` says why no earlier stage does.

:func:`make_plan` decides. XDP gets the longest run of entries, from the first, that it can decide: were one left out, a
packet it allows could be dropped by one behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enforcer.backends.xdp.eligible import why_not
from enforcer.errors import UnsupportedKernelError
from enforcer.facts import HostFacts, InterfaceFacts, Probe
from enforcer.mode import ModeChoice
from enforcer.policy.resources import FelixConfiguration
from enforcer.policy.ruletable import Entry, RuleTable
from enforcer.words import STAGE_OF_MODE, Answer, Backend, Mode, Stage

Reasons = tuple[tuple[Mode, str], ...]


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
    mode_reasons: Reasons = ()

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

    def interface(self, name: str) -> InterfacePlan | None:
        return next((item for item in self.interfaces if item.interface == name), None)


def make_plan(
    tables: Sequence[RuleTable],
    facts: HostFacts,
    *,
    felix: FelixConfiguration,
    choice: ModeChoice = ModeChoice.AUTO,
) -> Plan:
    """The plan of every interface that has an endpoint and untracked entries; others are left out.

    Raises UnsupportedKernelError when an interface answers NO to the mode asked for by name, or there is no raw table.
    A probe that cannot tell is no obstacle: attaching will tell.
    """
    governed = [table for table in tables if table.endpoint is not None and (table.ingress or table.egress)]
    if governed:
        _require_raw(facts)
    impossible = [reason for table in governed for reason in _impossible(table, facts, felix, choice)]
    if impossible:
        raise UnsupportedKernelError("\n".join(impossible))
    return Plan(facts.node, tuple(_plan_interface(table, facts, felix, choice) for table in governed))


def wants_xdp(table: RuleTable, *, felix: FelixConfiguration, choice: ModeChoice) -> bool:
    """Whether what an interface says of XDP can make a difference to its plan."""
    if choice is ModeChoice.RAW or (choice is ModeChoice.AUTO and not felix.xdp_enabled):
        return False
    return _xdp_length(_obstacles(table)) > 0


def _require_raw(facts: HostFacts) -> None:
    raw = facts.backends.get(Backend.IPTABLES)
    if raw is not None and raw.answer is Answer.NO:
        raise UnsupportedKernelError(f"this host has no raw table that could hold the policy: {raw.reason}")


def _impossible(table: RuleTable, facts: HostFacts, felix: FelixConfiguration, choice: ModeChoice) -> list[str]:
    """The sentence that refuses the mode asked for; none where it is possible, or has nothing to do."""
    if choice.mode is None or not _xdp_length(_obstacles(table)):
        return []
    answer = _answer(_interface(table, facts), choice.mode)
    if answer.answer is not Answer.NO:
        return []
    auto = _plan_interface(table, facts, felix, ModeChoice.AUTO).mode
    return [
        f"{table.interface}: mode '{choice}' is not possible: {answer.reason}. "
        f"Mode 'auto' would choose {ModeChoice.of(auto)}"
    ]


def _plan_interface(table: RuleTable, facts: HostFacts, felix: FelixConfiguration, choice: ModeChoice) -> InterfacePlan:
    obstacles = _obstacles(table)
    length = _xdp_length(obstacles)
    if length:
        mode, reasons = _choose(_interface(table, facts), felix, choice)
    else:
        mode, reasons = None, tuple((mode, obstacles[0]) for mode in Mode) if obstacles else ()
    planned = tuple(
        PlannedEntry(entry, *_place(at, length, obstacles, mode, reasons)) for at, entry in enumerate(table.ingress)
    )
    planned += tuple(PlannedEntry(entry, Stage.RAW, why_not(entry)) for entry in table.egress)
    return InterfacePlan(table, mode, Backend.IPTABLES, planned, reasons)


def _place(at: int, length: int, obstacles: Sequence[str], mode: Mode | None, reasons: Reasons) -> tuple[Stage, str]:
    """Where the ingress entry number ``at`` is enforced, and why not earlier."""
    if at >= length:
        return Stage.RAW, obstacles[at]
    return STAGE_OF_MODE[mode] if mode else Stage.RAW, _sentence(reasons)


def _sentence(reasons: Reasons) -> str:
    """Reasons as one line; modes that share a reason are named together."""
    modes: dict[str, list[str]] = {}
    for mode, reason in reasons:
        modes.setdefault(reason, []).append(str(mode))
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in modes.items())


def _obstacles(table: RuleTable) -> list[str]:
    """For each ingress entry why XDP cannot decide it; "" where it can. One obstacle stops all entries behind it."""
    found: list[str] = []
    stopper = ""
    for entry in table.ingress:
        own = why_not(entry)
        found.append(own or stopper)
        if own and not stopper:
            stopper = f"after {entry.name}, which XDP cannot decide"
    return found


def _xdp_length(obstacles: Sequence[str]) -> int:
    return next((at for at, obstacle in enumerate(obstacles) if obstacle), len(obstacles))


def _choose(interface: InterfaceFacts, felix: FelixConfiguration, choice: ModeChoice) -> tuple[Mode | None, Reasons]:
    """The mode, and for each earlier one why not."""
    reasons: list[tuple[Mode, str]] = []
    for mode in Mode:
        reason = _why_not_mode(mode, interface, felix, choice)
        if not reason:
            return mode, tuple(reasons)
        reasons.append((mode, reason))
    return None, tuple(reasons)


def _why_not_mode(mode: Mode, interface: InterfaceFacts, felix: FelixConfiguration, choice: ModeChoice) -> str:
    """Why a mode is passed over, "" when it is taken. A mode asked for by name overrides the configuration."""
    if choice is not ModeChoice.AUTO:
        return "" if mode is choice.mode else f"mode '{choice}' was asked for"
    if not felix.xdp_enabled:
        return "switched off by xdpEnabled: false"
    answer = _answer(interface, mode)
    if answer.answer is Answer.NO:
        return answer.reason
    if mode is Mode.GENERIC and not felix.generic_xdp_enabled:
        return "not asked for; genericXDPEnabled: true allows it"
    return ""


def _answer(interface: InterfaceFacts, mode: Mode) -> Probe:
    """What the interface says to a mode. A foreign program is a NO to all of them: it is never touched."""
    if interface.foreign_xdp:
        return Probe(Answer.NO, f"another XDP program is there and stays: {interface.foreign_xdp}")
    return interface.modes.get(mode, Probe(Answer.UNKNOWN, "not probed"))


def _interface(table: RuleTable, facts: HostFacts) -> InterfaceFacts:
    return facts.interface(table.interface) or InterfaceFacts(table.interface)
