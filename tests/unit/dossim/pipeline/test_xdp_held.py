"""Which rules an XDP program holds: explain derives them from the resources, the plan from the rule table."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from dossim.pipeline.explain import Explainer
from dossim.pipeline.policy import Policy
from dossim.pipeline.xdp_held import Held, held_rules, why_not_offload
from enforcer.model.abi import MAX_BITS, MAX_SKIPS
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Action, Mode, Stage
from enforcer.policy.resources import (
    EntityRule,
    Failsafe,
    GlobalNetworkPolicy,
    IcmpMatch,
    NamedPort,
    PortRange,
    Resources,
    Rule,
    Tier,
)
from tests.support.witnesses import plan_for
from tests.unit.dossim.xdp_decisions import HOST, nets, policy, ports, resources, tcp, untracked

CHOICE = {Mode.OFFLOAD: ModeChoice.OFFLOAD, Mode.NATIVE: ModeChoice.NATIVE}
NET = nets("203.0.113.0/24")
DENY, LISTED = Rule(Action.DENY), Rule(Action.DENY, source=NET)


def held(told: Resources, mode: Mode = Mode.NATIVE) -> Held:
    """The rules that are held according to explain; the plan must agree."""
    addresses = [address.ip for address in HOST.addresses]
    found = held_rules(Policy.of(told, node=HOST.node, interface=HOST.interface, addresses=addresses), mode)
    assert len(found.rules) == plan_for(told, HOST, CHOICE[mode]).held
    return found


def count(*rules: Rule, mode: Mode = Mode.NATIVE) -> int:
    return len(held(policy(*rules), mode).rules)


EVERY_KIND = (
    LISTED,
    Rule(Action.LOG, protocol=17),
    Rule(Action.ALLOW, protocol=6, destination=ports(22)),
    Rule(Action.DENY, protocol=1, icmp=IcmpMatch(8), not_icmp=IcmpMatch(8, 1)),
    Rule(Action.DENY, not_protocol=6, source=EntityRule(not_nets=NET.nets, not_selector="has(x)")),
    Rule(Action.DENY, destination=EntityRule(selector="has(x)", ports=(NamedPort("http"),))),
    Rule(Action.DENY, protocol=132, source=EntityRule(not_ports=(PortRange(1, 9), NamedPort("http")))),
    Rule(Action.PASS),
    Rule(Action.DENY, ip_version=6, source=EntityRule(nets=nets("2001:db8::/32").nets, selector="has(x)")),
)


def test_a_program_holds_every_kind_of_rule_and_a_device_leading_denies_of_sources() -> None:
    assert count(*EVERY_KIND) == len(EVERY_KIND)
    assert count(*EVERY_KIND, mode=Mode.OFFLOAD) == 1


def test_what_could_drop_nothing_holds_nothing() -> None:
    assert held(policy(Rule(Action.ALLOW), Rule(Action.LOG))) == Held(())
    assert count(Rule(Action.LOG), LISTED, mode=Mode.OFFLOAD) == 0
    assert count(LISTED, Rule(Action.LOG), mode=Mode.OFFLOAD) == 1


def test_it_has_room_for_512() -> None:
    assert count(*[LISTED] * (MAX_BITS - 1), DENY) == 512
    found = held(policy(*[LISTED] * MAX_BITS, DENY))
    assert len(found.rules) == 512
    assert found.stopper is not None
    assert found.stopper.name == "gnp/p ingress[512]"
    assert found.why == "the program holds 512 rules at most, 0 of them taken by failsafes"


def test_failsafes_of_one_side_protocol_and_net_take_room_for_one() -> None:
    near = Failsafe(6, 22, ip_network("10.0.0.0/8"))
    inbound = (Failsafe(6, 22), Failsafe(6, 80), Failsafe(17, 22), near, replace(near, port=80))  # three
    outbound = (Failsafe(6, 22), Failsafe(6, 80))  # one: another side
    assert len(held(policy(*[LISTED] * 600, inbound=inbound, outbound=outbound)).rules) == 512 - 4


def test_a_deny_beyond_the_room_is_no_reason_for_a_program() -> None:
    assert count(*[Rule(Action.ALLOW, source=NET)] * 512, DENY) == 0
    assert count(*[Rule(Action.ALLOW, source=NET)] * 511, DENY) == 512


def tiers(number: int) -> list[GlobalNetworkPolicy]:
    """So many tiers, each with a Deny, then two tiers that pass."""
    passing = (Rule(Action.PASS, source=NET), Rule(Action.PASS))
    return [untracked(f"p{at:02}", LISTED, *passing, tier=f"t{at:02}") for at in range(number)]


def test_it_follows_pass_in_16_tiers() -> None:
    orders = tuple(Tier(f"t{at:02}", order=float(at)) for at in range(20))
    assert len(held(resources(*tiers(16), untracked("last", DENY), tiers=orders)).rules) == MAX_SKIPS * 3 + 1
    found = held(resources(*tiers(17), untracked("last", DENY), tiers=orders))
    assert len(found.rules) == 16 * 3 + 1, "the Deny of the 17th tier still is"
    assert found.stopper is not None
    assert (found.stopper.name, found.why) == (
        "gnp/p16 ingress[1]",
        "the program follows Pass in 16 tiers at most",
    )


def test_ports_of_a_protocol_that_it_does_not_read_stop_the_run() -> None:
    found = held(policy(LISTED, Rule(Action.DENY, protocol=136, source=ports(9)), DENY))
    assert (len(found.rules), found.why) == (1, "the program does not read the ports of protocol 136")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (LISTED, ""),
        (DENY, ""),
        (Rule(Action.DENY, ip_version=4, source=EntityRule(selector="has(x)", not_selector="y == 'z'")), ""),
        (Rule(Action.ALLOW, source=NET), "action"),
        (Rule(Action.DENY, protocol=6), "protocol"),
        (Rule(Action.DENY, not_protocol=6), "protocol"),
        (Rule(Action.DENY, not_icmp=IcmpMatch(8)), "ICMP"),
        (Rule(Action.DENY, source=EntityRule(ports=(PortRange(1, 2),))), "ports"),
        (Rule(Action.DENY, source=EntityRule(ports=(NamedPort("http"),))), "ports"),
        (Rule(Action.DENY, destination=NET), "destination"),
        (Rule(Action.DENY, destination=EntityRule(not_selector="has(x)")), "destination"),
        (Rule(Action.DENY, source=EntityRule(not_nets=NET.nets)), "excludes"),
        (Rule(Action.DENY, source=EntityRule(not_selector="has(x)")), "excludes"),
        (Rule(Action.DENY, source=EntityRule(nets=NET.nets, selector="has(x)")), "at once"),
    ],
)
def test_rules_a_device_can_decide(rule: Rule, reason: str) -> None:
    assert why_not_offload(rule) == "" if not reason else reason in why_not_offload(rule)
    assert count(LISTED, rule, mode=Mode.OFFLOAD) == (1 if reason else 2)


def test_explain_names_the_first_rule_that_is_left_to_raw() -> None:
    told = policy(LISTED, Rule(Action.DENY, protocol=136, source=ports(9)))
    (note,) = notes(told, tcp(source="8.8.8.8"), Mode.NATIVE)
    assert note == (
        "the one rule held here does not match; "
        "gnp/p ingress[1] is left to raw: the program does not read the ports of protocol 136"
    )
    told = policy(LISTED, LISTED, Rule(Action.LOG))
    (note,) = notes(told, tcp(source="8.8.8.8"), Mode.OFFLOAD)
    assert note == ("none of the 2 rules held here matches; gnp/p ingress[2] is left to raw: its action is Log")


def test_explain_says_why_there_is_no_program() -> None:
    assert notes(policy(Rule(Action.LOG)), tcp(), Mode.NATIVE) == ["it would hold no rule: there is no Deny"]
    assert notes(policy(Rule(Action.LOG)), tcp(), Mode.OFFLOAD) == ["it would hold no rule: its action is Log"]
    assert notes(Resources(), tcp(), Mode.NATIVE) == ["it would hold no rule: no rule applies"]


def notes(told: Resources, frame: bytes, mode: Mode) -> list[str]:
    """The notes of explain at the stages of XDP."""
    hops = Explainer(told, HOST, mode=mode).explain(frame).hops
    return [hop.note for hop in hops if hop.stage in (Stage.NIC_OFFLOAD, Stage.DRIVER) and hop.note]
