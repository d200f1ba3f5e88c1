"""Untracked policy of one interface and direction, evaluated straight from the resources: the reference for raw.

Written to be compared with Calico's documents, and independent of ``enforcer.policy.compile``: they share only the
selector language and the address sets. Semantics: ``felix/calc/policy_sorter.go`` (order), ``felix/rules/endpoints.go``
(tiers, failsafes first), ``felix/rules/policy.go`` (rules). For what netfilter adds see :func:`rule_matches`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dossim.packet.fields import Transport
from dossim.pipeline.governing import governing_endpoint
from dossim.pipeline.matching import Answer, MatchKey, failsafe_matches, require_expressible, rule_matches
from dossim.pipeline.selection import NAMESPACE, Selection, labels_of
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Action, Direction, Stage, Word
from enforcer.policy.resources import Failsafe, FelixConfiguration, GlobalNetworkPolicy, HostEndpoint, Resources, Rule
from enforcer.policy.selector import parse

DEFAULT_TIER = "default"
# Calico creates these tiers itself (``libcalico-go/lib/clientv3/client.go``).
TIER_ORDERS = {DEFAULT_TIER: 1_000_000.0, "kube-admin": 1_000.0, "kube-baseline": 10_000_000.0}
GLOBAL_NETWORK_POLICY = "gnp"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"


class Verdict(Word):
    """What untracked policy does with a packet."""

    GO_ON = "goes on, tracked"
    ALLOW = "allowed, untracked"
    DENY = "denied"
    HOTDROP = "dropped, because a rule cannot be evaluated"


@dataclass(frozen=True)
class NamedRule:
    """A rule with its position. ``name`` is what results print: ``gnp/dos-mitigation ingress[0]``."""

    name: str
    tier: str
    rule: Rule


@dataclass(frozen=True)
class Decision:
    """``decided_by``: the rule that decided; None if a failsafe or no rule did."""

    verdict: Verdict
    why: str
    decided_by: NamedRule | None = None
    logged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """``rules`` are all untracked rules of the interface and direction in evaluation order; without any, nothing is
    enforced.
    """

    endpoint: HostEndpoint | None
    rules: tuple[NamedRule, ...]
    felix: FelixConfiguration
    selection: Selection
    direction: Direction = Direction.INGRESS
    tracked: Mapping[Stage, tuple[str, ...]] = field(default_factory=dict)  # policies that Calico would evaluate there

    @classmethod
    def of(
        cls,
        resources: Resources,
        *,
        node: str,
        interface: str,
        addresses: Sequence[IPAddress],
        direction: Direction = Direction.INGRESS,
    ) -> Policy:
        """The policy of a node's interface. Raises UnsupportedRuleError for rules that no untracked policy can have."""
        felix = resources.felix_for(node)
        endpoint = governing_endpoint(resources.host_endpoints, felix, node, interface, addresses)
        rules = tuple(_rules_of(resources, endpoint, direction)) if endpoint else ()
        for item in rules:
            require_expressible(item.name, item.rule)
        tracked = _tracked(resources, endpoint) if endpoint else {}
        return cls(endpoint, rules, felix, Selection(resources), direction, tracked)

    @classmethod
    def none(cls) -> Policy:
        """No policy at all."""
        return cls(None, (), FelixConfiguration("default"), Selection(Resources()))

    def decide(self, key: MatchKey) -> Decision:
        """Failsafes first; then the rules in order. The first that matches and is not a Log decides."""
        if not self.rules:
            return Decision(Verdict.GO_ON, f"no untracked {self.direction} policy applies to the interface")
        failsafe = self._failsafe(key)
        if failsafe is not None:
            return failsafe
        return self._rules(key)

    def _failsafe(self, key: MatchKey) -> Decision | None:
        """The failsafe that matches: one of this direction by destination port, one of the other by source port
        (replies).
        """
        for failsafe, answers in self.failsafes():
            match failsafe_matches(failsafe, key, direction=self.direction, answers=answers):
                case Answer.YES:
                    return Decision(Verdict.GO_ON, f"{self.describe(failsafe, answers=answers)} applies")
                case Answer.HOTDROP:
                    asked = self.describe(failsafe, answers=answers)
                    return Decision(Verdict.HOTDROP, f"{asked} cannot be evaluated: {_hotdrop_reason(key.transport)}")
        return None

    def failsafes(self) -> Iterator[tuple[Failsafe, bool]]:
        """Each failsafe, and whether it is one of the other direction, whose replies come from its port."""
        own, other = self.felix.failsafe_inbound, self.felix.failsafe_outbound
        if self.direction is Direction.EGRESS:
            own, other = other, own
        for failsafe in own:
            yield failsafe, False
        for failsafe in other:
            yield failsafe, True

    def describe(self, failsafe: Failsafe, *, answers: bool) -> str:
        """A failsafe as operators write it: ``failsafe tcp/22``."""
        name = {6: "tcp", 17: "udp", 132: "sctp"}.get(failsafe.protocol, str(failsafe.protocol))
        ingress = self.direction is Direction.INGRESS
        net = f" {'from' if ingress else 'to'} {failsafe.net}" if failsafe.net else ""
        other = f" ({'outbound' if ingress else 'inbound'}, its answers)" if answers else ""
        return f"failsafe {name}/{failsafe.port}{net}{other}"

    def _rules(self, key: MatchKey) -> Decision:
        passed_tiers: set[str] = set()
        logged: list[str] = []
        for item in self.rules:
            if item.tier in passed_tiers:
                continue
            answer = rule_matches(item.rule, key, self.selection)
            if answer is Answer.HOTDROP:
                why = f"{item.name} cannot be evaluated: {_hotdrop_reason(key.transport)}"
                return Decision(Verdict.HOTDROP, why, logged=tuple(logged))
            if answer is Answer.NO:
                continue
            match item.rule.action:
                case Action.DENY:
                    return Decision(Verdict.DENY, f"{item.name} denies it", item, tuple(logged))
                case Action.ALLOW:
                    return Decision(Verdict.ALLOW, f"{item.name} allows it", item, tuple(logged))
                case Action.PASS:
                    passed_tiers.add(item.tier)
                case Action.LOG:
                    logged.append(item.name)
        return Decision(Verdict.GO_ON, "no rule decides", logged=tuple(logged))


def _rules_of(resources: Resources, endpoint: HostEndpoint, direction: Direction) -> Iterator[NamedRule]:
    labels = labels_of(endpoint, resources)
    for policy in _in_order(resources):
        if str(direction).capitalize() not in policy.types or not _applies_to(policy, labels):
            continue
        for index, rule in enumerate(policy.ingress if direction is Direction.INGRESS else policy.egress):
            yield NamedRule(f"{GLOBAL_NETWORK_POLICY}/{policy.name} {direction}[{index}]", policy.tier, rule)


def _tracked(resources: Resources, endpoint: HostEndpoint) -> dict[Stage, tuple[str, ...]]:
    """The policies that Calico evaluates after conntrack, and where: they are not modelled. EGRESS is filter OUTPUT."""
    labels, found = labels_of(endpoint, resources), dict[Stage, tuple[str, ...]]()
    for policy in resources.policies:
        if policy.do_not_track or not _applies_to(policy, labels):
            continue
        stages = [Stage.MANGLE] if policy.pre_dnat else [Stage.FILTER_INPUT] * ("Ingress" in policy.types)
        stages += [Stage.FILTER_FORWARD] if policy.apply_on_forward and not policy.pre_dnat else []
        stages += [Stage.EGRESS] if "Egress" in policy.types else []
        for stage in stages:
            found[stage] = (*found.get(stage, ()), f"{GLOBAL_NETWORK_POLICY}/{policy.name}")
    return found


def _in_order(resources: Resources) -> list[GlobalNetworkPolicy]:
    """Existing tiers first, then by order (a missing order last), then by name. Within a tier policies are sorted the
    same way, their names compared as the beginning of ``name/namespace/kind``.
    """
    orders = TIER_ORDERS | {tier.name: math.inf if tier.order is None else tier.order for tier in resources.tiers}

    def place(policy: GlobalNetworkPolicy) -> tuple[bool, float, str, float, str]:
        own_order = math.inf if policy.order is None else policy.order
        return policy.tier not in orders, orders.get(policy.tier, math.inf), policy.tier, own_order, policy.name + "/"

    return sorted((policy for policy in resources.policies if policy.do_not_track), key=place)


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


def _hotdrop_reason(transport: Transport | None) -> str:
    if transport is None:
        return "the IPv6 extension headers are truncated before the protocol"
    return f"protocol {transport.protocol} with a header of {len(transport.buf)} bytes"
