"""Findings about tracked policy: what it closes, and what it does not stop."""

from __future__ import annotations

import pytest

from dossim.lint import Finding, Level, RuleId, lint
from enforcer.model.choices import TrackedChoice
from enforcer.policy.load import load_text
from tests.unit.dossim.lint.policies import ENDPOINT, HEAD, NO_FAILSAFES, net_set, of_rule, policy

ANY = ENDPOINT.replace("interfaceName: eth0", 'interfaceName: "*"')
EGRESS = policy("action: Allow", name="out", untracked=False, direction="egress")
DENY_ALL = policy("action: Deny", untracked=False)


def normal(*rules: str, name: str = "p", direction: str = "ingress") -> str:
    return policy(*rules, name=name, untracked=False, direction=direction)


def enforced(*texts: str) -> list[Finding]:
    return lint(load_text("".join(texts), "p.yaml"), tracked=TrackedChoice.ENFORCE)


def modelled(*texts: str) -> list[Finding]:
    return lint(load_text("".join(texts), "p.yaml"))


def levels(found: list[Finding], rule: RuleId) -> list[Level]:
    return [item.level for item in of_rule(found, rule)]


# --- how bad it is ----------------------------------------------------------------------------------------------------

SSH_CLOSED = NO_FAILSAFES + normal("action: Allow, protocol: TCP, destination: {ports: [80]}")
REJECT = f"{HEAD}FelixConfiguration\nmetadata: {{name: default}}\nspec: {{iptablesFilterDenyAction: Reject}}\n"


@pytest.mark.parametrize(
    ("rule", "texts", "level"),
    [
        (RuleId.CLOSED, (ENDPOINT, DENY_ALL), Level.WARNING),
        (RuleId.SSH, (ENDPOINT, SSH_CLOSED), Level.ERROR),
        (RuleId.LOOPBACK, (ANY, DENY_ALL), Level.ERROR),
        (RuleId.OUTLIVES, (ENDPOINT, normal('action: Deny, source: {nets: ["203.0.113.0/24"]}')), Level.NOTE),
        (RuleId.REJECT, (ENDPOINT, DENY_ALL, REJECT), Level.WARNING),
    ],
)
def test_each_is_a_note_where_nothing_is_enforced(rule: RuleId, texts: tuple[str, ...], level: Level) -> None:
    assert levels(enforced(*texts), rule) == [level]
    assert levels(modelled(*texts), rule) == [Level.NOTE]


@pytest.mark.parametrize("endpoint", [ENDPOINT, ANY], ids=["of one interface", "of all"])
def test_hosts_with_untracked_policy_alone_hear_nothing_of_it(endpoint: str) -> None:
    texts = endpoint, REJECT, NO_FAILSAFES.replace("default", "node.jasper"), policy("action: Deny")
    of_tracked = {RuleId.CLOSED, RuleId.SSH, RuleId.LOOPBACK, RuleId.OUTLIVES, RuleId.REJECT}
    assert not of_tracked & {item.rule for item in modelled(*texts)}


# --- host-closed ------------------------------------------------------------------------------------------------------


def closed(*texts: str) -> str:
    (found,) = of_rule(enforced(*texts), RuleId.CLOSED)
    return found.message


def test_an_endpoint_without_policy_and_profile_is_closed_in_both_directions() -> None:
    (found,) = of_rule(enforced(ENDPOINT), RuleId.CLOSED)
    assert found.position.line == 2, "that of the HostEndpoint"
    assert "hep/edge: no policy and no profile allows any ingress or egress packet" in found.message
    assert "only established connections and failsafes pass (ingress tcp/22, udp/68" in found.message


def test_without_failsafes_it_says_so() -> None:
    assert closed(ENDPOINT, NO_FAILSAFES).endswith("pass (ingress none; egress none)")


def test_policy_of_one_direction_leaves_the_other_closed() -> None:
    assert "any egress packet" in closed(ENDPOINT, normal("action: Allow"))
    assert "any ingress packet" in closed(ENDPOINT, EGRESS)


def profile(name: str) -> str:
    spec = "{ingress: [{action: Allow}], egress: [{action: Allow}]}"
    return f"{HEAD}Profile\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def test_what_allows_something_is_not_closed() -> None:
    with_profile = ENDPOINT.replace("node: jasper", "node: jasper, profiles: [open]")
    assert not of_rule(enforced(ENDPOINT, normal("action: Allow"), EGRESS), RuleId.CLOSED)
    assert not of_rule(enforced(with_profile, profile("open")), RuleId.CLOSED)
    assert of_rule(enforced(with_profile, profile("other")), RuleId.CLOSED), "its profile does not exist"


def test_an_untracked_allow_opens_what_no_normal_policy_does() -> None:
    found = closed(ENDPOINT, policy("action: Allow"))
    assert "any egress packet" in found


# --- ssh-closed -------------------------------------------------------------------------------------------------------

OPENED = [
    "action: Allow",
    "action: Allow, protocol: TCP, destination: {ports: ['20:30']}",
    'action: Allow, protocol: TCP, source: {nets: ["10.1.0.0/16"]}',
]


@pytest.mark.parametrize("rule", OPENED)
def test_ssh_that_policy_lets_in_even_from_somewhere(rule: str) -> None:
    assert not of_rule(enforced(ENDPOINT, NO_FAILSAFES, normal(rule)), RuleId.SSH)


def test_ssh_that_a_failsafe_or_untracked_policy_lets_in() -> None:
    web = normal("action: Allow, protocol: TCP, destination: {ports: [80]}")
    assert not of_rule(enforced(ENDPOINT, web), RuleId.SSH)
    assert of_rule(enforced(ENDPOINT, NO_FAILSAFES, web), RuleId.SSH)
    raw = policy("action: Allow, protocol: TCP, destination: {ports: [22]}", name="raw")
    assert not of_rule(enforced(ENDPOINT, NO_FAILSAFES, web, raw), RuleId.SSH)


def test_a_deny_before_the_allow_closes_ssh() -> None:
    both = normal("action: Deny, protocol: TCP, destination: {ports: [22]}", "action: Allow")
    assert of_rule(enforced(ENDPOINT, NO_FAILSAFES, both), RuleId.SSH)


def test_a_closed_host_is_said_once() -> None:
    found = enforced(ENDPOINT, NO_FAILSAFES, DENY_ALL)
    assert of_rule(found, RuleId.CLOSED)
    assert not of_rule(found, RuleId.SSH)


# --- loopback-policed -------------------------------------------------------------------------------------------------

LOCAL = "127.0.0.0/8", "::1/128"
WEB = "action: Allow, protocol: TCP, destination: {ports: [80]}"


def local_only(*nets: str) -> str:
    inbound = [f'action: Allow, source: {{nets: ["{net}"]}}' for net in nets]
    outbound = [f'action: Allow, destination: {{nets: ["{net}"]}}' for net in nets]
    return normal(*inbound, name="in") + normal(*outbound, name="out", direction="egress")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((ANY, local_only(*LOCAL)), []),
        ((ANY, local_only(LOCAL[0])), [Level.ERROR]),
        ((ANY, normal("action: Allow"), EGRESS), []),
        ((ANY, normal(WEB), EGRESS), [Level.ERROR]),
        ((ANY, normal("action: Allow, protocol: TCP", "action: Allow, protocol: UDP"), EGRESS), []),
        ((ANY, normal(WEB, "action: Allow, protocol: UDP"), EGRESS), [Level.WARNING]),
        ((ENDPOINT, DENY_ALL), []),
    ],
    ids=[
        "both directions are allowed",
        "IPv6 is not",
        "everything is allowed",
        "no UDP is allowed",
        "TCP and UDP are allowed",
        "some TCP is allowed",
        "the endpoint is not '*'",
    ],
)
def test_the_loopback_of_any_interface(texts: tuple[str, ...], expected: list[Level]) -> None:
    assert levels(enforced(*texts), RuleId.LOOPBACK) == expected


def test_an_excluded_loopback_is_not_policed() -> None:
    felix = f"{HEAD}FelixConfiguration\nmetadata: {{name: default}}\nspec: {{interfaceExclude: lo}}\n"
    assert of_rule(enforced(ANY, DENY_ALL), RuleId.LOOPBACK)
    assert not of_rule(enforced(ANY, DENY_ALL, felix), RuleId.LOOPBACK)


# --- what is not stopped ----------------------------------------------------------------------------------------------


def test_a_deny_list_is_reported_once_and_only_if_it_lists_senders() -> None:
    two = normal("action: Deny, source: {selector: list == 'deny'}", 'action: Deny, source: {nets: ["192.0.2.0/24"]}')
    (found,) = of_rule(modelled(ENDPOINT, net_set("deny", "deny", "203.0.113.0/24"), two), RuleId.OUTLIVES)
    assert found.message.startswith("gnp/p ingress[0] denies new connections only")
    for rule in ("action: Deny", "action: Deny, protocol: UDP", 'action: Deny, source: {notNets: ["10.0.0.0/8"]}'):
        assert not of_rule(modelled(ENDPOINT, normal(rule)), RuleId.OUTLIVES)


def test_an_untracked_deny_list_stops_every_packet() -> None:
    raw = policy('action: Deny, source: {nets: ["203.0.113.0/24"]}')
    assert not of_rule(enforced(ENDPOINT, raw), RuleId.OUTLIVES)


def test_a_rule_that_cannot_be_enforced_proves_nothing() -> None:
    services = normal("action: Allow, http: {methods: [GET]}")
    assert not of_rule(enforced(ENDPOINT, services), RuleId.CLOSED)
