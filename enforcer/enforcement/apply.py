"""Enforcer: one pass from resources to the kernel, in the calling thread's network namespace; status, counters, detach.

Order of a pass: first what can fail without touching the kernel (compile, plan, render); then XDP; then raw; then
netdev ingress, if requested; last, XDP is detached from interfaces that should have none. No order leaves a gap,
because XDP and raw each drop at every moment what both the old and the new policy drop. XDP goes first so that new Deny
entries take effect as early as possible, and so that a rejected attachment is known before raw is changed.

If the kernel rejects a mode on an interface, the interface is planned again without that mode. If the mode was
requested by name, the interface keeps the mode it has, with the new policy, or uses raw if it had none; then the error
is raised, with what was done. If XDP fails as a whole, what it enforces stays, raw is applied, and the error is raised.
If raw fails, XDP is detached from nothing.

The first time that denies after conntrack would enter, :mod:`enforcer.enforcement.switch_on` decides whether they do.
If not, everything else is enforced, and the error is raised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from enforcer.backends.base import EntryCount, Setup
from enforcer.backends.registry import REGISTRY, Backends, Registry
from enforcer.enforcement.lockout import SwitchOn, without_tracked
from enforcer.enforcement.negotiate import negotiate_modes, release
from enforcer.enforcement.probe_cache import ProbeCache
from enforcer.enforcement.probing import probe_for
from enforcer.enforcement.request import ApplyRequest
from enforcer.enforcement.status import InterfaceStatus, read_status
from enforcer.enforcement.switch_on import is_switched_on, switch_on
from enforcer.enforcement.warnings import warnings_of
from enforcer.kernel.lock import namespace_lock
from enforcer.kernel.pin_paths import default_pin_root
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.kernel.rtnetlink import interfaces as netlink_interfaces
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.errors import HostError, UnsupportedKernelError, UnsupportedRuleError
from enforcer.model.facts import HostFacts
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Toolchain
from enforcer.planning.plan import Plan, TrackedPlan
from enforcer.planning.xdp_run import runs_of
from enforcer.policy.compile import Compiler
from enforcer.policy.endpoint import ANY_INTERFACE, with_kernel_names
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.ruletable import RuleTable
from enforcer.policy.tracked import TrackedTable


@dataclass(frozen=True)
class Applied:
    """The result of a pass. ``changes`` is empty if the kernel state was already as desired. ``fallbacks`` state for
    each interface why earlier modes are not used. ``warnings``: what the operator may not have intended.
    ``switch_on``: what the first switch-on of policy after conntrack met; None where this is none. ``ranges``: of
    addresses in the tables of XDP, by IP version; empty without XDP. ``host``: the interfaces when the pass began.
    """

    plan: Plan
    changes: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    switch_on: SwitchOn | None = None
    ranges: Mapping[int, int] = field(default_factory=dict)
    host: tuple[InterfaceState, ...] = field(default=(), compare=False, repr=False)


class ModeRefusedError(UnsupportedKernelError):
    """An interface rejects the mode requested by name. Everything else was done; ``applied`` has it."""

    def __init__(self, message: str, applied: Applied) -> None:
        super().__init__(message)
        self.applied = applied


class TrackedRefusedError(HostError):
    """Policy after conntrack is not switched on. Everything else was done; ``applied`` has it."""

    def __init__(self, message: str, applied: Applied) -> None:
        super().__init__(message)
        self.applied = applied


class Enforcer:
    """Enforces the policy of ``node``. With ``interfaces`` only on these; all others are detached.

    ``pin_root``: where BPF objects are pinned; by default a directory for each network namespace. ``toolchain``: what
    compiles the XDP program. ``raw``: the raw backend. ``netdev``: nf_tables drops at netdev ingress on interfaces
    without XDP. ``tracked``: whether policy after conntrack is enforced. ``cut_established``: its first switch-on may
    cut connections. ``registry``: the backends.

    Keeps no sockets: every call acts in the current network namespace of its thread.
    """

    def __init__(
        self,
        node: str,
        *,
        pin_root: Path | None = None,
        choice: ModeChoice = ModeChoice.AUTO,
        interfaces: Sequence[str] | None = None,
        toolchain: Toolchain = Toolchain.LIBBPF,
        raw: RawChoice = RawChoice.AUTO,
        netdev: bool = False,
        tracked: TrackedChoice = TrackedChoice.MODEL,
        cut_established: bool = False,
        registry: Registry = REGISTRY,
    ) -> None:
        self.node = node
        self.choice = choice
        self.toolchain = toolchain
        self.raw = raw
        self.netdev = netdev
        self.tracked = tracked
        self.cut_established = cut_established
        # Called right before policy after conntrack is written, with whether this is its first switch-on.
        self.before_tracked: Callable[[bool], None] = lambda first: None
        self._given_pin_root = pin_root
        self._interfaces = None if interfaces is None else frozenset(interfaces)
        self.stopping = threading.Event()  # set: do not wait for the pass of another enforcer
        self._registry = registry
        self._is_switched_on = False  # by the last pass: what has been removed since is restored without asking again
        self._probes = ProbeCache()
        self._compiler = Compiler()
        self._renamed: tuple[Resources | None, dict[str, str], Resources] = (None, {}, Resources())
        self._made: tuple[Setup, Backends] | None = None

    def apply(self, resources: Resources, *, dry_run: bool = False) -> Applied:
        """Make the kernel enforce the resources. A second call changes nothing.

        Raises UnsupportedRuleError with every rule that cannot be enforced, before anything is changed; HostError when
        this host cannot enforce; ModeRefusedError when a mode requested by name is rejected; TrackedRefusedError when
        policy after conntrack is not switched on. A dry run has that in ``switch_on`` instead.
        """
        felix = resources.felix_for(self.node)
        backends = self.backends(felix)
        with namespace_lock(stopping=self.stopping):
            self._probes.begin(resources)
            present = {item.name: item for item in netlink_interfaces()}
            request = self._request(self._with_kernel_names(resources, present), present, felix, backends)
            self._check(request, backends)
            negotiated = negotiate_modes(request, backends.modes, self._probes, dry_run=dry_run)
            plan = replace(negotiated.plan, tracked=request.plan(ModeChoice.RAW, tables=()).tracked)
            plan, switched, counting = self._switch(plan, backends, dry_run=dry_run)
            result = backends.apply(plan, dry_run=dry_run)
            if not dry_run:
                self._is_switched_on = bool(_enforced(plan))
            release(negotiated, backends.modes, dry_run=dry_run)
        if negotiated.failed:
            raise negotiated.failed
        warnings = [*warnings_of(self.node, resources, plan, request.absent), *negotiated.warnings]
        warnings += backends.warnings(plan, request.facts.rules)
        warnings += [f"{name}: {reason}" for name, reason in result.refused.items()]
        changes = (*negotiated.changes, *counting, *result.changes, *negotiated.released)
        fallbacks, host = tuple(_fallbacks(plan)), tuple(present.values())
        applied = Applied(plan, changes, fallbacks, tuple(warnings), switched, negotiated.ranges, host)
        if negotiated.impossible:
            raise ModeRefusedError("\n".join((*negotiated.impossible.values(), *_refusals(switched))), applied)
        if not dry_run and (refused := _refusals(switched)):
            raise TrackedRefusedError("\n".join(refused), applied)
        return applied

    def enforceable(self, resources: Resources) -> tuple[Resources, dict[str, str]]:
        """The resources without the untracked policies that cannot be enforced, and those policies with their reasons.

        Each policy is checked separately, without any change. Raises HostError like :meth:`apply`.
        """
        felix = resources.felix_for(self.node)
        backends = self.backends(felix)
        refused: dict[str, str] = {}
        with namespace_lock(stopping=self.stopping):
            present = {item.name: item for item in netlink_interfaces()}
            renamed = self._with_kernel_names(resources, present)
            for policy in (item for item in renamed.policies if item.do_not_track):
                try:
                    alone = replace(renamed, policies=(policy,))
                    self._check(self._request(alone, present, felix, backends), backends)
                except UnsupportedRuleError as error:
                    refused[policy.name] = str(error)
        kept = tuple(item for item in resources.policies if item.name not in refused)
        return replace(resources, policies=kept), refused

    def counters(self) -> tuple[EntryCount, ...]:
        """What each entry matched at each stage: early stages first, then raw, which sees what they pass."""
        return self.backends().counters()

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Remove everything of the enforcer from these interfaces (None: from all); one sentence for each removal."""
        with namespace_lock(stopping=self.stopping):
            return self.backends().detach(interfaces)

    def status(self) -> tuple[InterfaceStatus, ...]:
        """What is enforced now, by any process."""
        return read_status(self.backends())

    def entries(self) -> frozenset[str]:
        """The names of the entries that are enforced now, at any stage."""
        held = self.backends().status()
        return frozenset(name for _, found in held for item in found.values() for name in item.entries)

    def backends(self, felix: FelixConfiguration | None = None) -> Backends:
        """All backends with this configuration, in the network namespace of the calling thread. The last ones if they
        have the same configuration: they keep what they rendered.
        """
        setup = Setup(felix or FelixConfiguration("default"), self.pin_root, self.toolchain)
        made = self._made
        if made is None or made[0] != setup:
            made = self._made = setup, self._registry.make(setup)
        return made[1]

    @property
    def pin_root(self) -> Path:
        """Where BPF objects are pinned."""
        return self._given_pin_root or default_pin_root()

    def _request(
        self,
        resources: Resources,
        present: Mapping[str, InterfaceState],
        felix: FelixConfiguration,
        backends: Backends,
    ) -> ApplyRequest:
        """The request for these resources on the ``present`` interfaces, with the host's facts."""
        tables = self._tables(resources, present)
        request = ApplyRequest(
            tables,
            HostFacts(self.node),
            felix,
            self.choice,
            absent=frozenset(table.interface for table in tables) - present.keys(),
            raw=self.raw,
            netdev=self.netdev,
            runs=runs_of(tables),
            tracked=self._tracked_tables(resources, present) if self.tracked is TrackedChoice.ENFORCE else (),
            tracked_choice=self.tracked,
        )
        return replace(request, facts=probe_for(request, present, backends, self._probes))

    def _switch(self, plan: Plan, backends: Backends, *, dry_run: bool) -> tuple[Plan, SwitchOn | None, Sequence[str]]:
        """The plan to apply, without what may not be switched on; what was met, and what was changed."""
        if not _enforced(plan):
            return plan, None, ()
        first = not self._is_switched_on and not is_switched_on(backends)
        switched: SwitchOn | None = None
        counting: Sequence[str] = ()
        if first:
            switched, counting = switch_on(plan, backends, cut_established=self.cut_established, dry_run=dry_run)
        if dry_run:
            return plan, switched, ()
        if _refusals(switched):
            return without_tracked(plan), switched, counting
        self.before_tracked(first)
        return plan, switched, counting

    def _check(self, request: ApplyRequest, backends: Backends) -> None:
        """Raises UnsupportedRuleError. Raw holds every entry: what it cannot express is rejected before any change."""
        backends.check(request.plan(ModeChoice.RAW))

    def _with_kernel_names(self, resources: Resources, present: Mapping[str, InterfaceState]) -> Resources:
        """Resolve alternative interface names. The same input yields the same object, which serves as a cache key."""
        names = {other: item.name for item in present.values() for other in item.alternative_names}
        known, known_names, renamed = self._renamed
        if known is not resources or known_names != names:
            renamed = with_kernel_names(resources, names)
            self._renamed = (resources, names, renamed)
        return renamed

    def _tables(self, resources: Resources, present: Mapping[str, InterfaceState]) -> list[RuleTable]:
        """The table of each interface with untracked entries, whether it exists or only an endpoint names it."""
        tables: list[RuleTable] = []
        unsupported: dict[str, None] = {}  # interfaces share policies, and so their errors: report each once
        for name, addresses in self._governable(resources, present):
            try:
                table = self._compiler.compile(resources, node=self.node, interface=name, addresses=addresses)
            except UnsupportedRuleError as error:
                unsupported |= dict.fromkeys(str(error).splitlines())
                continue
            if table.endpoint is not None and (table.ingress or table.egress):
                tables.append(table)
        if unsupported:
            raise UnsupportedRuleError("\n".join(unsupported))
        return tables

    def _tracked_tables(self, resources: Resources, present: Mapping[str, InterfaceState]) -> list[TrackedTable]:
        """The policy after conntrack of each interface that an endpoint governs."""
        compiled = (
            self._compiler.compile_tracked(resources, node=self.node, interface=name, addresses=addresses)
            for name, addresses in self._governable(resources, present)
        )
        tables = [table for table in compiled if table is not None]
        if unsupported := dict.fromkeys(sentence for table in tables for sentence in table.unsupported):
            raise UnsupportedRuleError("\n".join(unsupported))
        return tables

    def _governable(
        self, resources: Resources, present: Mapping[str, InterfaceState]
    ) -> Iterator[tuple[str, Sequence[IPAddress]]]:
        """The interfaces that exist or that an endpoint names, with their addresses."""
        named = {item.interface_name for item in resources.host_endpoints if item.node == self.node}
        for name in (*present, *sorted(named - present.keys() - {"", ANY_INTERFACE})):
            if self._interfaces is None or name in self._interfaces:
                yield name, present[name].addresses if name in present else ()


def _enforced(plan: Plan) -> list[TrackedPlan]:
    return [item for item in plan.tracked if item.enforced]


def _refusals(switched: SwitchOn | None) -> tuple[str, ...]:
    return switched.refused if switched else ()


def _fallbacks(plan: Plan) -> Iterator[str]:
    for item in plan.interfaces:
        for mode, reason in item.mode_reasons:
            yield f"{item.interface}: not {mode}: {reason}"
