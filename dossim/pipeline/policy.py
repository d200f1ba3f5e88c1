"""Untracked policy of one interface and direction, evaluated straight from the resources: the reference for raw.

Written to be compared with Calico's documents, and independent of ``enforcer.policy.compile``: they share only the
selector language and the address sets. Semantics: ``felix/calc/policy_sorter.go`` (order), ``felix/rules/endpoints.go``
(tiers, failsafes first), ``felix/rules/policy.go`` (rules). For what netfilter adds see :func:`rule_matches`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dossim.packet.fields import Transport
from dossim.pipeline.applicable import NamedRule, applicable, governs, rules_of
from dossim.pipeline.governing import governing_endpoint
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.matching import Answer, failsafe_matches, require_expressible, rule_matches
from dossim.pipeline.selection import Selection
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Action, Direction, Word
from enforcer.policy.resources import Failsafe, FelixConfiguration, HostEndpoint, Resources


class Verdict(Word):
    """What untracked policy does with a packet."""

    GO_ON = "goes on, tracked"
    ALLOW = "allowed, untracked"
    DENY = "denied"
    HOTDROP = "dropped, because a rule cannot be evaluated"


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
        return cls(endpoint, rules, felix, Selection(resources), direction)

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
                    return Decision(Verdict.HOTDROP, f"{asked} cannot be evaluated: {hotdrop_reason(key.transport)}")
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
        return describe_failsafe(failsafe, self.direction, answers=answers)

    def _rules(self, key: MatchKey) -> Decision:
        passed_tiers: set[str] = set()
        logged: list[str] = []
        for item in self.rules:
            if item.tier in passed_tiers:
                continue
            answer = rule_matches(item.rule, key, self.selection)
            if answer is Answer.HOTDROP:
                why = f"{item.name} cannot be evaluated: {hotdrop_reason(key.transport)}"
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
    for policy in applicable(resources, endpoint):
        if policy.do_not_track and governs(policy, direction):
            yield from rules_of(policy, direction)


def describe_failsafe(failsafe: Failsafe, direction: Direction, *, answers: bool = False) -> str:
    """A failsafe as operators write it: ``failsafe tcp/22``."""
    name = {6: "tcp", 17: "udp", 132: "sctp"}.get(failsafe.protocol, str(failsafe.protocol))
    ingress = direction is Direction.INGRESS
    net = f" {'from' if ingress else 'to'} {failsafe.net}" if failsafe.net else ""
    other = f" ({'outbound' if ingress else 'inbound'}, its answers)" if answers else ""
    return f"failsafe {name}/{failsafe.port}{net}{other}"


def hotdrop_reason(transport: Transport | None) -> str:
    if transport is None:
        return "the IPv6 extension headers are truncated before the protocol"
    return f"protocol {transport.protocol} with a header of {len(transport.buf)} bytes"
