"""A list as resources: GlobalNetworkSets with the sources, and a GlobalNetworkPolicy for what no present one denies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dossim.suggest.measure import Rule, Suggested
from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Side

LABEL = "dossim-suggested"
_API = "projectcalico.org/v3"
_ORDER = 100
_PROTECTED = "protected"


@dataclass(frozen=True)
class Names:
    """``name``: of the resources, or what their names begin with. ``labels``: those of the deny list that untracked
    policy has already; {}: it has none, so the list comes with a policy.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


def documents(suggested: Suggested, names: Names, protected: Sequence[IPNetwork]) -> list[dict[str, Any]]:
    """Ready to apply. ``protected``: what rules for all sources leave out. Networks do not overlap it: a selector and a
    notSelector beside each other select among sets, not among addresses.
    """
    sets: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for rule in suggested.rules:
        name = names.name if rule.signature is None else f"{names.name}-{rule.signature.name}"
        if rule.nets:
            beside = names.labels if rule.signature is None else {}
            sets.append(_set(name, beside or {LABEL: name}, rule.nets))
        if rule.signature is not None or not names.labels:
            rules += _rules(rule, name, f"{names.name}-{_PROTECTED}" if protected else "")
    if protected and any(rule.anywhere for rule in suggested.rules):
        name = f"{names.name}-{_PROTECTED}"
        sets.append(_set(name, {LABEL: name}, protected))
    return [*sets, _policy(names.name, rules)] if rules else sets


def _set(name: str, labels: Mapping[str, str], nets: Sequence[IPNetwork]) -> dict[str, Any]:
    return {
        "apiVersion": _API,
        "kind": "GlobalNetworkSet",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {"nets": [str(net) for net in nets]},
    }


def _policy(name: str, rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": _API,
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "selector": "all()",
            "order": _ORDER,
            "doNotTrack": True,
            "applyOnForward": True,
            "types": ["Ingress"],
            "ingress": list(rules),
        },
    }


def _rules(rule: Rule, name: str, protected: str) -> Iterator[dict[str, Any]]:
    """``name``: of the set with the rule's sources."""
    if rule.anywhere:
        found = _rule(rule, {"notSelector": f"{LABEL} == '{protected}'"} if protected else {})
        if len(rule.anywhere) == 1 and _families(rule) != rule.anywhere:
            found["ipVersion"] = rule.anywhere[0]
        yield found
    if rule.nets:
        yield _rule(rule, {"selector": f"{LABEL} == '{name}'"})


def _families(rule: Rule) -> tuple[int, ...]:
    """Those that the rule is for without saying so."""
    return rule.signature.families if rule.signature else (4, 6)


def _rule(rule: Rule, source: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"action": "Deny"}
    signature = rule.signature
    if signature is None:
        return found | {"source": source}
    found["protocol"] = signature.protocol_name
    if signature.side is None:
        found["icmp"] = {"type": signature.value}
    elif signature.side is Side.SOURCE:
        source = source | {"ports": [signature.value]}
    else:
        found["destination"] = {"ports": [signature.value]}
    return found | ({"source": source} if source else {})
