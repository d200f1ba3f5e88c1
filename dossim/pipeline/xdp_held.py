"""Which rules an XDP program holds: the longest run, from the first, that fits and that it can express.

If one were left out, a packet it allows could be dropped by a later one. A second, independent implementation of
``enforcer/planning/xdp_capability.py``, from the resources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from dossim.pipeline.applicable import NamedRule
from dossim.pipeline.policy import Policy
from dossim.pipeline.selection import has_selector
from dossim.pipeline.xdp_headers import PORT_HEADERS, Missing
from enforcer.model.abi import MAX_BITS, MAX_SKIPS
from enforcer.model.vocabulary import Action, Mode
from enforcer.policy.resources import PortRange, Rule, fields_of_sides, match_fields

# The rule fields that the program matches on, and what must be known of a packet for each, besides its addresses. A
# rule that sets any other field is left to raw.
NEEDS: Mapping[str, Missing | None] = {
    **dict.fromkeys(("ip_version",), None),
    **dict.fromkeys(fields_of_sides("nets", "not_nets", "selector", "not_selector", "namespace_selector"), None),
    **dict.fromkeys(("protocol", "not_protocol"), Missing.PROTOCOL),
    **dict.fromkeys(fields_of_sides("ports", "not_ports"), Missing.PORTS),
    **dict.fromkeys(("icmp", "not_icmp"), Missing.ICMP_TYPE),
}
# The rule fields that a device matches on.
_ON_DEVICE = {
    "ip_version",
    *(f"source.{name}" for name in ("nets", "selector", "not_selector", "namespace_selector")),
}


@dataclass(frozen=True)
class Held:
    """``stopper`` is the first rule that is not held, None if all are; ``why`` is the reason.

    Without a Deny no program is attached: then there are no ``rules``.
    """

    rules: tuple[NamedRule, ...]
    stopper: NamedRule | None = None
    why: str = ""

    @cached_property
    def needs(self) -> tuple[frozenset[Missing], ...]:
        """For each rule, what must be known of a packet. Without the protocol, ports and ICMP type are unknown."""
        return tuple(_needs(item.rule) for item in self.rules)


def held_rules(policy: Policy, mode: Mode) -> Held:
    """The rules of a policy that the program of a mode holds; a device holds fewer."""
    run: list[NamedRule] = []
    for item, why in _reasons(policy, mode):
        if why:
            return Held(_if_any_denies(run), item, why)
        run.append(item)
    return Held(_if_any_denies(run), why="" if policy.rules else "no rule applies")


def _if_any_denies(run: list[NamedRule]) -> tuple[NamedRule, ...]:
    return tuple(run) if any(item.rule.action is Action.DENY for item in run) else ()


def _reasons(policy: Policy, mode: Mode) -> Iterator[tuple[NamedRule, str]]:
    """Each rule, and why it cannot be held with the preceding ones; "" if it can."""
    failsafes = len({(answers, item.protocol, item.net) for item, answers in policy.failsafes()})
    tiers: set[str] = set()
    for number, item in enumerate(policy.rules, start=1):
        if item.rule.action is Action.PASS:
            tiers.add(item.tier)
        if mode is Mode.OFFLOAD:
            yield item, why_not_offload(item.rule)
        elif failsafes + number > MAX_BITS:
            yield item, f"the program holds {MAX_BITS} rules at most, {failsafes} of them taken by failsafes"
        elif len(tiers) > MAX_SKIPS:
            yield item, f"the program follows Pass in {MAX_SKIPS} tiers at most"
        else:
            yield item, _unread_ports(item.rule) or _unknown(item.rule)


def _needs(rule: Rule) -> frozenset[Missing]:
    found = {need for name in match_fields(rule) if (need := NEEDS[name]) is not None}
    return frozenset({Missing.PROTOCOL, *found} if found else found)


def _unknown(rule: Rule) -> str:
    others = sorted(match_fields(rule) - NEEDS.keys())
    return f"the program does not match on {', '.join(others)}" if others else ""


def _unread_ports(rule: Rule) -> str:
    asked = [port for side in (rule.source, rule.destination) for port in (*side.ports, *side.not_ports)]
    if any(isinstance(port, PortRange) for port in asked) and rule.protocol not in PORT_HEADERS:
        return f"the program does not read the ports of protocol {rule.protocol}"
    return ""


def why_not_offload(rule: Rule) -> str:
    """Why a device does not hold a rule; "" if it does. It matches on sources only."""
    asked = {
        f"its action is {rule.action}": rule.action is not Action.DENY,
        "it matches a protocol": rule.protocol is not None or rule.not_protocol is not None,
        "it matches ICMP": rule.icmp is not None or rule.not_icmp is not None,
        "it matches ports": any(side.ports or side.not_ports for side in (rule.source, rule.destination)),
        "it matches the destination": bool(rule.destination.nets or rule.destination.not_nets)
        or has_selector(rule.destination),
        "it excludes sources": bool(rule.source.not_nets)
        or bool(rule.source.not_selector and not rule.source.selector and not rule.source.namespace_selector),
        "it matches a list of nets and a selector at once": bool(rule.source.nets) and has_selector(rule.source),
    }
    others = ", ".join(sorted(match_fields(rule) - _ON_DEVICE))
    return next((reason for reason, applies in asked.items() if applies), others and f"it matches on {others}")
