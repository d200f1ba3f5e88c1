"""Beside which list an act stands: the one that is named, or the only one that untracked policy denies. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from enforcer.emergency.act import LABEL, is_act
from enforcer.emergency.effect import denies_whole_list, denying, exempting
from enforcer.model.errors import UsageError
from enforcer.policy.resources import GlobalNetworkSet, Resources
from enforcer.policy.ruletable import IpSet, RuleTable
from enforcer.policy.schema import OWN_PREFIX

_NAMED_MAX = 10
_GNS = "gns/"


@dataclass(frozen=True)
class Beside:
    name: str
    labels: dict[str, str] = field(default_factory=dict)


def deny_list(resources: Resources, tables: Iterable[RuleTable], name: str = "") -> Beside:
    """The list of this name, or the only one. Raises UsageError."""
    if name:
        return _named(resources, name)
    found = _groups(resources, (item for _, item in denying(tables)))
    if not found:
        raise UsageError(
            "no GlobalNetworkSet is denied by untracked policy of any HostEndpoint (what is faulty does not count), so "
            "there is no list to stand beside: create one, with the labels that a Deny of a policy with doNotTrack "
            "selects"
        )
    return _only(found, "untracked policy denies several lists", "--set NAME")


def whole_deny_list(resources: Resources, tables: Iterable[RuleTable], name: str = "") -> Beside | None:
    """The list of this name, or the only one of which a rule of untracked policy denies all packets; None if there is
    none. Raises UsageError for several.
    """
    if name:
        return _named(resources, name)
    found = _groups(resources, (item for entry, item in denying(tables) if denies_whole_list(entry)))
    return _only(found, "untracked policy denies several lists", "--set NAME") if found else None


def exemption_list(resources: Resources, tables: Iterable[RuleTable]) -> Beside | None:
    """The only list of exceptions; None if there is none. Raises UsageError for several."""
    found = _groups(resources, (item for _, item in exempting(tables)))
    return (
        _only(found, "untracked policy has several lists of exceptions", "the object that you want") if found else None
    )


def _named(resources: Resources, name: str) -> Beside:
    for item in resources.global_network_sets:
        if item.name == name:
            if is_act(item):
                raise UsageError(f"--set {name}: is an emergency object itself; name the list that it stands beside")
            return _beside(item)
    near = ", ".join(sorted(item.name for item in resources.global_network_sets if not is_act(item))[:_NAMED_MAX])
    raise UsageError(f"--set {name}: there is no GlobalNetworkSet of this name; there are: {near or 'none'}")


def _beside(item: GlobalNetworkSet) -> Beside:
    return Beside(item.name, {key: text for key, text in item.labels.items() if not key.startswith(OWN_PREFIX)})


def _groups(resources: Resources, sets: Iterable[IpSet]) -> list[Beside]:
    """The lists among the members of these sets, one for all that have the same labels: that of the smallest name."""
    members = {name.removeprefix(_GNS) for item in sets for name in item.members if name.startswith(_GNS)}
    found: dict[frozenset[tuple[str, str]], Beside] = {}
    for item in sorted(resources.global_network_sets, key=lambda item: item.name):
        if item.name in members and LABEL not in item.labels:
            made = _beside(item)
            found.setdefault(frozenset(made.labels.items()), made)
    return list(found.values())


def _only(found: list[Beside], what: str, how: str) -> Beside:
    if len(found) == 1:
        return found[0]
    names = ", ".join(item.name for item in found[:_NAMED_MAX])
    more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
    raise UsageError(f"{what}: {names}{more}; choose one with {how}")
