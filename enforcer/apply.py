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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from enforcer.backends.base import EntryCount
from enforcer.backends.detect import host_rules
from enforcer.backends.iptables import IptablesBackend, Settings, probe
from enforcer.backends.iptables.rules import UNITS, Limit, TableName
from enforcer.backends.netdev import NetdevBackend
from enforcer.backends.netdev import installed as netdev_installed
from enforcer.backends.netdev import probe as probe_netdev
from enforcer.backends.nftables import NftablesBackend
from enforcer.backends.nftables import Settings as NftSettings
from enforcer.backends.nftables import probe as probe_nftables
from enforcer.backends.nftables.rules import RateLimit
from enforcer.backends.raw import RawBackends
from enforcer.backends.xdp import XdpBackend
from enforcer.directories import UnusableDirectoryError
from enforcer.errors import UnsupportedKernelError, UnsupportedRuleError, UsageError
from enforcer.facts import HostFacts, HostRules, InterfaceFacts, Probe
from enforcer.kernel.netlink import InterfaceState
from enforcer.kernel.netlink import interfaces as netlink_interfaces
from enforcer.kernel.probe import netdev_ingress, probe_host
from enforcer.kernel.toolchain import require
from enforcer.lock import namespace_lock
from enforcer.memory import Memory
from enforcer.mode import ModeChoice, RawChoice
from enforcer.places import default_pin_root, pins_are_fleeting, remove_if_empty
from enforcer.plan import Plan, make_plan, wants_xdp
from enforcer.policy.compile import Compiler
from enforcer.policy.endpoint import ANY_INTERFACE, with_kernel_names
from enforcer.policy.resources import FelixConfiguration, Resources
from enforcer.policy.ruletable import RuleTable
from enforcer.rawchoice import asked_for, detected
from enforcer.settle import Settlement, Wish, failure, settle, without_xdp
from enforcer.status import InterfaceStatus, read_status
from enforcer.words import Action, Answer, Backend, Mode, Toolchain

_UNASKED = Probe(Answer.UNKNOWN, "not probed")
_NOT_THERE = dict.fromkeys(Mode, Probe(Answer.NO, "the interface is not there"))


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
    is no XDP, nf_tables drops at netdev ingress.

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
    ) -> None:
        self.node = node
        self.choice = choice
        self.toolchain = toolchain
        self.raw = raw
        self.netdev = netdev
        self._given_pin_root = pin_root
        self._interfaces = None if interfaces is None else frozenset(interfaces)
        self.stopping = threading.Event()  # set: another enforcer's pass is no longer waited for
        self._memory = Memory()
        self._compiler = Compiler()
        self._renamed: tuple[Resources | None, dict[str, str], Resources] = (None, {}, Resources())

    def apply(self, resources: Resources, *, dry_run: bool = False) -> Applied:
        """Make the kernel enforce the resources; doing it again changes nothing.

        Raises UnsupportedRuleError with every rule that cannot be enforced, before anything is changed; HostError when
        this host cannot enforce; UnsupportedKernelError when a mode asked for by name is refused.
        """
        felix = resources.felix_for(self.node)
        raw = RawBackends(IptablesBackend(settings_of(felix)), NftablesBackend(nft_settings_of(felix)))
        netdev = NetdevBackend(nft_settings_of(felix))
        xdp = XdpBackend(self.pin_root, ipv6=felix.ipv6_support, toolchain=self.toolchain, lets_go=False)
        with namespace_lock(stopping=self.stopping):
            self._memory.begin(resources)
            present = {item.name: item for item in netlink_interfaces()}
            tables = self._tables(self._with_kernel_names(resources, present), present)
            absent = frozenset(table.interface for table in tables) - present.keys()
            facts = self._facts(tables, present, felix)
            # Raw holds every entry: what it cannot say is refused while nothing is changed yet.
            latest = make_plan(tables, facts, felix=felix, choice=ModeChoice.RAW, raw=self.raw, netdev=self.netdev)
            raw.check(latest)
            netdev.check(latest)
            wish = Wish(tables, facts, felix, self.choice, {}, absent, self.raw, self.netdev)
            settled = self._settle(wish, xdp, dry_run=dry_run)
            result = raw.apply(settled.plan, dry_run=dry_run)
            early = netdev.apply(settled.plan, dry_run=dry_run)
            released = [] if settled.failed else self._release(settled, xdp, dry_run=dry_run)
        if settled.failed:
            raise settled.failed
        warnings = [*_warnings(self.node, resources, settled.plan, absent), *settled.warnings]
        warnings += _unheard(settled.plan, nft_settings_of(felix).mark_mask, facts.rules)
        warnings += [f"{name}: {reason}" for name, reason in result.refused.items()]
        if any(item.mode for item in settled.plan.interfaces):
            warnings += filter(None, [pins_are_fleeting(self.pin_root)])
        changes = (*settled.changes, *result.changes, *early.changes, *released)
        applied = Applied(settled.plan, changes, tuple(_fallbacks(settled.plan)), tuple(warnings))
        if settled.impossible:
            raise ModeRefusedError("\n".join(settled.impossible.values()), applied)
        return applied

    def _settle(self, wish: Wish, xdp: XdpBackend, *, dry_run: bool) -> Settlement:
        """XDP as far as it can be had. Whatever goes wrong there is in the settlement, for raw is still to come."""
        try:
            with suppress(UnusableDirectoryError):  # applying XDP refuses then, and says why
                wish = replace(wish, enforced={item.interface: item.mode for item in xdp.status()})
            if self.choice is not ModeChoice.RAW:
                require(self.toolchain)
        except Exception as error:
            return without_xdp(wish, error)
        return settle(wish, xdp, self._memory, dry_run=dry_run)

    def _release(self, settled: Settlement, xdp: XdpBackend, *, dry_run: bool) -> list[str]:
        try:
            return xdp.release(settled.plan, dry_run=dry_run)
        except UnusableDirectoryError:  # a warning says so
            return []
        except Exception as error:
            settled.failed = failure(error)
            return []

    def counters(self) -> tuple[EntryCount, ...]:
        """What each entry matched at each stage: the early ones first, then raw, which sees what they let pass."""
        return (*XdpBackend(self.pin_root).counters(), *NetdevBackend().counters(), *RawBackends().counters())

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Remove what is ours from these interfaces (None: all of it); a sentence for each thing removed."""
        with namespace_lock(stopping=self.stopping):
            early = (*XdpBackend(self.pin_root).detach(interfaces), *NetdevBackend().detach(interfaces))
            removed = (*early, *RawBackends().detach(interfaces))
        remove_if_empty(self.pin_root)
        return removed

    def status(self) -> tuple[InterfaceStatus, ...]:
        """What is enforced now, whoever applied it."""
        return read_status(self.pin_root)

    def _with_kernel_names(self, resources: Resources, present: Mapping[str, InterfaceState]) -> Resources:
        """Alternative names of interfaces resolved; the same object for the same input, which others keep by."""
        names = {other: item.name for item in present.values() for other in item.alternative_names}
        known, known_names, renamed = self._renamed
        if known is not resources or known_names != names:
            renamed = with_kernel_names(resources, names)
            self._renamed = (resources, names, renamed)
        return renamed

    @property
    def pin_root(self) -> Path:
        """Where BPF objects are pinned."""
        return self._given_pin_root or default_pin_root()

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

    def _facts(
        self, tables: Sequence[RuleTable], present: Mapping[str, InterfaceState], felix: FelixConfiguration
    ) -> HostFacts:
        """What this host supports, as far as it matters: probing is not free, so nothing is asked in vain."""
        if not tables:
            return HostFacts(self.node)
        names = [table.interface for table in tables if wants_xdp(table, felix=felix, choice=self.choice)]
        states = [present[name] for name in names if name in present]
        facts = self._memory.facts(self.node, states, XdpBackend(self.pin_root).programs())
        absent = tuple(
            InterfaceFacts(table.interface, modes=_NOT_THERE) for table in tables if table.interface not in present
        )
        rules = host_rules()
        backends = {**facts.backends, **_probe_raw(felix, self.raw, rules)}
        facts = replace(facts, interfaces=(*facts.interfaces, *absent), backends=backends, rules=rules)
        return _with_netdev(facts, [table.interface for table in tables], present) if self.netdev else facts


def probe_named(node: str, interfaces: Sequence[str] = (), pin_root: Path | None = None) -> HostFacts:
    """What the host answers for these interfaces, for all without any. Raises UsageError for one that is not there.

    What is pinned below ``pin_root`` is known to be ours.
    """
    states = netlink_interfaces()
    present = [item.name for item in states]
    names = {name: item.name for item in states for name in (*item.alternative_names, item.name)}
    missing = [name for name in interfaces if name not in names]
    if missing:
        raise UsageError(f"no interface {', '.join(missing)} in this network namespace; there are {', '.join(present)}")
    backends = {Backend.IPTABLES: probe, Backend.NFTABLES: probe_nftables}
    ours = XdpBackend(pin_root or default_pin_root()).programs()
    facts = probe_host(node, [names[name] for name in interfaces] or None, backends=backends, ours=ours)
    return replace(facts, rules=host_rules())


def _with_netdev(facts: HostFacts, names: Sequence[str], present: Mapping[str, InterfaceState]) -> HostFacts:
    """The facts with what matters to netdev ingress: nf_tables, and who takes an interface's packets before raw."""
    answers = {name: netdev_ingress(present[name]) if name in present else _NOT_THERE[Mode.GENERIC] for name in names}
    interfaces = tuple(
        replace(facts.interface(name) or InterfaceFacts(name), netdev_ingress=answer)
        for name, answer in answers.items()
    )
    backends = dict(facts.backends)
    if facts.backends.get(Backend.NFTABLES, _UNASKED).answer is not Answer.NO and netdev_installed() is None:
        backends[Backend.NFTABLES] = probe_netdev()
    return replace(facts, interfaces=interfaces, backends=backends)


def _unheard(plan: Plan, mask: int, rules: HostRules) -> Iterator[str]:
    """Where an Allow reaches less far than its author may think."""
    allowing: dict[Backend, list[str]] = {}
    for item in plan.interfaces:
        if any(entry.action is Action.ALLOW for entry in (*item.table.ingress, *item.table.egress)):
            allowing.setdefault(item.raw_backend, []).append(item.interface)
    mark = f"'meta mark & {mask & -mask:#x} == {mask & -mask:#x} accept'"
    if names := allowing.get(Backend.NFTABLES):
        yield (
            f"Allow on {', '.join(names)}: nftables cannot accept for the tables of others; a firewall of this host "
            f"that drops what is not tracked needs {mark}"
        )
    if (names := allowing.get(Backend.IPTABLES)) and rules.nft:
        yield (
            f"Allow on {', '.join(names)}: legacy iptables cannot accept for nf_tables, where this host has "
            f"{rules.nft} rules of its own; what they drop of untracked packets needs {mark} there"
        )


def _probe_raw(felix: FelixConfiguration, choice: RawChoice, rules: HostRules) -> dict[Backend, Probe]:
    """What the raw backends answer that matter: the one asked for, else where the host's rules are; the other one only
    where it is not to be had. (Asking iptables makes its tables.)
    """
    wanted, _ = asked_for(felix, choice)
    probes = {Backend.IPTABLES: probe, Backend.NFTABLES: probe_nftables}
    first = wanted or detected(rules)[0]
    found = {first: probes[first](ipv6=felix.ipv6_support)}
    if wanted is None and found[first].answer is Answer.NO:
        other = next(backend for backend in probes if backend is not first)
        found[other] = probes[other](ipv6=felix.ipv6_support)
    return found


def settings_of(felix: FelixConfiguration) -> Settings:
    """What the configuration says about the raw table."""
    return Settings(
        insert_mode=felix.chain_insert_mode.lower(),
        mark_mask=felix.iptables_mark_mask,
        log_prefix=felix.log_prefix,
        ipv6=felix.ipv6_support,
        max_set_size=felix.max_ipset_size,
        accepting=frozenset(_accepting(felix)),
        log_limit=_log_limit(felix),
    )


def nft_settings_of(felix: FelixConfiguration) -> NftSettings:
    """What the configuration says about the tables of nf_tables. Hooks have no first or last place there, and nothing
    of ours could accept for the host's own tables (docs/nftables.md), so fewer fields have a meaning.
    """
    return NftSettings(
        mark_mask=felix.nftables_mark_mask if felix.nftables_settings else felix.iptables_mark_mask,
        log_prefix=felix.log_prefix,
        ipv6=felix.ipv6_support,
        max_set_size=felix.max_ipset_size,
        log_limit=_rate_limit(felix),
    )


def _rate_limit(felix: FelixConfiguration) -> RateLimit | None:
    """``10/minute`` as nf_tables counts it, which has no burst of none."""
    if not felix.log_action_rate_limit:
        return None
    count, _, unit = felix.log_action_rate_limit.partition("/")
    seconds = next(item.period for item in UNITS if unit.startswith(item.name)) // UNITS[-1].period
    return RateLimit(int(count), seconds, max(felix.log_action_rate_limit_burst, 1))


def _log_limit(felix: FelixConfiguration) -> Limit | None:
    """``10/minute`` as the kernel counts it. The kernel has no room for the credit of more than a day, nor for none."""
    if not felix.log_action_rate_limit:
        return None
    count, _, unit = felix.log_action_rate_limit.partition("/")
    scale = next(item.period for item in UNITS if unit.startswith(item.name))
    period = scale // int(count)
    room = max(UNITS[0].period // period, 1)
    return Limit(period, min(max(felix.log_action_rate_limit_burst, 1), room))


def _accepting(felix: FelixConfiguration) -> Iterator[TableName]:
    """The tables where an allow action of Accept, and not Return, makes the accept mark count."""
    if felix.iptables_mangle_allow_action.lower() == "accept":
        yield TableName.MANGLE
    if felix.iptables_filter_allow_action.lower() == "accept":
        yield TableName.FILTER


def _fallbacks(plan: Plan) -> Iterator[str]:
    for item in plan.interfaces:
        for mode, reason in item.mode_reasons:
            yield f"{item.interface}: not {mode}: {reason}"


def _warnings(node: str, resources: Resources, plan: Plan, absent: Collection[str]) -> Iterator[str]:
    """What the author may not have meant, although it is no error: a wrong node name, an interface not there."""
    mine = [item for item in resources.host_endpoints if item.node == node]
    if not mine:
        nodes = ", ".join(sorted({item.node for item in resources.host_endpoints})) or "none at all"
        yield f"no HostEndpoint is of node {node} (there are some of: {nodes}); nothing is enforced; see --node"
    elif not plan.interfaces:
        yield f"no untracked policy (doNotTrack: true) selects a HostEndpoint of node {node}; nothing is enforced"
    for name in absent:
        yield f"interface {name} is not there; raw is ready for it, XDP follows when it appears"
    for item in resources.felix_unknown(node):
        yield (
            f"FelixConfiguration {item.name} is not applied: no Node resource gives the labels of node {node}, which "
            f"its nodeSelector ({item.node_selector}) looks at; add one"
        )
    for note in resources.notes:
        yield str(note)
    if resources.skipped:
        yield f"kinds that are not acted on: {', '.join(resources.skipped)}"
