"""Plan: which stage of an interface enforces which entries, and why not an earlier one. Pure.

XDP only accelerates: every entry is in raw as well, so raw decides what XDP passes (Calico does the same).
An entry is *enforced at* the earliest stage that can execute it; its ``reason`` states why no earlier stage does.

:func:`make_plan` takes the earliest mode that an interface supports, but prefers the driver to hardware that holds
fewer entries: a device holds only source deny lists, and the driver drops the rest earlier than raw. XDP holds the
longest possible run of entries from the first one on: if one were left out, a later entry could drop a packet that it
allows. XDP drops for the Deny entries of the run, and passes what others match to raw.

If netdev ingress is requested, an nf_tables chain right after the driver drops the packets of interfaces without XDP:
the same run of entries, under the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.errors import UnsupportedKernelError
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import STAGE_OF_MODE, Answer, Backend, Mode, Stage
from enforcer.planning.raw_choice import raw_backend, require_netdev
from enforcer.planning.xdp_capability import NETDEV, XDP, Obstacle, why_raw
from enforcer.planning.xdp_run import XdpRun, runs_of
from enforcer.policy.resources import FelixConfiguration
from enforcer.policy.ruletable import Entry, RuleTable
from enforcer.policy.tracked import TrackedTable

Reasons = tuple[tuple[Mode, str], ...]


@dataclass(frozen=True)
class PlannedEntry:
    entry: Entry
    stage: Stage
    reason: str = ""  # why not an earlier stage; "" at the earliest possible stage


@dataclass(frozen=True)
class InterfacePlan:
    """``mode`` None: no XDP. ``mode_reasons`` states for each earlier mode why it is not used.

    ``held`` is the number of ingress entries, from the first, that the early stage holds: the XDP program, or without
    one the chains of ``netdev`` ingress. ``raw_reason`` states why this raw backend was chosen.
    """

    table: RuleTable
    mode: Mode | None
    raw_backend: Backend
    entries: tuple[PlannedEntry, ...]
    mode_reasons: Reasons = ()
    held: int = 0
    raw_reason: str = ""
    netdev: bool = False

    @property
    def interface(self) -> str:
        return self.table.interface

    @property
    def early(self) -> Stage | None:
        """The stage before raw that drops; None if there is none."""
        if self.mode:
            return STAGE_OF_MODE[self.mode]
        return Stage.NETDEV_INGRESS if self.netdev else None

    @property
    def early_entries(self) -> tuple[Entry, ...]:
        """What the early stage holds: a prefix of the table's ingress entries."""
        return self.table.ingress[: self.held]

    @property
    def xdp_entries(self) -> tuple[Entry, ...]:
        """What the XDP program holds; nothing without one."""
        return self.early_entries if self.mode else ()


@dataclass(frozen=True)
class TrackedPlan:
    """The policy of one interface after conntrack, and the backend that holds it if it is ``enforced``."""

    table: TrackedTable
    backend: Backend
    enforced: bool

    @property
    def interface(self) -> str:
        return self.table.interface


@dataclass(frozen=True)
class Plan:
    """``idle``: tables of interfaces whose endpoint is selected only by tracked policies; nothing to enforce in raw.

    ``tracked``: the interfaces whose policy after conntrack is enforced or known.
    """

    node: str
    interfaces: tuple[InterfacePlan, ...]
    idle: tuple[RuleTable, ...] = ()
    tracked: tuple[TrackedPlan, ...] = ()

    def interface(self, name: str) -> InterfacePlan | None:
        return next((item for item in self.interfaces if item.interface == name), None)

    def tracked_by(self, backend: Backend) -> list[TrackedTable]:
        """The tables of tracked policy that this backend enforces."""
        return [item.table for item in self.tracked if item.enforced and item.backend is backend]


def make_plan(
    tables: Sequence[RuleTable],
    facts: HostFacts,
    *,
    felix: FelixConfiguration,
    choice: ModeChoice = ModeChoice.AUTO,
    raw: RawChoice = RawChoice.AUTO,
    netdev: bool = False,
    runs: Mapping[str, XdpRun] | None = None,
    tracked: Sequence[TrackedTable] = (),
    tracked_choice: TrackedChoice = TrackedChoice.MODEL,
) -> Plan:
    """The plan of every interface with an endpoint and untracked entries; others are omitted.

    ``netdev``: use netdev ingress on interfaces without XDP. Raises UnsupportedKernelError when an interface answers NO
    for the requested mode, or when there is no raw backend, or no nf_tables for netdev ingress. A probe that cannot
    tell does not exclude a mode: attaching will tell. ``runs``: the known runs that XDP holds of these tables.
    ``tracked``: the tables of policy after conntrack; raw's backend holds them if they are to be enforced.
    """
    governed = [table for table in tables if table.endpoint is not None and (table.ingress or table.egress)]
    idle = tuple(table for table in tables if table.tracked and not (table.ingress or table.egress))
    if not governed and (not tracked or tracked_choice is TrackedChoice.MODEL):
        known = tuple(TrackedPlan(table, Backend.IPTABLES, enforced=False) for table in tracked)
        return Plan(facts.node, (), idle, known)
    backend, why = raw_backend(facts, felix, raw)
    later = tuple(TrackedPlan(table, backend, tracked_choice is TrackedChoice.ENFORCE) for table in tracked)
    if netdev:
        require_netdev(facts)
    found = runs or runs_of(governed)
    xdp = [found[table.interface] for table in governed]
    impossible = [reason for run in xdp for reason in _impossible(run, facts, felix, choice)]
    if impossible:
        raise UnsupportedKernelError("\n".join(impossible))
    planned = (_plan_interface(run, facts, felix, choice, netdev=netdev) for run in xdp)
    interfaces = tuple(replace(item, raw_backend=backend, raw_reason=why) for item in planned)
    return Plan(facts.node, interfaces, idle, later)


def wants_xdp(run: XdpRun, *, felix: FelixConfiguration, choice: ModeChoice) -> bool:
    """Whether an interface's XDP support affects its plan."""
    if choice is ModeChoice.RAW or (choice is ModeChoice.AUTO and not felix.xdp_enabled):
        return False
    return run.held() > 0


def _impossible(run: XdpRun, facts: HostFacts, felix: FelixConfiguration, choice: ModeChoice) -> list[str]:
    """The error for a requested mode that is not possible; none if it is possible or would have nothing to do."""
    if choice.mode is None or not run.held(choice.mode):
        return []
    answer = _answer(_interface(run.table, facts), choice.mode)
    if answer.answer is not Answer.NO:
        return []
    auto = _plan_interface(run, facts, felix, ModeChoice.AUTO).mode
    return [
        f"{run.table.interface}: mode '{choice}' is not possible: {answer.reason}. "
        f"Mode 'auto' would choose {ModeChoice.of(auto)}"
    ]


def _plan_interface(
    xdp: XdpRun, facts: HostFacts, felix: FelixConfiguration, choice: ModeChoice, *, netdev: bool = False
) -> InterfacePlan:
    table = xdp.table
    reasons: Reasons
    if xdp.held():
        mode, reasons = _choose(xdp, _interface(table, facts), felix, choice)
    else:
        mode, reasons = None, tuple((mode, _why_idle(xdp)) for mode in Mode) if table.ingress else ()
    answer = _interface(table, facts).netdev_ingress
    possible = netdev and mode is None and answer.answer is not Answer.NO
    run = xdp.held(mode) if mode or possible else 0
    plan = InterfacePlan(table, mode, Backend.IPTABLES, (), reasons, run, netdev=possible and run > 0)
    why_not = _sentence(reasons)
    if netdev and mode is None and answer.answer is Answer.NO:
        why_not += f"; {Stage.NETDEV_INGRESS}: {answer.reason}"
    blocked = xdp.obstacles(mode)
    planned = tuple(_place(entry, at, blocked[at], plan, why_not) for at, entry in enumerate(table.ingress))
    planned += tuple(
        PlannedEntry(entry, Stage.RAW, f"{_holder(plan)} sees received packets only") for entry in table.egress
    )
    return replace(plan, entries=planned)


def _why_idle(run: XdpRun, mode: Mode | None = None) -> str:
    """Why XDP has nothing to do for a table with entries."""
    why = next(filter(None, run.obstacles(mode)), None)
    return why.sentence() if why else "no entry that XDP could drop for"


def _place(entry: Entry, at: int, blocked: Obstacle | None, plan: InterfacePlan, why_not: str) -> PlannedEntry:
    """Where an ingress entry is enforced, and why not earlier. ``blocked``: why XDP does not hold it."""
    if plan.early is None or at >= plan.held:
        return PlannedEntry(entry, Stage.RAW, blocked.sentence(_holder(plan)) if blocked else why_not)
    raw = why_raw(entry, _holder(plan))
    return PlannedEntry(entry, Stage.RAW, raw) if raw else PlannedEntry(entry, plan.early, why_not)


def _holder(plan: InterfacePlan) -> str:
    """The name of the early stage in a reason."""
    return NETDEV if plan.netdev else XDP


def _sentence(reasons: Reasons) -> str:
    """Reasons as one line; modes that share a reason are named together."""
    modes: dict[str, list[str]] = {}
    for mode, reason in reasons:
        modes.setdefault(reason, []).append(str(mode))
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in modes.items())


def _choose(
    run: XdpRun, interface: InterfaceFacts, felix: FelixConfiguration, choice: ModeChoice
) -> tuple[Mode | None, Reasons]:
    """The mode, and for each earlier one why not. Of device and driver the one that holds more, else generic."""
    reasons: dict[Mode, str] = {}
    held_by: dict[Mode, int] = {}
    for mode in Mode:
        reason = _why_not_mode(mode, interface, felix, choice)
        if not reason:
            held_by[mode] = run.held(mode)
            reason = "" if held_by[mode] else _why_idle(run, mode)
        reasons[mode] = reason
    # max() returns the first of equals.
    best = max((Mode.OFFLOAD, Mode.NATIVE), key=lambda mode: held_by.get(mode, 0))
    if not held_by.get(best):
        best = Mode.GENERIC
    if not held_by.get(best):
        return None, tuple(reasons.items())
    for mode in held_by:
        reasons[mode] = (
            reasons[mode] or f"holds {held_by[mode]} of {len(run.table.ingress)} entries; {best} holds {held_by[best]}"
        )
    return best, tuple((mode, reasons[mode]) for mode in Mode if list(Mode).index(mode) < list(Mode).index(best))


def _why_not_mode(mode: Mode, interface: InterfaceFacts, felix: FelixConfiguration, choice: ModeChoice) -> str:
    """Why a mode is not used, "" if it is. A mode requested by name overrides the configuration."""
    if choice is not ModeChoice.AUTO:
        return "" if mode is choice.mode else f"mode '{choice}' was requested"
    if not felix.xdp_enabled:
        return "switched off by xdpEnabled: false"
    answer = _answer(interface, mode)
    if answer.answer is Answer.NO:
        return answer.reason
    if interface.unseen:  # XDP drops only what raw would drop; a mode requested by name asserts that this holds
        return f"{interface.unseen}; '--mode {mode}' asserts that there is none"
    if mode is Mode.GENERIC and not felix.generic_xdp_enabled:
        return "not enabled; genericXDPEnabled: true enables it"
    return ""


def _answer(interface: InterfaceFacts, mode: Mode) -> Probe:
    """The interface's answer for a mode. A foreign program rules out every mode: it is never touched."""
    if interface.foreign_xdp:
        return Probe(Answer.NO, f"a foreign XDP program is attached and stays: {interface.foreign_xdp}")
    return interface.modes.get(mode, Probe(Answer.UNKNOWN, "not probed"))


def _interface(table: RuleTable, facts: HostFacts) -> InterfaceFacts:
    return facts.interface(table.interface) or InterfaceFacts(table.interface)
