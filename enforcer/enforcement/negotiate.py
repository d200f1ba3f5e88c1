"""Settling on a plan: the kernel has the last word on modes, so plan, try, and plan again without what it refused.

Whatever becomes of XDP, each interface ends with a plan that raw can be made of. An interface that refuses a mode is
planned without it. An XDP part that fails as a whole (no descriptors left, a BPF file system that is read-only, a bug)
is left as it is in the kernel, and raw goes on without it.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from enforcer.backends.base import ApplyResult, BackendDriver
from enforcer.enforcement.probe_cache import Memory
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.errors import (
    EnforcerError,
    HostError,
    InternalError,
    KernelError,
    PrivilegeError,
    UnsupportedKernelError,
)
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Mode
from enforcer.planning.plan import InterfacePlan, Plan, make_plan
from enforcer.policy.resources import FelixConfiguration
from enforcer.policy.ruletable import RuleTable


@dataclass(frozen=True)
class Wish:
    """What is to be enforced, on what host.

    ``enforced`` are the interfaces enforced before, with their XDP mode. ``absent`` are not there: raw is made ready
    for them, whatever mode was asked for, so that they are protected from their first packet on.
    """

    tables: Sequence[RuleTable]
    facts: HostFacts
    felix: FelixConfiguration
    choice: ModeChoice
    enforced: Mapping[str, Mode | None]
    absent: frozenset[str] = frozenset()
    raw: RawChoice = RawChoice.AUTO
    netdev: bool = False


@dataclass
class Settlement:
    """``impossible``: interfaces that refuse the mode asked for by name, and the sentence that says so.

    ``failed``: why the XDP part as a whole could not be done; None where it was. What XDP enforced then stays.
    """

    plan: Plan
    changes: list[str] = field(default_factory=list)
    impossible: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: EnforcerError | None = None


def settle(wish: Wish, driver: BackendDriver, memory: Memory, *, dry_run: bool) -> Settlement:
    """Apply XDP until nothing is refused any more.

    Ends whatever the driver answers: a round is followed by another only if it ruled out a mode of an interface that no
    round before had ruled out, and there are no more rounds than such pairs.
    """
    changes: list[str] = []
    ruled_out: dict[str, dict[Mode, str]] = {}
    for _ in range(1 + len(Mode) * len(wish.tables)):
        settlement = plan_for(wish, memory, ruled_out)
        try:
            result = _apply(driver, settlement.plan, wish, dry_run=dry_run)
        except Exception as error:
            return without_xdp(wish, error, changes)
        changes += result.changes
        unexpected, is_new = _learn(wish, settlement.plan, result, memory, ruled_out)
        if not is_new:
            settlement.changes = changes
            settlement.warnings = unexpected
            return settlement
    return without_xdp(wish, InternalError("XDP refuses modes that were not asked for"), changes)


def without_xdp(wish: Wish, error: Exception, changes: Sequence[str] = ()) -> Settlement:
    """The settlement where XDP is not to be touched: interfaces stay in the mode they are in, raw is for all."""
    plans = [item for table in wish.tables for item in _as_it_is(table, wish.facts, wish)]
    return Settlement(Plan(wish.facts.node, tuple(plans)), changes=list(changes), failed=failure(error))


def plan_for(wish: Wish, memory: Memory, ruled_out: Mapping[str, Mapping[Mode, str]] | None = None) -> Settlement:
    """The plan as far as is known. An interface that refuses the mode asked for stays in the one it is in, else in raw.

    ``ruled_out``: modes refused in this pass, with the reasons.
    """
    facts = _without_modes(memory.with_refusals(wish.facts), ruled_out or {})
    planned: list[InterfacePlan] = []
    impossible: dict[str, str] = {}
    for table in wish.tables:
        choice = ModeChoice.AUTO if table.interface in wish.absent else wish.choice
        try:
            planned += _make_plan(table, facts, wish, choice).interfaces
        except UnsupportedKernelError as error:
            impossible[table.interface] = str(error)
            planned += _as_it_is(table, facts, wish)
    return Settlement(Plan(facts.node, tuple(planned)), impossible=impossible)


def _make_plan(table: RuleTable, facts: HostFacts, wish: Wish, choice: ModeChoice) -> Plan:
    return make_plan([table], facts, felix=wish.felix, choice=choice, raw=wish.raw, netdev=wish.netdev)


def _as_it_is(table: RuleTable, facts: HostFacts, wish: Wish) -> tuple[InterfacePlan, ...]:
    """In the mode it is in, where it still has that; else in raw, which every interface has."""
    mode = wish.enforced.get(table.interface)
    if mode is not None:
        try:
            return _make_plan(table, facts, wish, ModeChoice.of(mode)).interfaces
        except UnsupportedKernelError:
            pass
    return _make_plan(table, facts, wish, ModeChoice.RAW).interfaces


def _without_modes(facts: HostFacts, ruled_out: Mapping[str, Mapping[Mode, str]]) -> HostFacts:
    """The facts with a NO for these modes, of interfaces too that the facts knew nothing of."""
    corrected = {item.name: item for item in facts.interfaces}
    for name, reasons in ruled_out.items():
        item = corrected.get(name, InterfaceFacts(name))
        answers = {mode: Probe(Answer.NO, f"refused when attaching: {reason}") for mode, reason in reasons.items()}
        corrected[name] = replace(item, modes={**item.modes, **answers})
    return replace(facts, interfaces=tuple(corrected.values()))


def _apply(driver: BackendDriver, plan: Plan, wish: Wish, *, dry_run: bool) -> ApplyResult:
    """A driver that cannot work at all on this host refuses every interface that wants it.

    What the kernel refused is no such answer, nor a privilege that lacks: it is raised. But where XDP enforces nothing
    yet, so that nothing could be taken away, nowhere to pin and no privilege are: raw alone is this host's.
    """
    try:
        return driver.apply(plan, dry_run=dry_run)
    except HostError as error:
        number = error.errno if isinstance(error, KernelError) else 0
        if isinstance(error, (KernelError, PrivilegeError)) and (wish.enforced or number not in (0, errno.EROFS)):
            raise
        wanting = [item.interface for item in plan.interfaces if item.mode]
        return ApplyResult(refused=dict.fromkeys(wanting or ["XDP"], str(error)))


def _learn(
    wish: Wish,
    plan: Plan,
    result: ApplyResult,
    memory: Memory,
    ruled_out: dict[str, dict[Mode, str]],
) -> tuple[list[str], bool]:
    """Rule refused modes out, and remember those that the interface refuses. The refusals that rule out none, as
    sentences; whether any mode is newly ruled out.
    """
    unexpected: list[str] = []
    is_new = False
    for name, reason in result.refused.items():
        planned = plan.interface(name)
        mode = planned.mode if planned else None
        if mode is None or mode in ruled_out.get(name, {}):
            unexpected.append(f"{name}: {reason}")
            continue
        is_new = True
        ruled_out.setdefault(name, {})[mode] = reason
        if name not in result.foreign:
            memory.refuse(wish.facts.interface(name) or InterfaceFacts(name), mode, reason)
    return unexpected, is_new


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of an error hold: maps half made are descriptors and memory that raw may be in need of."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def failure(error: Exception) -> EnforcerError:
    """The error to end with. What the system refused (OSError, no thread, no memory) is the host's, all else ours."""
    _let_go(error)
    if isinstance(error, KernelError):
        refused = KernelError(f"XDP: {error}; raw has all of the policy", log=error.log)
        refused.errno = error.errno
        refused.__cause__ = error
        return refused
    if isinstance(error, EnforcerError):
        return error
    if isinstance(error, (OSError, MemoryError)) or "can't start new thread" in str(error):
        failure: EnforcerError = HostError(f"XDP: {error}; raw has all of the policy")
    else:
        failure = InternalError(f"XDP: {type(error).__name__}: {error}; raw has all of the policy")
    failure.__cause__ = error
    return failure
