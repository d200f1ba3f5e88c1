"""Negotiating modes: the kernel has the last word on them, so plan, try, and plan again without what it refused.

Whatever becomes of XDP, each interface ends with a plan that raw can be made of. An interface that refuses a mode is
planned without it. An XDP part that fails as a whole (no descriptors left, a BPF file system that is read-only, a bug)
is left as it is in the kernel, and raw goes on without it.
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
    """``impossible``: interfaces that refuse the mode asked for by name, and the sentence that says so.

    ``failed``: why the XDP part as a whole could not be done; None where it was. What XDP enforced then stays.
    ``released``: what was done last, when raw was in place.
    """

    plan: Plan
    changes: list[str] = field(default_factory=list)
    impossible: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: EnforcerError | None = None
    released: tuple[str, ...] = ()


def negotiate_modes(request: ApplyRequest, driver: ModeDriver, cache: ProbeCache, *, dry_run: bool) -> Negotiated:
    """Apply XDP as far as it can be had. Whatever goes wrong is in the answer, for raw is still to come."""
    try:
        with suppress(UnusableDirectoryError):  # applying refuses then, and says why
            enforced = {name: MODE_OF_STAGE[stage] for name, stage in driver.interfaces().items()}
            request = replace(request, enforced=enforced)
        if request.choice is not ModeChoice.RAW and (probe := driver.probe()).answer is Answer.NO:
            raise HostError(probe.reason)
    except Exception as error:
        return without_xdp(request, error)
    return _apply_until_agreed(request, driver, cache, dry_run=dry_run)


def release(negotiated: Negotiated, driver: ModeDriver, *, dry_run: bool) -> None:
    """Have XDP let go of what the plan has none for, now that raw enforces there; nothing where XDP failed."""
    if negotiated.failed:
        return
    try:
        negotiated.released = tuple(driver.release(negotiated.plan, dry_run=dry_run))
    except UnusableDirectoryError:  # a warning says so
        return
    except Exception as error:
        negotiated.failed = failure(error)


def _apply_until_agreed(request: ApplyRequest, driver: ModeDriver, cache: ProbeCache, *, dry_run: bool) -> Negotiated:
    """Apply until nothing is refused any more.

    Ends whatever the driver answers: a round is followed by another only if it ruled out a mode of an interface that no
    round before had ruled out, and there are no more rounds than such pairs.
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
            negotiated.changes = changes
            negotiated.warnings = unexpected
            return negotiated
    return without_xdp(request, InternalError("XDP refuses modes that were not asked for"), changes)


def without_xdp(request: ApplyRequest, error: Exception, changes: Sequence[str] = ()) -> Negotiated:
    """What is agreed on where XDP is not to be touched: interfaces stay in the mode they are in, raw is for all."""
    plans = [item for table in request.tables for item in _as_it_is(table, request.facts, request)]
    return Negotiated(Plan(request.facts.node, tuple(plans)), changes=list(changes), failed=failure(error))


def plan_for(
    request: ApplyRequest, cache: ProbeCache, ruled_out: Mapping[str, Mapping[Mode, str]] | None = None
) -> Negotiated:
    """The plan as far as is known. An interface that refuses the mode asked for stays in the one it is in, else in raw.

    ``ruled_out``: modes refused in this pass, with the reasons.
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
    """In the mode it is in, where it still has that; else in raw, which every interface has."""
    mode = request.enforced.get(table.interface)
    if mode is not None:
        try:
            return request.plan(ModeChoice.of(mode), tables=[table], facts=facts).interfaces
        except UnsupportedKernelError:
            pass
    return request.plan(ModeChoice.RAW, tables=[table], facts=facts).interfaces


def _without_modes(facts: HostFacts, ruled_out: Mapping[str, Mapping[Mode, str]]) -> HostFacts:
    """The facts with a NO for these modes, of interfaces too that the facts knew nothing of."""
    corrected = {item.name: item for item in facts.interfaces}
    for name, reasons in ruled_out.items():
        item = corrected.get(name, InterfaceFacts(name))
        answers = {mode: Probe(Answer.NO, f"refused when attaching: {reason}") for mode, reason in reasons.items()}
        corrected[name] = replace(item, modes={**item.modes, **answers})
    return replace(facts, interfaces=tuple(corrected.values()))


def _apply(driver: ModeDriver, plan: Plan, request: ApplyRequest, *, dry_run: bool) -> ApplyResult:
    """A driver that cannot work at all on this host refuses every interface that wants it.

    What the kernel refused is no such answer, nor a privilege that lacks: it is raised. But where XDP enforces nothing
    yet, so that nothing could be taken away, nowhere to pin and no privilege are: raw alone is this host's.
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
            cache.refuse(request.facts.interface(name) or InterfaceFacts(name), mode, reason)
    return unexpected, is_new


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of an error hold: maps half made are descriptors and cache that raw may be in need of."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def failure(error: Exception) -> EnforcerError:
    """The error to end with. What the system refused (OSError, no thread, no cache) is the host's, all else ours."""
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
