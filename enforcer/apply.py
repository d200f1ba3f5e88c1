"""Enforcer: one pass from resources to the kernel of the calling thread's network namespace, and the way back.

Order of a pass: everything that can fail without the kernel first (compile, plan, render); then XDP; then raw. No order
opens a hole, because XDP and raw each drop at every moment what the old and the new policy both drop; XDP first means
that new deny entries bite as early as they can, and that a refusal to attach is known before raw is touched.

An interface the kernel refuses a mode is planned again without that mode. A mode asked for by name that is refused
leaves its interface as it was: with the new policy where it is enforced now, or alone if it was not. All other interfaces
are done first; then the refusal is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.backends.base import EntryCount
from enforcer.backends.iptables import IptablesBackend, Settings
from enforcer.backends.iptables.render import render
from enforcer.backends.xdp import XdpBackend
from enforcer.errors import HostError, UnsupportedKernelError, UnsupportedRuleError
from enforcer.facts import HostFacts
from enforcer.kernel.netlink import interfaces as netlink_interfaces
from enforcer.kernel.probe import probe_host
from enforcer.lock import namespace_lock
from enforcer.mode import ModeChoice
from enforcer.plan import InterfacePlan, Plan, make_plan
from enforcer.policy.compile import compile_table
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.ruletable import RuleTable
from enforcer.refusals import Refusals
from enforcer.words import Mode

PIN_ROOT = Path("/sys/fs/bpf/enforcer")


@dataclass(frozen=True)
class Applied:
    """What a pass did. ``changes`` is empty when the kernel was as it should be; ``fallbacks`` say for each interface
    why an earlier mode is not used; ``warnings`` what the author of the policy may not have meant."""

    plan: Plan
    changes: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Enforcer:
    """Enforces what concerns ``node``; ``interfaces`` limits it to these, any other of ours is let go.

    Keeps no sockets: every call acts in the network namespace its thread is in then. What the kernel refused is
    remembered while the resources stay the same, so that a resync does not try it again and again.
    """

    def __init__(
        self,
        node: str,
        *,
        pin_root: Path = PIN_ROOT,
        choice: ModeChoice = ModeChoice.AUTO,
        interfaces: Sequence[str] | None = None,
    ) -> None:
        self.node = node
        self.choice = choice
        self.pin_root = pin_root
        self._interfaces = None if interfaces is None else frozenset(interfaces)
        self._xdp = XdpBackend(pin_root)
        self._refusals = Refusals()

    def apply(self, resources: Resources, *, dry_run: bool = False) -> Applied:
        """Make the kernel enforce the resources; doing it again changes nothing.

        Raises UnsupportedRuleError with every rule that cannot be enforced, before anything is changed; HostError when
        this host cannot enforce; UnsupportedKernelError when a mode asked for by name is refused.
        """
        tables = self._tables(resources)
        felix = resources.felix_for(self.node)
        raw = IptablesBackend(settings_of(felix))
        with namespace_lock():
            self._refusals.about(resources)
            names = [table.interface for table in tables]
            facts = probe_host(self.node, names) if names else HostFacts(self.node)
            work = _Pass(self, tables, facts, felix, dry_run=dry_run)
            render(work.in_raw(), raw.settings)  # refuses what raw cannot say, while nothing is changed
            plan = work.settle_xdp(self._xdp)
            result = raw.apply(plan, dry_run=dry_run)
        if work.impossible:
            raise UnsupportedKernelError("\n".join(work.impossible.values()))
        warnings = [*_warnings(self.node, resources, tables), *work.warnings]
        warnings += [f"{name}: {reason}" for name, reason in result.refused.items()]
        changes = (*work.changes, *result.changes)
        return Applied(plan, changes, tuple(_fallbacks(plan)), tuple(warnings))

    def counters(self) -> tuple[EntryCount, ...]:
        """What each entry matched at each stage it is at: XDP, then raw for what XDP let pass."""
        xdp = self._xdp.counters() if self.pin_root.exists() else ()
        return (*xdp, *IptablesBackend().counters())

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Remove what is ours from these interfaces (None: all of it); a sentence for each thing removed."""
        with namespace_lock():
            xdp = self._xdp.detach(interfaces) if self.pin_root.exists() else ()
            return (*xdp, *IptablesBackend().detach(interfaces))

    def enforced_modes(self) -> dict[str, Mode | None]:
        """The interfaces that something of ours is on now, and the XDP mode it is attached in."""
        modes: dict[str, Mode | None] = dict.fromkeys(count.interface for count in IptablesBackend().counters())
        return modes | {item.interface: item.mode for item in self.attached()}

    def _tables(self, resources: Resources) -> list[RuleTable]:
        """The table of every interface that there is and that has an endpoint with untracked entries."""
        tables: list[RuleTable] = []
        unsupported: dict[str, None] = {}
        for item in netlink_interfaces():
            if self._interfaces is not None and item.name not in self._interfaces:
                continue
            try:
                table = compile_table(resources, node=self.node, interface=item.name, addresses=item.addresses)
            except UnsupportedRuleError as error:
                unsupported |= dict.fromkeys(str(error).splitlines())
                continue
            if table.endpoint is not None and (table.ingress or table.egress):
                tables.append(table)
        if unsupported:
            raise UnsupportedRuleError("\n".join(unsupported))
        return tables
