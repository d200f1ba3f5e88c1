"""What the loader accepts and reports, FelixConfigurations of no node, and neighbour discovery."""

from __future__ import annotations

import pytest

from dossim.lint import Level, RuleId
from tests.unit.dossim.lint.policies import ENDPOINT, HEAD, NO_FAILSAFES, findings, messages, net_set, of_rule, policy

SPEC = "spec: {node: jasper, interfaceName: eth1%s}\n"
OTHER = f"{HEAD}HostEndpoint\nmetadata: {{name: other}}\n{SPEC}"


def felix(name: str, spec: str) -> str:
    return f"{HEAD}FelixConfiguration\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


@pytest.mark.parametrize(
    "text",
    [
        net_set("s", "deny", "203.0.113.0/24", "203.0.113.0/24"),
        OTHER % ", expectedIPs: [10.0.0.1, 10.0.0.1]",
        OTHER % ", profiles: [a, a]",
        policy("action: Deny, source: {nets: [203.0.113.0/24, 203.0.113.0/24]}"),
        policy("action: Deny, source: {notNets: [203.0.113.0/24, 203.0.113.0/24]}"),
        policy("action: Deny, source: {serviceAccounts: {names: [a, a]}}", untracked=False),
    ],
    ids=["a set", "expectedIPs", "profiles", "a rule's nets", "a rule's notNets", "service accounts"],
)
def test_an_item_twice_in_a_list_of_type_set(text: str) -> None:
    (finding,) = of_rule(findings(ENDPOINT, text), RuleId.DUPLICATE)
    assert finding.level is Level.WARNING
    assert "is listed twice; Kubernetes refuses the whole object" in finding.message


def test_the_same_net_in_two_spellings_is_no_duplicate() -> None:
    assert not of_rule(findings(net_set("s", "deny", "203.0.113.0/24", "203.0.113.1/24")), RuleId.DUPLICATE)


def test_many_duplicates_are_named_by_the_first() -> None:
    found = of_rule(findings(net_set("s", "deny", *["203.0.113.0/24"] * 10)), RuleId.DUPLICATE)
    assert len(found) == 3
    assert "(and 6 more items)" in found[0].message


@pytest.mark.parametrize(
    "text",
    [
        net_set("s", "deny", "203.0.113.0/24", "'::FFFF:0:0/96'"),
        policy("action: Deny, source: {nets: ['::ffff:0:0/96']}"),
    ],
    ids=["a set", "a rule"],
)
def test_all_of_ipv4_as_lists_of_ipv6_bogons_have_it(text: str) -> None:
    (finding,) = of_rule(findings(ENDPOINT, text), RuleId.MAPPED_NET)
    assert finding.level == Level.WARNING
    assert "is IPv4-mapped, which Calico reads as 0.0.0.0/0" in finding.message


def test_of_many_ipv4_mapped_nets_the_first_are_named() -> None:
    nets = [f"'::ffff:10.{at // 256}.{at % 256}.0/120'" for at in range(3000)]
    found = of_rule(findings(net_set("s", "deny", *nets)), RuleId.MAPPED_NET)
    assert len(found) == 20
    assert found[-1].message.endswith("; more of these are not named")


def test_an_ipv4_mapped_address_and_other_ipv6_nets_are_no_such_finding() -> None:
    text = net_set("s", "deny", "'::ffff:203.0.113.9'", "'2001:db8:ffff::/48'", "'::ffff:0:0/95'")
    assert not of_rule(findings(text), RuleId.MAPPED_NET)


@pytest.mark.parametrize("written", ["6", '"17"', "132"])
def test_an_endpoints_port_by_number(written: str) -> None:
    text = OTHER % f", ports: [{{name: web, protocol: {written}, port: 80}}]"
    (finding,) = of_rule(findings(text), RuleId.PORT_BY_NUMBER)
    assert (finding.level, finding.position.line) == (Level.ERROR, 5)
    assert "Felix ignores the whole HostEndpoint; write " in finding.message
    by_name = OTHER % ", ports: [{name: web, protocol: TCP, port: 80}]"
    assert not of_rule(findings(by_name), RuleId.PORT_BY_NUMBER)


def test_what_is_passed_is_a_note() -> None:
    found = of_rule(findings(felix("default", "packetMirrorTarget: x")), RuleId.PASSED)
    assert [(item.level, item.message.split(":")[0]) for item in found] == [(Level.NOTE, "spec.packetMirrorTarget")]
    enterprise = f"{HEAD}GlobalThreatFeed\nmetadata: {{name: x}}\nspec: {{anything: [1]}}\n"
    assert "kind: GlobalThreatFeed is a kind of Calico Enterprise; it is ignored" in messages(
        findings(enterprise), RuleId.PASSED
    )


def test_a_feed_enforces_nothing() -> None:
    (finding,) = of_rule(findings("# a list\n198.51.100.0/25\n"), RuleId.FEED)
    assert finding.level is Level.WARNING


def test_a_felix_configuration_of_no_node() -> None:
    assert "applies to no node" in messages(findings(ENDPOINT, felix("edge", "xdpEnabled: false")), RuleId.FELIX)[0]
    group = felix("edge", "nodeSelector: role == 'edge'")
    assert "not applied to node jasper: no Node resource" in messages(findings(ENDPOINT, group), RuleId.FELIX)[0]
    node = f"{HEAD}Node\nmetadata: {{name: jasper, labels: {{role: core}}}}\n"
    assert not of_rule(findings(ENDPOINT, group, node), RuleId.FELIX)
    assert not of_rule(findings(ENDPOINT, NO_FAILSAFES, felix("node.ruby", "xdpEnabled: false")), RuleId.FELIX)


ALLOW = "action: Allow, protocol: ICMPv6, icmp: {type: %d}"


@pytest.mark.parametrize(
    "rules",
    [
        ["action: Deny, protocol: ICMPv6"],
        ["action: Deny, protocol: 58"],
        ["action: Deny"],
        ["action: Deny, ipVersion: 6"],
        ["action: Deny, protocol: ICMPv6, icmp: {type: 135}"],
        ["action: Deny, protocol: ICMPv6, notICMP: {type: 128}"],
        [ALLOW % 135, "action: Deny, protocol: ICMPv6"],
        ['action: Deny, source: {nets: ["fe80::/9"]}'],
    ],
)
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_deny_that_ends_neighbour_discovery(rules: list[str], direction: str) -> None:
    (finding,) = of_rule(findings(ENDPOINT, policy(*rules, direction=direction)), RuleId.NEIGHBOURS)
    assert finding.level is Level.WARNING
    assert "this ends neighbour discovery" in finding.message


@pytest.mark.parametrize(
    "rules",
    [
        ["action: Deny, protocol: ICMP"],
        ["action: Deny, ipVersion: 4"],
        ["action: Deny, protocol: UDP"],
        ["action: Deny, protocol: ICMPv6, icmp: {type: 128}"],
        ['action: Deny, protocol: ICMPv6, source: {nets: ["2001:db8::/32"]}'],
        [*[ALLOW % kind for kind in (133, 134, 135, 136)], "action: Deny, protocol: ICMPv6"],
        ['action: Allow, source: {nets: ["fe80::/10"]}', "action: Deny"],
        ["action: Log, protocol: ICMPv6"],
    ],
)
def test_a_deny_that_leaves_neighbour_discovery(rules: list[str]) -> None:
    assert not of_rule(findings(ENDPOINT, policy(*rules)), RuleId.NEIGHBOURS)


def test_without_ipv6_there_is_no_discovery_to_end() -> None:
    assert not of_rule(
        findings(ENDPOINT, felix("default", "ipv6Support: false"), policy("action: Deny")), RuleId.NEIGHBOURS
    )
