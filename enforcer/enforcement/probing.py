"""What this host answers, as far as a plan needs it: interfaces by name, the raw backends, netdev ingress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from enforcer.backends.detect import host_rules
from enforcer.backends.iptables import probe
from enforcer.backends.nftables import probe as probe_nftables
from enforcer.backends.nftables.netdev import installed as netdev_installed
from enforcer.backends.nftables.netdev import probe as probe_netdev
from enforcer.backends.xdp.backend import XdpBackend
from enforcer.kernel.pin_paths import default_pin_root
from enforcer.kernel.probe import netdev_ingress, probe_host
from enforcer.kernel.rtnetlink import InterfaceState
from enforcer.kernel.rtnetlink import interfaces as netlink_interfaces
from enforcer.model.choices import RawChoice
from enforcer.model.errors import UsageError
from enforcer.model.facts import HostFacts, HostRules, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Backend, Mode
from enforcer.planning.raw_choice import asked_for, detected
from enforcer.policy.resources import FelixConfiguration

NOT_THERE = dict.fromkeys(Mode, Probe(Answer.NO, "the interface is not there"))
_UNASKED = Probe(Answer.UNKNOWN, "not probed")


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


def probe_raw(felix: FelixConfiguration, choice: RawChoice, rules: HostRules) -> dict[Backend, Probe]:
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


def with_netdev(facts: HostFacts, names: Sequence[str], present: Mapping[str, InterfaceState]) -> HostFacts:
    """The facts with what matters to netdev ingress: nf_tables, and who takes an interface's packets before raw."""
    answers = {name: netdev_ingress(present[name]) if name in present else NOT_THERE[Mode.GENERIC] for name in names}
    interfaces = tuple(
        replace(facts.interface(name) or InterfaceFacts(name), netdev_ingress=answer)
        for name, answer in answers.items()
    )
    backends = dict(facts.backends)
    if facts.backends.get(Backend.NFTABLES, _UNASKED).answer is not Answer.NO and netdev_installed() is None:
        backends[Backend.NFTABLES] = probe_netdev()
    return replace(facts, interfaces=interfaces, backends=backends)
