"""Entries that never act: for each row with a finding, a row that differs in one thing and has none."""

from __future__ import annotations

import pytest

from dossim.lint import Level, RuleId
from tests.unit.dossim.lint.policies import ENDPOINT, HEAD, NO_FAILSAFES, findings, messages, net_set, of_rule, policy

TIER = f"{HEAD}Tier\nmetadata: {{name: security}}\nspec: {{order: 1}}\n"

# the case, the earlier entry, the later one, whether the earlier one provably decides all packets of the later
SHADOW = [
    ("wider net", 'source: {nets: ["10.0.0.0/8"]}', 'source: {nets: ["10.1.0.0/16"]}', True),
    ("narrower net", 'source: {nets: ["10.1.0.0/16"]}', 'source: {nets: ["10.0.0.0/8"]}', False),
    ("halves", 'source: {nets: ["10.0.0.0/9", "10.128.0.0/9"]}', 'source: {nets: ["10.0.0.0/8"]}', True),
    ("other family", 'source: {nets: ["::/0"]}', 'source: {nets: ["10.0.0.0/8"]}', False),
    ("one family of two", "ipVersion: 4", "protocol: TCP", False),
    ("everything", "", "protocol: TCP", True),
    ("protocol", "protocol: TCP", "protocol: UDP", False),
    ("not another protocol", "notProtocol: UDP", "protocol: TCP", True),
    ("not this protocol", "notProtocol: TCP", "protocol: TCP", False),
    (
        "ports within a range",
        "protocol: TCP, destination: {ports: ['1:1000']}",
        "protocol: TCP, destination: {ports: [80, 443]}",
        True,
    ),
    (
        "ports beyond",
        "protocol: TCP, destination: {ports: ['1:100']}",
        "protocol: TCP, destination: {ports: [80, 443]}",
        False,
    ),
    ("a fragment has no port", "protocol: TCP, destination: {ports: ['1:65535']}", "protocol: TCP", False),
    (
        "ports of the other side",
        "protocol: TCP, source: {ports: [80]}",
        "protocol: TCP, destination: {ports: [80]}",
        False,
    ),
    (
        "all but a port",
        "protocol: TCP, destination: {notPorts: [22]}",
        "protocol: TCP, destination: {ports: [80]}",
        True,
    ),
    (
        "all but this port",
        "protocol: TCP, destination: {notPorts: [80]}",
        "protocol: TCP, destination: {ports: [80]}",
        False,
    ),
    ("ICMP type of a code", "protocol: ICMP, icmp: {type: 3}", "protocol: ICMP, icmp: {type: 3, code: 1}", True),
    ("ICMP code of a type", "protocol: ICMP, icmp: {type: 3, code: 1}", "protocol: ICMP, icmp: {type: 3}", False),
    ("not another ICMP type", "protocol: ICMP, notICMP: {type: 8}", "protocol: ICMP, icmp: {type: 3}", True),
    ("an ICMP fragment has no type", "protocol: ICMP, notICMP: {type: 8}", "protocol: ICMP", False),
    ("set", "source: {selector: list == 'deny'}", 'source: {nets: ["203.0.113.7/32"]}', True),
    ("set, spelled otherwise", "source: {selector: list == 'deny'}", "source: {selector: has(list)}", True),
    ("outside of a set", "source: {notSelector: list == 'deny'}", 'source: {nets: ["203.0.113.7/32"]}', False),
    ("outside of another set", "source: {notSelector: list == 'deny'}", 'source: {nets: ["8.8.8.8/32"]}', True),
    (
        "outside of nets",
        'source: {notNets: ["10.0.0.0/8"]}',
        'source: {nets: ["10.0.0.0/7"], notNets: ["10.0.0.0/8"]}',
        True,
    ),
    ("a named port", "protocol: TCP, destination: {ports: [web]}", "protocol: TCP, destination: {ports: [80]}", False),
    ("the same", "protocol: TCP, destination: {ports: [web]}", "protocol: TCP, destination: {ports: [web]}", True),
]
GIVEN = net_set("deny", "deny", "203.0.113.0/24") + NO_FAILSAFES
WEB = ENDPOINT.replace('"fd00::10"]', '"fd00::10"], ports: [{name: web, protocol: TCP, port: 80}]')


def rule(action: str, match: str) -> str:
    return f"action: {action}, {match}" if match else f"action: {action}"


@pytest.mark.parametrize(
    ("earlier", "later", "is_shadowed"), [row[1:] for row in SHADOW], ids=[row[0] for row in SHADOW]
)
def test_an_entry_is_shadowed_when_all_its_packets_are_decided_before(
    earlier: str, later: str, is_shadowed: bool
) -> None:
    found = findings(WEB, GIVEN, policy(rule("Deny", earlier), rule("Deny", later)))
    assert bool(of_rule(found, RuleId.SHADOWED)) == is_shadowed


def test_the_earlier_entry_is_named_with_its_place() -> None:
    found = findings(ENDPOINT, policy("action: Allow", "action: Deny"))
    (finding,) = of_rule(found, RuleId.SHADOWED)
    assert finding.level is Level.ERROR, "what was meant to be denied is allowed"
    assert finding.message == "gnp/p ingress[1] (Deny) never acts: gnp/p ingress[0] (Allow, p.yaml:17:7) decides " \
        "every packet it matches"  # fmt: skip
    assert (finding.position.line, finding.related[0].position.line) == (18, 17)


def test_the_same_action_twice_is_only_a_warning() -> None:
    (finding,) = of_rule(findings(ENDPOINT, policy("action: Deny", "action: Deny")), RuleId.SHADOWED)
    assert finding.level is Level.WARNING


def test_several_lists_cover_an_entry_together() -> None:
    low, high = ('action: Deny, source: {nets: ["10.0.0.0/9"]}', 'action: Deny, source: {nets: ["10.128.0.0/9"]}')
    both = findings(ENDPOINT, policy(low, high, 'action: Deny, source: {nets: ["10.0.0.0/8"]}'))
    (message,) = messages(both, RuleId.SHADOWED)
    assert "gnp/p ingress[0]" in message
    assert "gnp/p ingress[1]" in message
    assert "between them decide" in message
    assert not of_rule(findings(ENDPOINT, policy(low, 'action: Deny, source: {nets: ["10.0.0.0/8"]}')), RuleId.SHADOWED)


@pytest.mark.parametrize(("action", "is_shadowed"), [("Deny", True), ("Allow", True), ("Pass", True), ("Log", False)])
def test_what_ends_evaluation_shadows(action: str, is_shadowed: bool) -> None:
    found = findings(ENDPOINT, policy(f"action: {action}", "action: Deny"))
    assert bool(of_rule(found, RuleId.SHADOWED)) == is_shadowed


def test_a_pass_ends_only_its_own_tier() -> None:
    first = policy("action: Pass", "action: Deny", name="a", tier="security")
    found = findings(ENDPOINT, TIER, first, policy("action: Deny", name="b"))
    assert [item.message.split()[0:2] for item in of_rule(found, RuleId.SHADOWED)] == [["gnp/a", "ingress[1]"]]


def test_what_another_tier_decides_unless_a_pass_skips_it() -> None:
    deny = policy("action: Deny", name="b")
    decides = policy('action: Pass, source: {nets: ["10.0.0.0/8"]}', name="a", tier="security")
    allow = policy("action: Allow", name="z", order=20, tier="security")
    assert not of_rule(findings(ENDPOINT, TIER, decides, allow, deny), RuleId.SHADOWED)
    assert of_rule(findings(ENDPOINT, TIER, allow, deny), RuleId.SHADOWED)


def test_an_entry_that_acts_on_one_host_is_not_dead() -> None:
    other = ENDPOINT.replace("edge", "other").replace("jasper", "opal")
    allow = policy("action: Allow", name="a", order=1)
    deny = policy("action: Deny", name="b", selector="has(role)")
    assert of_rule(findings(ENDPOINT, allow, deny), RuleId.SHADOWED)
    assert not of_rule(findings(ENDPOINT, other, allow, deny), RuleId.SHADOWED)
    assert of_rule(findings(ENDPOINT, other, allow, deny, node="jasper"), RuleId.SHADOWED)


UNREACHABLE = [
    ("protocol: TCP, notProtocol: TCP", "protocol and notProtocol are the same"),
    ("protocol: TCP, destination: {ports: [80], notPorts: ['1:100']}", "destination.notPorts hold all of destination."),
    ("protocol: TCP, source: {notPorts: ['0:65535']}", ""),
    ("protocol: ICMP, icmp: {type: 8, code: 1}, notICMP: {type: 8}", "icmp and notICMP exclude each other"),
    ('source: {nets: ["10.1.0.0/16"], notNets: ["10.0.0.0/8"]}', "source.notNets hold all of source.nets"),
    ('source: {nets: ["10.0.0.0/8"], notNets: ["10.1.0.0/16"]}', ""),
    (
        "source: {selector: list == 'deny', nets: [\"10.0.0.0/8\"]}",
        "no address of source.nets is in the set of source.",
    ),
    ("source: {selector: list == 'deny', nets: [\"203.0.113.7/32\"]}", ""),
    ("source: {selector: list == 'deny'}, ipVersion: 6", "the set of source.selector holds no IPv6 address"),
    (
        "destination: {selector: list == 'deny', notNets: [\"203.0.0.0/8\"]}",
        "destination.notNets hold every address in",
    ),
    ("source: {notSelector: list == 'deny', nets: [\"203.0.113.7/32\"]}", "the set of source.notSelector holds all of"),
    ("protocol: TCP, destination: {ports: [nothing]}", "no HostEndpoint that its selector selects has the port"),
    ("protocol: TCP, destination: {ports: [nothing, 80]}", ""),
]


@pytest.mark.parametrize(("match", "why"), UNREACHABLE)
def test_an_entry_that_contradicts_itself(match: str, why: str) -> None:
    if "'0:65535'" in match:
        match = match.replace("0:65535", "2:65535")  # port 1 is left
    found = messages(findings(ENDPOINT, GIVEN, policy(rule("Deny", match))), RuleId.UNREACHABLE)
    assert len(found) == bool(why)
    assert all(why in message for message in found)


def test_an_allow_for_failsafes_alone_is_never_evaluated() -> None:
    found = findings(ENDPOINT, policy("action: Allow, protocol: TCP, destination: {ports: [22]}"))
    assert messages(found, RuleId.UNREACHABLE) == [
        "gnp/p ingress[0] can match no packet: failsafes let in all that it matches (tcp/22)"
    ]


def test_a_pass_with_nothing_after_it() -> None:
    followed = policy("action: Pass", "action: Deny")
    last = policy("action: Pass, protocol: TCP", "action: Deny, protocol: UDP")
    assert not of_rule(findings(ENDPOINT, followed), RuleId.PASS)
    assert messages(findings(ENDPOINT, last), RuleId.PASS) == [
        "gnp/p ingress[0] skips nothing: no later untracked entry of tier 'default' can match its packets"
    ]


def test_an_entry_has_one_fault_at_most_and_dead_ones_are_not_called_late() -> None:
    found = findings(ENDPOINT, policy("action: Deny", "action: Deny, protocol: TCP, notProtocol: TCP"))
    assert [item.rule for item in found if item.position.line == 18] == [RuleId.UNREACHABLE]
