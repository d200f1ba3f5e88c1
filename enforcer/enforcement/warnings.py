"""What the operator may not have meant, although it is no error: said with every pass. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from enforcer.model.facts import HostRules
from enforcer.model.vocabulary import Action, Backend
from enforcer.planning.plan import Plan
from enforcer.policy.resources import Resources


def warnings_of(node: str, resources: Resources, plan: Plan, absent: Collection[str]) -> Iterator[str]:
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


def unheard(plan: Plan, mask: int, rules: HostRules) -> Iterator[str]:
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
