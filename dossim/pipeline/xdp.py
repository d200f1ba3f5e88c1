"""What an XDP program does with a frame (``bpf/xdp_untracked.bpf.c``), from the resources.

It may drop only what raw would drop, else it passes. The match of a failsafe or rule is *no* if anything known of the
packet contradicts it, else *indeterminate* if it matches on something unknown, else *yes*. The first that is not *no*
decides: a Deny with *yes* drops the frame, a Pass with *yes* skips the rest of its tier, and in every other case the
frame passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Literal

from dossim.model.disposition import Fate
from dossim.packet.cut import CutError
from dossim.packet.fields import HIDDEN, PROTOCOL_NAMES
from dossim.pipeline.applicable import NamedRule
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.matching import Answer, can_match, rule_matches
from dossim.pipeline.stages import Context, Node, PacketState, Step
from dossim.pipeline.xdp_headers import Known, Missing, known_transport, readable_ip
from enforcer.model.vocabulary import STAGE_OF_MODE, Action, Mode, Stage, Word
from enforcer.policy.resources import EntityRule, Failsafe, NamedPort, Rule


class Match(Word):
    """Whether a rule or failsafe matches, as far as the program can know."""

    YES = "yes"
    NO = "no"
    INDETERMINATE = "indeterminate"


_LEFT_TO_RAW = {Action.ALLOW: "allows it; raw accepts it untracked", Action.LOG: "logs it; only raw can"}


def xdp_check(stage: Stage, following: Stage) -> Callable[[PacketState, Context], Step]:
    """The check of one of the three stages an XDP program can run at."""

    def check(state: PacketState, context: Context) -> Step:
        return _check(stage, following, state, context)

    return check


def _check(stage: Stage, following: Stage, state: PacketState, context: Context) -> Step:
    if context.mode is None or STAGE_OF_MODE[context.mode] is not stage:
        return Step(following, state, "the interface", "no XDP program here")
    if not context.held.rules:
        note = f"it would hold no rule: {context.held.why or 'there is no Deny'}"
        return Step(following, state, "the interface", "no XDP program here", note=note)
    ip = readable_ip(state.packet.link)
    if ip is None:
        why = "tagged for a VLAN, or no IP header that can be decided on"
        return passed(stage, following, state, "the frame", why)
    known = known_transport(ip, by_device=context.mode is Mode.OFFLOAD)
    key = MatchKey(ip.version, ip.source, ip.destination, known.transport)
    denied_by, why = decide(key, known, context)
    if denied_by is None:
        return passed(stage, following, state, describe(key, known), why)
    target: Node = Fate.DROPPED
    return Step(target, state, describe(key, known), why, denied_by.name, denied_by.rule)


def passed(stage: Stage, following: Stage, state: PacketState, looked_at: str, why: str) -> Step:
    """The step of an early stage that leaves a packet to raw."""
    return Step(following, replace(state, passed=f"{stage} passed it: {why}"), looked_at, "passes", note=why)


def decide(key: MatchKey, known: Known, context: Context) -> tuple[NamedRule | None, str]:
    """The rule that denies the packet, None if it passes; and why."""
    policy = context.policy
    unknown = f"its {known.missing} cannot be determined here ({known.why})"
    for failsafe, answers in policy.failsafes():
        match _match_failsafe(failsafe, key, known, answers=answers, by_device=context.mode is Mode.OFFLOAD):
            case Match.YES:
                return None, f"{policy.describe(failsafe, answers=answers)} applies"
            case Match.INDETERMINATE:
                return None, f"{policy.describe(failsafe, answers=answers)} might apply: {unknown}"
    skipped: dict[str, str] = {}  # tier -> the Pass that skipped it
    for item, needs in zip(context.held.rules, context.held.needs, strict=True):
        answer = Match.NO if item.tier in skipped else _match_rule(item.rule, needs, key, known, context)
        if answer is Match.NO:
            continue
        if answer is Match.INDETERMINATE:
            return None, f"{item.name} might match: {unknown}"
        match item.rule.action:
            case Action.DENY:
                return item, f"{item.name} denies it"
            case Action.PASS:
                skipped[item.tier] = item.name
            case Action.ALLOW | Action.LOG as action:
                return None, f"{item.name} {_LEFT_TO_RAW[action]}"
    return None, _no_match(context, tuple(skipped.values()))


def _no_match(context: Context, skipped: tuple[str, ...]) -> str:
    held = context.held
    if held.stopper is None:
        found = "no rule matches"
    elif len(held.rules) == 1:
        found = "the one rule held here does not match"
    else:
        found = f"none of the {len(held.rules)} rules held here matches"
    if skipped:
        found += f" after {' and '.join(skipped)} skipped its tier"
    return found if held.stopper is None else f"{found}; {held.stopper.name} is left to raw: {held.why}"


# -- one match ---------------------------------------------------------------------------------------------------------


def _match_failsafe(failsafe: Failsafe, key: MatchKey, known: Known, *, answers: bool, by_device: bool) -> Match:
    """A device does not match on the failsafe's net."""
    net = None if by_device else failsafe.net
    if known.transport is None:
        return _indeterminate_if(net is None or net.version == key.version)
    if failsafe.protocol != known.transport.protocol or (net is not None and key.source not in net):
        return Match.NO
    if known.missing is Missing.PORTS:
        return Match.INDETERMINATE
    applies = known.ports is not None and known.ports[0 if answers else 1] == failsafe.port
    return Match.YES if applies else Match.NO


def _match_rule(rule: Rule, needs: Collection[Missing], key: MatchKey, known: Known, context: Context) -> Match:
    """Raw's match if everything that the rule needs is known; else the remaining conditions may still contradict it.

    If the protocol is unknown, only the family remains: raw matches on the protocol before sets, and hotdrops there a
    packet without a readable protocol. Raises CutError if the capture cut what the rule matches on.
    """
    if not can_match(rule, key.version):
        return Match.NO
    if known.transport is HIDDEN and Missing.PROTOCOL in needs:
        raise CutError
    if known.missing is None or known.missing not in needs:
        return Match.YES if _matches(rule, key, context) else Match.NO
    if known.missing is Missing.PROTOCOL:
        return Match.INDETERMINATE
    return _indeterminate_if(_matches(_without(known.missing, rule), key, context))


def _matches(rule: Rule, key: MatchKey, context: Context) -> bool:
    return rule_matches(rule, key, context.policy.selection) is Answer.YES


def _indeterminate_if(possible: bool) -> Match:
    return Match.INDETERMINATE if possible else Match.NO


def _without(missing: Literal[Missing.PORTS, Missing.ICMP_TYPE], rule: Rule) -> Rule:
    """The rule without its conditions on ports, or on the ICMP type."""
    match missing:
        case Missing.ICMP_TYPE:
            return replace(rule, icmp=None, not_icmp=None)
        case Missing.PORTS:
            return replace(rule, source=_without_ports(rule.source), destination=_without_ports(rule.destination))


def _without_ports(side: EntityRule) -> EntityRule:
    """If all ports are named, the selector belongs to them: it selects the endpoints whose ports count
    (``rule_scanner.go``).
    """
    bare = replace(side, ports=(), not_ports=())
    if not side.ports or not all(isinstance(port, NamedPort) for port in side.ports):
        return bare
    is_narrowed = bool(side.selector.strip() or side.namespace_selector.strip())
    alone = "" if is_narrowed else side.not_selector
    return replace(bare, selector="", namespace_selector="", not_selector=alone)


# -- in words ----------------------------------------------------------------------------------------------------------


def describe(key: MatchKey, known: Known) -> str:
    """What was examined: ``203.0.113.9 > 10.10.10.10 TCP 1024 > 80``."""
    addresses = f"{key.source} > {key.destination}"
    if known.transport is None or known.transport is HIDDEN:
        return f"{addresses}, protocol unknown"
    protocol = known.transport.protocol
    what = f"{addresses} {PROTOCOL_NAMES.get(protocol, f'protocol {protocol}')}"
    if known.missing:
        return f"{what}, {known.missing} unknown"
    try:
        return f"{what} {known.ports[0]} > {known.ports[1]}" if known.ports else what
    except CutError:
        return f"{what}, cut by the capture"
