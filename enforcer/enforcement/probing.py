"""The host facts that a plan needs: interfaces by name, raw backends, netdev ingress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from enforcer.backends.base import OthersRules, RawDriver, Setup
from enforcer.backends.registry import REGISTRY, Backends
from enforcer.enforcement.probe_cache import ProbeCache
from enforcer.enforcement.request import ApplyRequest
from enforcer.kernel.conntrack import read_conntrack
from enforcer.kernel.pin_paths import default_pin_root
from enforcer.kernel.probe import netdev_ingress, probe_host
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.kernel.rtnetlink import interfaces as netlink_interfaces
from enforcer.model.errors import UsageError
from enforcer.model.facts import HostFacts, HostRules, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Backend, Mode
from enforcer.planning.plan import wants_xdp
from enforcer.planning.raw_choice import asked_for, detected

NOT_THERE = dict.fromkeys(Mode, Probe(Answer.NO, "the interface does not exist"))
_NONE = OthersRules()
_UNASKED = Probe(Answer.UNKNOWN, "not probed")


def probe_named(node: str, interfaces: Sequence[str] = (), pin_root: Path | None = None) -> HostFacts:
    """Host facts of these interfaces, or of all. Raises UsageError for an interface that does not exist.

    Programs pinned below ``pin_root`` are ours.
    """
    states = netlink_interfaces()
    present = [item.name for item in states]
    names = {name: item.name for item in states for name in (*item.alternative_names, item.name)}
    missing = [name for name in interfaces if name not in names]
    if missing:
        raise UsageError(f"no interface {', '.join(missing)} in this network namespace; there are {', '.join(present)}")
    backends = REGISTRY.make(Setup(pin_root=pin_root or default_pin_root()))
    probes = {driver.name: driver.probe for driver in backends.raw}
    ours = backends.modes.programs()
    facts = probe_host(node, [names[name] for name in interfaces] or None, backends=probes, ours=ours)
    rules = host_rules(backends.raw)  # first: looking for rules may load connection tracking
    return replace(facts, rules=rules, conntrack=read_conntrack())


def host_rules(raw: Sequence[RawDriver]) -> HostRules:
    """The number of foreign rules in each backend of the calling thread's network namespace, and which one Kubernetes
    uses.

    Like Felix's DetectBackend (``felix/environment/feature_detect_linux.go``) and iptables-wrappers: where Kubernetes
    has its chains, else where there are more rules, else the legacy tables. Our own rules do not count.
    """
    found = {driver.name: driver.others_rules() for driver in raw}
    marked = [backend for backend in (Backend.NFTABLES, Backend.IPTABLES) if found.get(backend, _NONE).kubernetes]
    counts = {backend: item.count for backend, item in found.items()}
    return HostRules(counts.get(Backend.IPTABLES, 0), counts.get(Backend.NFTABLES, 0), next(iter(marked), None))


def _probe_raw(raw: Sequence[RawDriver], request: ApplyRequest, rules: HostRules) -> dict[Backend, Probe]:
    """Probe the raw backends that matter: the requested one, else the one with the host's rules; the other one only if
    that is not available. (Probing iptables creates its tables.)
    """
    wanted, _ = asked_for(request.felix, request.raw)
    first = wanted or detected(rules)[0]
    found: dict[Backend, Probe] = {}
    for driver in sorted(raw, key=lambda driver: driver.name is not first):
        found[driver.name] = driver.probe()
        if wanted is not None or found[driver.name].answer is not Answer.NO:
            break
    return found


def probe_for(
    request: ApplyRequest, present: Mapping[str, InterfaceState], backends: Backends, cache: ProbeCache
) -> HostFacts:
    """The host facts that matter to the request: probing is not free, so nothing else is probed.

    ``present``: the existing interfaces, by name.
    """
    if not request.tables and not request.tracked:
        return request.facts
    wanting = [name for name, run in request.runs.items() if wants_xdp(run, felix=request.felix, choice=request.choice)]
    states = [present[name] for name in wanting if name in present]
    facts = cache.facts(request.facts.node, states, backends.modes.programs())
    absent = tuple(InterfaceFacts(name, modes=NOT_THERE) for name in request.runs if name not in present)
    rules = host_rules(backends.raw)
    answers = {**facts.backends, **_probe_raw(backends.raw, request, rules)}
    facts = replace(facts, interfaces=(*facts.interfaces, *absent), backends=answers, rules=rules)
    return _with_netdev(facts, list(request.runs), present, backends) if request.netdev else facts


def _with_netdev(
    facts: HostFacts, names: Sequence[str], present: Mapping[str, InterfaceState], backends: Backends
) -> HostFacts:
    """Add the facts for netdev ingress: nf_tables, and whether another device takes packets before raw."""
    answers = {name: netdev_ingress(present[name]) if name in present else NOT_THERE[Mode.GENERIC] for name in names}
    interfaces = tuple(
        replace(facts.interface(name) or InterfaceFacts(name), netdev_ingress=answer)
        for name, answer in answers.items()
    )
    found = dict(facts.backends)
    if found.get(Backend.NFTABLES, _UNASKED).answer is not Answer.NO:
        found[Backend.NETDEV] = backends.named(Backend.NETDEV).probe()
    return replace(facts, interfaces=interfaces, backends=found)
