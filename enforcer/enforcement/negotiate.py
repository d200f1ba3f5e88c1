"""Negotiates XDP modes with the kernel: plan, apply, and plan again without the modes that the kernel rejected.

Whatever happens to XDP, each interface ends with a plan that raw can apply. An interface that rejects a mode is planned
without it. If XDP fails as a whole (no descriptors left, a read-only BPF file system, a bug), its kernel state stays
unchanged, and raw continues without it.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from enforcer.backends.base import ApplyResult, ModeDriver
from enforcer.enforcement.probe_cache import ProbeCache
from enforcer.enforcement.request import ApplyRequest
from enforcer.model.choices import ModeChoice
from enforcer.model.errors import (
    EnforcerError,
    HostError,
    InternalError,
    KernelError,
    PrivilegeError,
    UnsupportedKernelError,
)
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import MODE_OF_STAGE, Answer, Mode
from enforcer.planning.plan import InterfacePlan, Plan
from enforcer.policy.ruletable import RuleTable
from enforcer.system.directories import UnusableDirectoryError


@dataclass
class Negotiated:
    """``impossible``: interfaces that reject the requested mode, with the error message.

    ``failed``: why XDP failed as a whole; None if it did not. What XDP enforced then stays. ``released``: changes made
    last, when raw was in place. ``ranges``: as in ApplyResult.
    """

    plan: Plan
    changes: list[str] = field(default_factory=list)
    impossible: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: EnforcerError | None = None
    released: tuple[str, ...] = ()
    ranges: Mapping[int, int] = field(default_factory=dict)


def negotiate_modes(request: ApplyRequest, driver: ModeDriver, cache: ProbeCache, *, dry_run: bool) -> Negotiated:
    """Apply XDP as far as possible. Errors are returned, not raised, because raw comes next."""
    try:
        with suppress(UnusableDirectoryError):  # applying reports the reason
            enforced = {name: MODE_OF_STAGE[stage] for name, stage in driver.interfaces().items()}
            request = replace(request, enforced=enforced)
        if request.choice is not ModeChoice.RAW and (probe := driver.probe()).answer is Answer.NO:
            raise HostError(probe.reason)
    except Exception as error:
        return without_xdp(request, error)
    return _apply_until_agreed(request, driver, cache, dry_run=dry_run)


def release(negotiated: Negotiated, driver: ModeDriver, *, dry_run: bool) -> None:
    """Detach XDP from interfaces that the plan has without XDP, now that raw enforces there. Nothing if XDP failed."""
    if negotiated.failed:
        return
    try:
        negotiated.released = tuple(driver.release(negotiated.plan, dry_run=dry_run))
    except UnusableDirectoryError:  # there is a warning already
        return
    except Exception as error:
        negotiated.failed = failure(error)


def _apply_until_agreed(request: ApplyRequest, driver: ModeDriver, cache: ProbeCache, *, dry_run: bool) -> Negotiated:
    """Apply until nothing is rejected.

    This ends whatever the driver answers: another round follows only if a round ruled out a new pair of interface and
    mode, and the number of rounds is limited to the number of such pairs.
    """
    changes: list[str] = []
    ruled_out: dict[str, dict[Mode, str]] = {}
    for _ in range(1 + len(Mode) * len(request.tables)):
        negotiated = plan_for(request, cache, ruled_out)
        try:
            result = _apply(driver, negotiated.plan, request, dry_run=dry_run)
        except Exception as error:
            return without_xdp(request, error, changes)
        changes += result.changes
        unexpected, is_new = _learn(request, negotiated.plan, result, cache, ruled_out)
        if not is_new:
            negotiated.changes, negotiated.ranges = changes, result.ranges
            negotiated.warnings = unexpected
            return negotiated
    return without_xdp(request, InternalError("XDP rejects modes that were not requested"), changes)


def without_xdp(request: ApplyRequest, error: Exception, changes: Sequence[str] = ()) -> Negotiated:
    """The result when XDP is not touched: interfaces keep their mode, raw is applied for all."""
    plans = [item for table in request.tables for item in _as_it_is(table, request.facts, request)]
    return Negotiated(Plan(request.facts.node, tuple(plans)), changes=list(changes), failed=failure(error))


def plan_for(
    request: ApplyRequest, cache: ProbeCache, ruled_out: Mapping[str, Mapping[Mode, str]] | None = None
) -> Negotiated:
    """The plan with present knowledge. An interface that rejects the requested mode keeps its mode, else uses raw.

    ``ruled_out``: modes rejected in this pass, with the reasons.
    """
    facts = _without_modes(cache.with_refusals(request.facts), ruled_out or {})
    planned: list[InterfacePlan] = []
    impossible: dict[str, str] = {}
    for table in request.tables:
        choice = ModeChoice.AUTO if table.interface in request.absent else request.choice
        try:
            planned += request.plan(choice, tables=[table], facts=facts).interfaces
        except UnsupportedKernelError as error:
            impossible[table.interface] = str(error)
            planned += _as_it_is(table, facts, request)
    return Negotiated(Plan(facts.node, tuple(planned)), impossible=impossible)


def _as_it_is(table: RuleTable, facts: HostFacts, request: ApplyRequest) -> tuple[InterfacePlan, ...]:
    """The plan of an interface in its present mode, if it still has that; else in raw."""
    mode = request.enforced.get(table.interface)
    if mode is not None:
        try:
            return request.plan(ModeChoice.of(mode), tables=[table], facts=facts).interfaces
        except UnsupportedKernelError:
            pass
    return request.plan(ModeChoice.RAW, tables=[table], facts=facts).interfaces


def _without_modes(facts: HostFacts, ruled_out: Mapping[str, Mapping[Mode, str]]) -> HostFacts:
    """The facts with a NO for these modes, also for interfaces that are not in the facts."""
    corrected = {item.name: item for item in facts.interfaces}
    for name, reasons in ruled_out.items():
        item = corrected.get(name, InterfaceFacts(name))
        answers = {mode: Probe(Answer.NO, f"rejected when attaching: {reason}") for mode, reason in reasons.items()}
        corrected[name] = replace(item, modes={**item.modes, **answers})
    return replace(facts, interfaces=tuple(corrected.values()))


def _apply(driver: ModeDriver, plan: Plan, request: ApplyRequest, *, dry_run: bool) -> ApplyResult:
    """Apply the plan. If XDP cannot work at all on this host, every interface with a mode is refused.

    A KernelError or missing privilege is not such an answer and is raised. But if XDP enforces nothing yet, so that
    nothing can be lost, missing privileges or a read-only BPF file system do count: then this host uses raw alone.
    """
    try:
        return driver.apply(plan, dry_run=dry_run)
    except HostError as error:
        number = error.errno if isinstance(error, KernelError) else 0
        if isinstance(error, (KernelError, PrivilegeError)) and (request.enforced or number not in (0, errno.EROFS)):
            raise
        wanting = [item.interface for item in plan.interfaces if item.mode]
        return ApplyResult(refused=dict.fromkeys(wanting or ["XDP"], str(error)))


def _learn(
    request: ApplyRequest,
    plan: Plan,
    result: ApplyResult,
    cache: ProbeCache,
    ruled_out: dict[str, dict[Mode, str]],
) -> tuple[list[str], bool]:
    """Rule out refused modes, and cache those that the interface itself refuses. Returns the refusals that rule out no
    mode, as sentences, and whether any mode was newly ruled out.
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
            cache.refuse(request.facts.interface(name) or InterfaceFacts(name), mode, reason)
    return unexpected, is_new


def _release_frames(error: BaseException | None) -> None:
    """Free what the frames of an error reference: half-created maps use descriptors and memory that raw may need."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def failure(error: Exception) -> EnforcerError:
    """The error to raise at the end: HostError for system failures (OSError, threads, memory), else InternalError."""
    _release_frames(error)
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
