"""Which policies apply to an endpoint, and in what order they are evaluated.

``felix/calc/policy_sorter.go`` (order), ``globalnetworkpolicyprocessor.go`` (selectors). A second, independent
implementation: the compiler has its own, and the two must not share a mistake.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dossim.pipeline.selection import NAMESPACE, labels_of
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy.resources import GlobalNetworkPolicy, HostEndpoint, Resources, Rule
from enforcer.policy.selector import parse

DEFAULT_TIER = "default"
# Calico creates these tiers itself (``libcalico-go/lib/clientv3/client.go``).
TIER_ORDERS = {DEFAULT_TIER: 1_000_000.0, "kube-admin": 1_000.0, "kube-baseline": 10_000_000.0}
TIER_ACTIONS = {DEFAULT_TIER: Action.DENY, "kube-admin": Action.PASS, "kube-baseline": Action.PASS}
GLOBAL_NETWORK_POLICY = "gnp"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"


@dataclass(frozen=True)
class NamedRule:
    """A rule with its position. ``name`` is what results print: ``gnp/dos-mitigation ingress[0]``. ``tier`` is "" for a
    profile's.
    """

    name: str
    tier: str
    rule: Rule


def applicable(resources: Resources, endpoint: HostEndpoint) -> Iterator[GlobalNetworkPolicy]:
    """The policies of every kind that select the endpoint, in evaluation order."""
    labels = labels_of(endpoint, resources)
    return (policy for policy in _in_order(resources) if _applies_to(policy, labels))


def governs(policy: GlobalNetworkPolicy, direction: Direction) -> bool:
    """Whether the policy takes part in a direction: by its ``types``, whether it has rules or not."""
    return str(direction).capitalize() in policy.types


def rules_of(policy: GlobalNetworkPolicy, direction: Direction) -> Iterator[NamedRule]:
    rules = policy.ingress if direction is Direction.INGRESS else policy.egress
    yield from named(f"{GLOBAL_NETWORK_POLICY}/{policy.name} {direction}", policy.tier, rules)


def named(prefix: str, tier: str, rules: Iterable[Rule]) -> Iterator[NamedRule]:
    for index, rule in enumerate(rules):
        yield NamedRule(f"{prefix}[{index}]", tier, rule)


def tier_actions(resources: Resources) -> Mapping[str, Action]:
    """What becomes of a packet that no policy of a tier decides. Of a tier that does not exist: Deny."""
    return TIER_ACTIONS | {tier.name: tier.default_action for tier in resources.tiers}


def _in_order(resources: Resources) -> list[GlobalNetworkPolicy]:
    """Existing tiers first, then by order (a missing order last), then by name. Within a tier policies are sorted the
    same way, their names compared as the beginning of ``name/namespace/kind``.
    """
    orders = TIER_ORDERS | {tier.name: math.inf if tier.order is None else tier.order for tier in resources.tiers}

    def place(policy: GlobalNetworkPolicy) -> tuple[bool, float, str, float, str]:
        own_order = math.inf if policy.order is None else policy.order
        return policy.tier not in orders, orders.get(policy.tier, math.inf), policy.tier, own_order, policy.name + "/"

    return sorted(resources.policies, key=place)


def _applies_to(policy: GlobalNetworkPolicy, labels: Mapping[str, str]) -> bool:
    """Selectors of namespaces and service accounts look at labels with a prefix, which only a profile gives to a host.

    With one of them, all() means "has a namespace" or "has a service account", in the policy's own selector as well
    (``globalnetworkpolicyprocessor.go`` replaces the word in the combined text).
    """
    asked = [policy.selector.strip()]
    for scope, prefix, label in (
        (policy.namespace_selector, "pcns.", NAMESPACE),
        (policy.service_account_selector, "pcsa.", SERVICE_ACCOUNT),
    ):
        if scope.strip():
            asked.append(parse(scope).with_prefix(prefix).canonical)
            asked = [text.replace("all()", f"has({label})") for text in asked]
    return all(parse(text).evaluate(labels) for text in asked)
