"""Which rules an XDP program holds: the longest run, from the first, that fits and that it can express.

If one were left out, a packet it allows could be dropped by a later one. A second, independent implementation of
``enforcer/planning/xdp_capability.py``, from the resources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dossim.pipeline.applicable import NamedRule
from dossim.pipeline.policy import Policy
from dossim.pipeline.selection import has_selector
from dossim.pipeline.xdp_headers import PORT_HEADERS
from enforcer.model.abi import MAX_BITS, MAX_SKIPS
from enforcer.model.vocabulary import Action, Mode
from enforcer.policy.resources import PortRange, Rule


@dataclass(frozen=True)
class Held:
    """``stopper`` is the first rule that is not held, None if all are; ``why`` is the reason.

    Without a Deny no program is attached: then there are no ``rules``.
    """

    rules: tuple[NamedRule, ...]
    stopper: NamedRule | None = None
    why: str = ""


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
            yield item, _unread_ports(item.rule)


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
    return next((reason for reason, applies in asked.items() if applies), "")
