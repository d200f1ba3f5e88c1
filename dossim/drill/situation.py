"""Situation: policy, host and mode of one prediction or drill, with defaults for what the user left out. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from dossim.model.host import Host, IPInterface, Listener
from dossim.packet.capture import Capture
from dossim.packet.columns import main_destinations
from dossim.predict.after import Tables
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.errors import UnsupportedRuleError, UsageError
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Answer, Backend, Mode
from enforcer.planning.plan import InterfacePlan, Plan, make_plan
from enforcer.policy.compile import Compiler, compile_table
from enforcer.policy.endpoint import governing_endpoint
from enforcer.policy.resources import HostEndpoint, Resources
from enforcer.policy.ruletable import Entry, RuleTable

ANY_INTERFACE = "*"
_RAW = (Backend.IPTABLES, Backend.NFTABLES)
_NAME_MAX = 15  # IFNAMSIZ without its terminating zero


@dataclass(frozen=True)
class Situation:
    resources: Resources
    host: Host
    choice: ModeChoice = ModeChoice.AUTO
    raw: RawChoice = RawChoice.AUTO
    netdev: bool = False
    tracked: TrackedChoice = TrackedChoice.MODEL


def situation_for(
    resources: Resources,
    *,
    capture: Capture | None,
    choice: ModeChoice = ModeChoice.AUTO,
    raw: RawChoice = RawChoice.AUTO,
    netdev: bool = False,
    tracked: TrackedChoice = TrackedChoice.MODEL,
    node: str | None = None,
    interface: str | None = None,
    addresses: Sequence[IPInterface] = (),
    forward: bool = False,
    routes: Sequence[IPNetwork] = (),
    listen: Sequence[Listener] = (),
    rp_filter: int = 0,
    mtu: int = 1500,
) -> Situation:
    """The situation when the user names only a policy and a capture.

    Node and interface come from the HostEndpoints; addresses from their expectedIPs, else from the capture's most
    frequent destination of each family. Raises UsageError when the policy leaves a choice that only the user can make.
    """
    asked_for_interface = interface is not None
    node = _node(resources, node)
    endpoints = [item for item in resources.host_endpoints if item.node == node]
    interface = _named(interface) if interface is not None else _only_interface(endpoints, node)
    own = tuple(addresses) or _expected(endpoints, interface)
    if not own and capture is not None:
        own = tuple(ip_interface(address) for address in main_destinations(capture))
    if asked_for_interface and endpoints:
        _require_governed(resources, endpoints, node, interface, own)
    host = Host(
        node=node,
        interface=interface,
        addresses=own,
        forward=forward,
        routes=tuple(routes),
        listen=tuple(listen),
        rp_filter=rp_filter,
        mtu=mtu,
    )
    return Situation(resources, host, choice, raw, netdev, tracked)


def _node(resources: Resources, node: str | None) -> str:
    nodes = sorted({item.node for item in resources.host_endpoints})
    if node is not None:
        if nodes and node not in nodes:
            raise UsageError(f"--node {node}: the policy has no HostEndpoint of that node, only of {', '.join(nodes)}")
        return node
    if len(nodes) > 1:
        found = f"{len(nodes)} nodes ({', '.join(nodes)})"
        raise UsageError(f"the policy has HostEndpoints of {found}; choose one with --node")
    return nodes[0] if nodes else os.uname().nodename


def _named(interface: str) -> str:
    """The name, if the kernel would accept it (``dev_valid_name``)."""
    if not 0 < len(interface) <= _NAME_MAX or interface in (".", "..") or set(interface) & set("/: \t\n"):
        raise UsageError(
            f"--interface {interface}: not an interface name; "
            f"expected 1 to {_NAME_MAX} characters without '/', ':' and spaces"
        )
    return interface


def _require_governed(
    resources: Resources, endpoints: Sequence[HostEndpoint], node: str, interface: str, own: Sequence[IPInterface]
) -> None:
    addresses = [address.ip for address in own]
    if governing_endpoint(resources, node=node, interface=interface, addresses=addresses) is None:
        known = ", ".join(sorted({item.interface_name or str(item.expected_ips[0]) for item in endpoints}))
        raise UsageError(f"--interface {interface}: no HostEndpoint of node {node} governs it; they are for {known}")


def _only_interface(endpoints: Sequence[HostEndpoint], node: str) -> str:
    names = sorted({item.interface_name for item in endpoints} - {"", ANY_INTERFACE})
    if len(names) > 1:
        found = f"{len(names)} interfaces ({', '.join(names)})"
        raise UsageError(f"node {node} has HostEndpoints for {found}; choose one with --interface")
    return names[0] if names else "eth0"


def _expected(endpoints: Sequence[HostEndpoint], interface: str) -> tuple[IPInterface, ...]:
    """expectedIPs of the HostEndpoints that can govern the interface, in order, without repetition."""
    candidates = [item for item in endpoints if item.interface_name in ("", ANY_INTERFACE, interface)]
    found = dict.fromkeys(address for item in candidates for address in item.expected_ips)
    return tuple(ip_interface(address) for address in found)


def lab_facts(host: Host) -> HostFacts:
    """What the lab's interface supports: a veth pair has native and generic XDP and no hardware (Linux 4.19)."""
    modes = {
        Mode.OFFLOAD: Probe(Answer.NO, "veth is a virtual device: no hardware to offload to"),
        Mode.NATIVE: Probe(Answer.YES),
        Mode.GENERIC: Probe(Answer.YES),
    }
    interface = InterfaceFacts(
        host.interface,
        driver="veth",
        mtu=host.mtu,
        addresses=tuple(address.ip for address in host.addresses),
        modes=modes,
    )
    return HostFacts(host.node, interfaces=(interface,), backends=dict.fromkeys(_RAW, Probe(Answer.YES)))


def plan_for(situation: Situation, facts: HostFacts) -> InterfacePlan:
    """The plan of the host's outside interface; one that enforces nothing when no policy governs it."""
    host = situation.host
    table = _outside_table(situation)
    felix = situation.resources.felix_for(host.node)
    tables = enforced_after(situation).tables
    plan = make_plan(
        [table],
        facts,
        felix=felix,
        choice=situation.choice,
        raw=situation.raw,
        netdev=situation.netdev,
        tracked=[item for item in (tables.outside, tables.inside) if item] if tables else (),
        tracked_choice=situation.tracked,
    )
    return outside_plan(plan, situation)


def _outside_table(situation: Situation) -> RuleTable:
    host = situation.host
    addresses = [address.ip for address in host.addresses]
    return compile_table(situation.resources, node=host.node, interface=host.interface, addresses=addresses)


@dataclass(frozen=True)
class LaterPolicy:
    """Policy of the host besides the outside interface's raw: after conntrack of both interfaces, None where nothing of
    it takes part, and raw of the inside one.
    """

    tables: Tables | None = None
    inside: RuleTable | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.tables.entries() if self.tables else ()


def enforced_after(situation: Situation) -> LaterPolicy:
    """What is enforced. Raises UnsupportedRuleError for a rule of tracked policy that cannot be enforced."""
    return _later(situation) if situation.tracked is TrackedChoice.ENFORCE else LaterPolicy()


def modelled_after(situation: Situation) -> LaterPolicy:
    """What Calico would enforce and is not enforced. Raises UnsupportedRuleError for a rule that cannot be modelled."""
    return _later(situation) if situation.tracked is TrackedChoice.MODEL else LaterPolicy()


def _later(situation: Situation) -> LaterPolicy:
    host, resources = situation.host, situation.resources
    compiler = Compiler()
    addresses = [address.ip for address in host.addresses]
    outside = compiler.compile_tracked(resources, node=host.node, interface=host.interface, addresses=addresses)
    inside = compiler.compile_tracked(resources, node=host.node, interface=host.inside)
    if unsupported := [sentence for table in (outside, inside) if table for sentence in table.unsupported]:
        raise UnsupportedRuleError("\n".join(dict.fromkeys(unsupported)))
    return LaterPolicy(Tables(outside, inside), compiler.compile(resources, node=host.node, interface=host.inside))


def outside_plan(plan: Plan, situation: Situation) -> InterfacePlan:
    """The part of a plan that concerns the host's outside interface. Without untracked entries it is of a table that
    has nothing but the names of the tracked policies.
    """
    interface = situation.host.interface
    for item in plan.interfaces:
        if item.interface == interface:
            return item
    backend = next((item.backend for item in plan.tracked), Backend.IPTABLES)
    return InterfacePlan(RuleTable(interface, tracked=_outside_table(situation).tracked), None, backend, ())
