"""Findings about network sets and selectors."""

from __future__ import annotations

import pytest

from dossim.lint import Level, RuleId, lint
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action
from enforcer.policy.load import load_text
from enforcer.policy.resources import EntityRule, GlobalNetworkPolicy, GlobalNetworkSet, Resources, Rule
from tests.unit.dossim.lint.policies import ENDPOINT, HEAD, findings, messages, net_set, of_rule, policy

DENY_LIST = policy("action: Deny, source: {selector: list == 'deny'}")


# --- unused, empty, selecting nothing ---------------------------------------------------------------------------------


def test_a_set_that_no_rule_selects() -> None:
    found = findings(ENDPOINT, net_set("grey", "grey", "192.0.2.0/24"), net_set("deny", "deny", "8.8.8.8"), DENY_LIST)
    assert messages(found, RuleId.UNUSED_SET) == [
        "gns/grey (list=grey) is selected by no rule of a GlobalNetworkPolicy"
    ]


def test_a_set_is_used_by_what_excludes_it_and_by_tracked_policy() -> None:
    for rule, untracked in (("notSelector: list == 'grey'", True), ("selector: list == 'grey'", False)):
        user = policy(f"action: Deny, source: {{{rule}}}", untracked=untracked)
        assert not of_rule(findings(ENDPOINT, net_set("grey", "grey", "192.0.2.0/24"), user), RuleId.UNUSED_SET)


def test_a_set_of_what_is_never_to_be_denied_is_for_no_rule() -> None:
    own = net_set("partners", "grey", "192.0.2.0/24").replace("list: grey", "enforcer.io/protected: 'true'")
    assert "enforcer.io/protected" in own
    assert not of_rule(findings(ENDPOINT, own, policy("action: Deny")), RuleId.UNUSED_SET)


def test_a_set_may_be_there_for_policies_that_are_not_looked_at() -> None:
    other = f"{HEAD}NetworkPolicy\nmetadata: {{name: web, namespace: web}}\nspec: {{}}\n"
    (finding,) = of_rule(
        findings(net_set("grey", "grey", "192.0.2.0/24"), other, policy("action: Deny")), RuleId.UNUSED_SET
    )
    assert finding.level is Level.NOTE
    assert finding.message.endswith("; NetworkPolicy resources are not examined")


def test_sets_alone_are_not_called_unused() -> None:
    assert findings(net_set("grey", "grey", "192.0.2.0/24")) == []


@pytest.mark.parametrize(
    ("texts", "level", "says"),
    [
        (
            (ENDPOINT, policy("action: Deny", selector="role == 'egde'")),
            Level.WARNING,
            "selects not the one HostEndpoint",
        ),
        ((policy("action: Deny"),), Level.NOTE, "no HostEndpoint was given"),
        ((ENDPOINT, policy("action: Deny")), None, ""),
        ((ENDPOINT, policy("action: Deny", selector="role == 'pod'", untracked=False)), None, ""),
    ],
    ids=["misspelled", "nothing to select", "right", "tracked: may be for workloads"],
)
def test_a_policy_that_selects_no_endpoint(texts: tuple[str, ...], level: Level | None, says: str) -> None:
    found = of_rule(findings(*texts), RuleId.SELECTS_NOTHING)
    assert [item.level for item in found] == ([level] if level else [])
    assert all(says in item.message for item in found)


def test_a_rule_whose_selector_selects_nothing_says_which() -> None:
    found = findings(
        ENDPOINT, net_set("deny", "deny", "8.8.8.8"), policy("action: Deny, source: {selector: list == 'dney'}")
    )
    assert messages(found, RuleId.SELECTS_NOTHING) == [
        "gnp/p ingress[0]: source.selector (list == 'dney') selects no network set, and no HostEndpoint with "
        "expectedIPs, so the entry matches nothing"
    ]
    assert not of_rule(found, RuleId.UNREACHABLE), "one cause, one finding"


def test_a_not_selector_that_excludes_nothing() -> None:
    found = findings(
        ENDPOINT, net_set("deny", "deny", "8.8.8.8"), policy("action: Deny, source: {notSelector: list == 'dney'}")
    )
    (message,) = messages(found, RuleId.SELECTS_NOTHING)
    assert "source.notSelector (list == 'dney')" in message
    assert message.endswith("so it excludes nothing")


def test_a_set_prepared_in_advance_is_only_worth_a_note() -> None:
    found = findings(ENDPOINT, net_set("soon", "deny"), DENY_LIST)
    assert [(item.rule, item.level) for item in found] == [(RuleId.EMPTY_SET, Level.NOTE)]
    assert found[0].message == "gns/soon holds no CIDR yet; it is meant for gnp/p ingress[0]"


# --- overlapping ------------------------------------------------------------------------------------------------------


def test_cidrs_that_others_of_the_set_cover() -> None:
    nets = ("203.0.113.7", "8.8.8.8", "203.0.113.0/24", "2001:db8:1::/48", "2001:db8::/32", "203.0.113.128/25")
    (finding,) = of_rule(findings(ENDPOINT, net_set("deny", "deny", *nets), DENY_LIST), RuleId.OVERLAPPING)
    assert finding.message == (
        "gns/deny: 3 of its 6 CIDRs lie in other CIDRs of the set: 203.0.113.7/32 in 203.0.113.0/24, "
        "203.0.113.128/25 in 203.0.113.0/24, 2001:db8:1::/48 in 2001:db8::/32"
    )
    assert (finding.position.line, finding.position.column) == (12, 7), "where the first of them is written"
    assert finding.related[0].position.line == 14


@pytest.mark.parametrize(
    ("label", "is_in_rule"), [("deny", True), ("other", False)], ids=["one rule uses both", "it uses one of them"]
)
def test_cidrs_that_another_set_of_the_rule_covers(label: str, is_in_rule: bool) -> None:
    texts = net_set("a", "deny", "203.0.113.0/24", "8.8.8.8"), net_set("b", label, "203.0.113.9", "8.8.8.8")
    found = of_rule(findings(ENDPOINT, *texts, DENY_LIST), RuleId.OVERLAPPING)
    assert len(found) == is_in_rule
    for finding in found:
        assert "gns/b: 2 of its CIDRs lie in CIDRs of other sets in gnp/p ingress[0]" in finding.message
        assert "8.8.8.8/32 in 8.8.8.8/32 of gns/a, 203.0.113.9/32 in 203.0.113.0/24 of gns/a" in finding.message


def test_places_are_those_of_the_sets_where_the_text_is_not_to_be_had() -> None:
    text = net_set("deny", "deny", "203.0.113.7", "203.0.113.0/24") + DENY_LIST
    (finding,) = of_rule(lint(load_text(text, "p.yaml")), RuleId.OVERLAPPING)
    assert finding.position.line == 2


@pytest.mark.slow
def test_a_million_cidrs() -> None:
    """The test is about scaling: everything in numpy, no Python loop over CIDRs."""
    nets = Nets.of(f"{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}.0/{24 + (n & 1) * 8}" for n in range(1_000_000))
    listed = GlobalNetworkSet("big", labels={"list": "deny"}, nets=nets | Nets.of(["7.0.0.0/8"]))
    deny = Rule(Action.DENY, source=EntityRule(selector="list == 'deny'"))
    user = GlobalNetworkPolicy("p", do_not_track=True, apply_on_forward=True, ingress=(deny,))
    found = lint(Resources(global_network_sets=(listed,), policies=(user,)))
    (message,) = messages(found, RuleId.OVERLAPPING)
    assert message.startswith(
        "gns/big: 65,536 of its 1,000,001 CIDRs lie in other CIDRs of the set: 7.0.0.0/24 in 7.0.0.0/8"
    )
