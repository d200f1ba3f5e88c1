"""Warnings of each pass: valid input that the operator may not have intended. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from enforcer.planning.plan import Plan
from enforcer.policy.resources import Resources


def warnings_of(node: str, resources: Resources, plan: Plan, absent: Collection[str]) -> Iterator[str]:
    """Valid input that the author may not have intended: a wrong node name, a missing interface."""
    mine = [item for item in resources.host_endpoints if item.node == node]
    if not mine:
        nodes = ", ".join(sorted({item.node for item in resources.host_endpoints})) or "none at all"
        yield f"node {node} has no HostEndpoint (nodes with HostEndpoints: {nodes}); nothing is enforced; see --node"
    elif not plan.interfaces and not any(item.enforced for item in plan.tracked):
        yield f"no untracked policy (doNotTrack: true) selects a HostEndpoint of node {node}; nothing is enforced"
    for name in absent:
        yield f"interface {name} does not exist; raw is ready for it, XDP follows when it appears"
    for item in resources.felix_unknown(node):
        yield (
            f"FelixConfiguration {item.name} is not applied: no Node resource has the labels of node {node}, which "
            f"its nodeSelector ({item.node_selector}) needs; add one"
        )
    for note in resources.notes:
        yield str(note)
    if resources.skipped:
        yield f"ignored kinds: {', '.join(resources.skipped)}"
