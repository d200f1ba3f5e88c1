"""Warnings of each pass: valid input that the operator may not have intended. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from enforcer.planning.plan import Plan
from enforcer.policy.resources import HostEndpoint, Resources

_NAMES = 10


def warnings_of(node: str, resources: Resources, plan: Plan, absent: Collection[str]) -> Iterator[str]:
    """Valid input that the author may not have intended: a wrong node name, a missing interface."""
    mine = [item for item in resources.host_endpoints if item.node == node]
    if not mine:
        nodes = _some(sorted({item.node for item in resources.host_endpoints}))
        yield f"node {node} has no HostEndpoint (nodes with HostEndpoints: {nodes}); nothing is enforced; see --node"
    elif not plan.interfaces and not any(item.enforced for item in plan.tracked):
        yield f"no untracked policy (doNotTrack: true) selects a HostEndpoint of node {node}; nothing is enforced"
    for name, rivals in _by_interface(mine).items():
        if len(rivals) > 1:
            of = f"HostEndpoints {_some(rivals)} are all for interface {name}"
            yield f"{of}; only {rivals[0]}, the first name, counts"
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


def _by_interface(endpoints: Sequence[HostEndpoint]) -> dict[str, list[str]]:
    """The names of the HostEndpoints for each interface that they name, in the order in which they count."""
    found: dict[str, list[str]] = {}
    for item in sorted(endpoints, key=lambda item: item.name):
        if item.interface_name:
            found.setdefault(item.interface_name, []).append(item.name)
    return found


def _some(names: Sequence[str]) -> str:
    """Names for a sentence: a fleet may have ten thousand."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"{', '.join(names[:_NAMES])}{more}" if names else "none at all"
