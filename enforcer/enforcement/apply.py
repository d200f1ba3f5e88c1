"""Enforcer: one pass from resources to the kernel of the calling thread's network namespace, and the way back.

Order of a pass: first what can fail without touching the kernel (compile, plan, render); then XDP; then raw; then
netdev ingress, if asked for; last of all XDP lets go of interfaces that are to have none. No order opens a hole,
because XDP and raw each drop at every moment what the old and the new policy both drop. XDP goes first so that new deny
entries take effect as early as they can, and so that a refusal to attach is known before raw is touched.

An interface the kernel refuses a mode is planned again without that mode. One that refuses a mode asked for by name is
left in the mode it has, with the new policy, or in raw if it had none; then the refusal is raised, with what was done.
Where the XDP part fails as a whole, what it enforces stays, raw is applied, and the failure is raised. Where raw fails,
XDP lets go of nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from enforcer.backends.base import EntryCount, Setup
from enforcer.backends.registry import REGISTRY, Backends, Registry
from enforcer.enforcement.negotiate import negotiate_modes, release
from enforcer.enforcement.probe_cache import ProbeCache
from enforcer.enforcement.probing import probe_for
from enforcer.enforcement.request import ApplyRequest
from enforcer.enforcement.status import InterfaceStatus, read_status
from enforcer.enforcement.warnings import warnings_of
from enforcer.kernel.lock import namespace_lock
from enforcer.kernel.pin_paths import default_pin_root
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.kernel.rtnetlink import interfaces as netlink_interfaces
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.errors import UnsupportedKernelError, UnsupportedRuleError
from enforcer.model.facts import HostFacts
from enforcer.model.vocabulary import Toolchain
from enforcer.planning.plan import Plan
from enforcer.planning.xdp_run import runs_of
from enforcer.policy.compile import Compiler
from enforcer.policy.endpoint import ANY_INTERFACE, with_kernel_names
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.ruletable import RuleTable


@dataclass(frozen=True)
class Applied:
    """What a pass did. ``changes`` is empty when the kernel already was as it should be; ``fallbacks`` say for each
    interface why earlier modes are not used; ``warnings`` are what the operator may not have meant.
    """

    plan: Plan
    changes: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class ModeRefusedError(UnsupportedKernelError):
    """An interface refuses the mode asked for by name. Everything else was done: ``applied`` says what."""

    def __init__(self, message: str, applied: Applied) -> None:
        super().__init__(message)
        self.applied = applied


class Enforcer:
    """Enforces what concerns ``node``. With ``interfaces`` only on these; any other of ours is let go.

    ``pin_root`` is where BPF objects are pinned; by default each network namespace has a directory of its own.
    ``toolchain`` says who compiles the XDP program, ``raw`` which netfilter holds the raw part. ``netdev``: where there
    is no XDP, nf_tables drops at netdev ingress. ``registry`` names the backends.

    Keeps no sockets: every call acts in the network namespace its thread is in then.
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
        registry: Registry = REGISTRY,
    ) -> None:
        self.node = node
        self.choice = choice
        self.toolchain = toolchain
        self.raw = raw
        self.netdev = netdev
        self._given_pin_root = pin_root
        self._interfaces = None if interfaces is None else frozenset(interfaces)
        self.stopping = threading.Event()  # set: another enforcer's pass is no longer waited for
        self._registry = registry
        self._probes = ProbeCache()
        self._compiler = Compiler()
        self._renamed: tuple[Resources | None, dict[str, str], Resources] = (None, {}, Resources())

    def apply(self, resources: Resources, *, dry_run: bool = False) -> Applied:
        """Make the kernel enforce the resources; doing it again changes nothing.

        Raises UnsupportedRuleError with every rule that cannot be enforced, before anything is changed; HostError when
        this host cannot enforce; UnsupportedKernelError when a mode asked for by name is refused.
        """
        felix = resources.felix_for(self.node)
        backends = self.backends(felix)
        with namespace_lock(stopping=self.stopping):
            self._probes.begin(resources)
            present = {item.name: item for item in netlink_interfaces()}
            request = self._request(self._with_kernel_names(resources, present), present, felix, backends)
            self._check(request, backends)
            negotiated = negotiate_modes(request, backends.modes, self._probes, dry_run=dry_run)
            plan = negotiated.plan
            result = backends.apply(plan, dry_run=dry_run)
            release(negotiated, backends.modes, dry_run=dry_run)
        if negotiated.failed:
            raise negotiated.failed
        warnings = [*warnings_of(self.node, resources, plan, request.absent), *negotiated.warnings]
        warnings += backends.warnings(plan, request.facts.rules)
        warnings += [f"{name}: {reason}" for name, reason in result.refused.items()]
        changes = (*negotiated.changes, *result.changes, *negotiated.released)
        applied = Applied(plan, changes, tuple(_fallbacks(plan)), tuple(warnings))
        if negotiated.impossible:
            raise ModeRefusedError("\n".join(negotiated.impossible.values()), applied)
        return applied

    def enforceable(self, resources: Resources) -> tuple[Resources, dict[str, str]]:
        """The resources without the untracked policies that cannot be enforced, and these by name, with the reason.

        Each is tried for itself, with nothing changed. Raises HostError as :meth:`apply` does.
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
        """What each entry matched at each stage: the early ones first, then raw, which sees what they let pass."""
        return self.backends().counters()

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Remove what is ours from these interfaces (None: all of it); a sentence for each thing removed."""
        with namespace_lock(stopping=self.stopping):
            return self.backends().detach(interfaces)

    def status(self) -> tuple[InterfaceStatus, ...]:
        """What is enforced now, whoever applied it."""
        return read_status(self.backends())

    def entries(self) -> frozenset[str]:
        """The names of the entries that are enforced now, wherever."""
        held = self.backends().status()
        return frozenset(name for _, found in held for item in found.values() for name in item.entries)

    def backends(self, felix: FelixConfiguration | None = None) -> Backends:
        """All backends, as this configuration sets them, in the network namespace of the calling thread."""
        felix = felix or FelixConfiguration("default")
        return self._registry.make(Setup(felix, self.pin_root, self.toolchain))

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
        """What these resources want of the interfaces that are ``present``, and what the host says to it."""
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
        )
        return replace(request, facts=probe_for(request, present, backends, self._probes))

    def _check(self, request: ApplyRequest, backends: Backends) -> None:
        """Raises UnsupportedRuleError. Raw holds every entry: what it cannot say is refused before anything changes."""
        backends.check(request.plan(ModeChoice.RAW))

    def _with_kernel_names(self, resources: Resources, present: Mapping[str, InterfaceState]) -> Resources:
        """Alternative names of interfaces resolved; the same object for the same input, which others keep by."""
        names = {other: item.name for item in present.values() for other in item.alternative_names}
        known, known_names, renamed = self._renamed
        if known is not resources or known_names != names:
            renamed = with_kernel_names(resources, names)
            self._renamed = (resources, names, renamed)
        return renamed

    def _tables(self, resources: Resources, present: Mapping[str, InterfaceState]) -> list[RuleTable]:
        """The table of each interface that has an endpoint with untracked entries, there or named by its endpoint."""
        named = {item.interface_name for item in resources.host_endpoints if item.node == self.node}
        tables: list[RuleTable] = []
        unsupported: dict[str, None] = {}  # interfaces share policies, and so their faults: each is said once
        for name in (*present, *sorted(named - present.keys() - {"", ANY_INTERFACE})):
            if self._interfaces is not None and name not in self._interfaces:
                continue
            addresses = present[name].addresses if name in present else ()
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


def _fallbacks(plan: Plan) -> Iterator[str]:
    for item in plan.interfaces:
        for mode, reason in item.mode_reasons:
            yield f"{item.interface}: not {mode}: {reason}"
