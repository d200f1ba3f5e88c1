"""Findings about a table: own hosts, failsafes, Allows, and stages."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from dossim.lint import Level, RuleId
from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
from enforcer.model.vocabulary import Answer, Mode
from tests.unit.dossim.lint.policies import ENDPOINT, HEAD, NO_FAILSAFES, findings, messages, net_set, of_rule, policy

DENY_LIST = policy("action: Deny, source: {selector: list == 'deny'}")


# --- own addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "is_own"), [("10.0.0.0/8", True), ("fd00::/64", True), ("10.10.10.11/32", False), ("2001:db8::/32", False)]
)
def test_a_deny_list_with_an_address_of_ours(net: str, is_own: bool) -> None:
    found = of_rule(findings(ENDPOINT, net_set("deny", "deny", net), DENY_LIST), RuleId.OWN_ADDRESS)
    assert [item.level for item in found] == [Level.ERROR] * is_own
    assert all(f"(hep/edge of jasper, by {net} of gns/deny)" in item.message for item in found)
    assert all(item.related[0].position.line == 12 for item in found), "the line of the CIDR"


def test_an_allow_before_makes_it_harmless() -> None:
    ours = policy('action: Allow, source: {nets: ["10.10.10.10/32"]}', name="a", order=1)
    given = ENDPOINT, net_set("deny", "deny", "10.0.0.0/8"), DENY_LIST
    assert of_rule(findings(*given), RuleId.OWN_ADDRESS)
    assert not of_rule(findings(*given, ours), RuleId.OWN_ADDRESS)


def test_denying_everything_else_is_no_list() -> None:
    assert not of_rule(findings(ENDPOINT, policy("action: Deny")), RuleId.OWN_ADDRESS)


def test_addresses_of_interfaces_count_when_they_are_known() -> None:
    facts = HostFacts("jasper", interfaces=(InterfaceFacts("eth0", addresses=(ip_address("192.0.2.1"),)),))
    given = ENDPOINT, net_set("deny", "deny", "192.0.2.0/24"), DENY_LIST
    assert not of_rule(findings(*given), RuleId.OWN_ADDRESS)
    (message,) = messages(findings(*given, facts=facts), RuleId.OWN_ADDRESS)
    assert "192.0.2.1 (eth0 of jasper, by 192.0.2.0/24 of gns/deny)" in message


def test_a_gateway_of_the_host_is_found_by_facts() -> None:
    facts = HostFacts("jasper", interfaces=(InterfaceFacts("eth0", gateways=(ip_address("192.0.2.254"),)),))
    given = (ENDPOINT, net_set("deny", "deny", "192.0.2.0/24"), DENY_LIST)
    (message,) = messages(findings(*given, facts=facts), RuleId.OWN_ADDRESS)
    assert "192.0.2.254 (gateway by eth0" in message


def test_nets_that_failsafes_trust() -> None:
    felix = NO_FAILSAFES.replace(
        "failsafeInboundHostPorts: []", "failsafeInboundHostPorts: [{protocol: TCP, port: 22, net: 10.1.0.0/16}]"
    )
    found = findings(ENDPOINT, felix, net_set("deny", "deny", "10.1.2.0/24"), DENY_LIST)
    assert messages(found, RuleId.OWN_ADDRESS) == [
        "gnp/p ingress[0] denies sources in 10.1.0.0/16, a net that failsafes allow only on their own ports"
    ]


# --- failsafes --------------------------------------------------------------------------------------------------------

FAILSAFES = [
    ("protocol: TCP, destination: {ports: [22]}", Level.ERROR, "failsafes let in all that it matches (tcp/22)"),
    ("protocol: TCP, destination: {ports: [22, 80]}", Level.WARNING, "failsafes let in tcp/22"),
    ("protocol: UDP, source: {ports: [53]}", Level.ERROR, "remove the port from failsafeOutboundHostPorts"),
    ("protocol: UDP, source: {ports: ['50:60']}", Level.WARNING, "failsafes let in udp/53"),
    ("protocol: UDP, destination: {ports: [22]}", None, ""),
    ("protocol: TCP, source: {ports: [22]}", None, ""),
]


@pytest.mark.parametrize(("match", "level", "says"), FAILSAFES)
def test_a_deny_for_failsafe_ports(match: str, level: Level | None, says: str) -> None:
    found = of_rule(findings(ENDPOINT, policy(f"action: Deny, {match}")), RuleId.FAILSAFE)
    assert [item.level for item in found] == ([level] if level else [])
    assert all(says in item.message for item in found)


def test_a_failsafe_of_few_sources_leaves_a_deny_the_others() -> None:
    felix = NO_FAILSAFES.replace(
        "failsafeInboundHostPorts: []", "failsafeInboundHostPorts: [{protocol: TCP, port: 22, net: 10.1.0.0/16}]"
    )
    all_sources = policy("action: Deny, protocol: TCP, destination: {ports: [22]}")
    few = policy('action: Deny, protocol: TCP, source: {nets: ["10.1.2.0/24"]}, destination: {ports: [22]}')
    assert [item.level for item in of_rule(findings(ENDPOINT, felix, all_sources), RuleId.FAILSAFE)] == [Level.WARNING]
    assert [item.level for item in of_rule(findings(ENDPOINT, felix, few), RuleId.FAILSAFE)] == [Level.ERROR]


def test_one_note_a_table_names_the_ports_where_deny_lists_have_no_effect() -> None:
    twice = policy('action: Deny, source: {nets: ["8.8.8.8/32"]}', 'action: Deny, source: {nets: ["9.9.9.9/32"]}')
    (finding,) = of_rule(findings(ENDPOINT, twice), RuleId.FAILSAFE)
    assert finding.level is Level.NOTE
    assert "to tcp/22, udp/68, tcp/179" in finding.message
    assert "from source port udp/53" in finding.message
    assert not of_rule(findings(ENDPOINT, NO_FAILSAFES, twice), RuleId.FAILSAFE)


# --- allowed earlier --------------------------------------------------------------------------------------------------

PARTNER = policy('action: Allow, source: {nets: ["203.0.113.64/28"]}', name="partner", order=1)


def test_an_allow_inside_a_denied_net() -> None:
    found = findings(ENDPOINT, PARTNER, policy('action: Deny, source: {nets: ["203.0.113.0/24"]}'))
    (finding,) = of_rule(found, RuleId.ALLOWED_EARLIER)
    assert finding.level is Level.NOTE
    assert "gnp/partner ingress[0] (Allow, p.yaml:17:7)" in finding.message
    assert "from 203.0.113.64" in finding.message


def test_an_allow_elsewhere_or_later_or_denied_itself_lets_nothing_through() -> None:
    deny = policy('action: Deny, source: {nets: ["203.0.113.0/24"]}')
    assert not of_rule(findings(ENDPOINT, PARTNER.replace("203", "198"), deny), RuleId.ALLOWED_EARLIER)
    assert not of_rule(findings(ENDPOINT, PARTNER.replace("order: 1", "order: 99"), deny), RuleId.ALLOWED_EARLIER)
    before = policy('action: Deny, source: {nets: ["203.0.113.64/26"]}', name="before", order=0)
    assert not of_rule(findings(ENDPOINT, before, PARTNER, deny), RuleId.ALLOWED_EARLIER)


@pytest.mark.parametrize(
    ("net", "levels"),
    [("203.0.113.64/28", [Level.WARNING]), ("203.0.113.0/24", [Level.NOTE]), ("198.51.100.0/24", [])],
    ids=["all of it", "some of it", "none of it"],
)
def test_an_untracked_allow_goes_past_tracked_policy(net: str, levels: list[Level]) -> None:
    tracked = policy(f'action: Deny, source: {{nets: ["{net}"]}}', name="normal", untracked=False)
    found = of_rule(findings(ENDPOINT, PARTNER, tracked), RuleId.ALLOWED_EARLIER)
    assert [item.level for item in found] == levels
    assert all("goes past tracked policy" in item.message for item in found)


# --- early, tiers -----------------------------------------------------------------------------------------------------


def test_what_acts_in_raw_by_definition_is_no_finding() -> None:
    deny = 'action: Deny, source: {nets: ["8.8.8.8/32"]}'
    found = findings(ENDPOINT, policy("action: Log, protocol: UDP", "action: Deny, protocol: UDP", deny))
    assert not of_rule(found, RuleId.NOT_EARLY)


def test_a_device_that_holds_less_than_the_driver_is_not_taken() -> None:
    facts = HostFacts("jasper", interfaces=(InterfaceFacts("eth0", modes={m: Probe(Answer.YES) for m in Mode}),))
    assert not of_rule(findings(ENDPOINT, policy("action: Deny, protocol: UDP"), facts=facts), RuleId.NOT_EARLY)


def test_what_xdp_has_no_room_for_and_what_follows_it() -> None:
    denied = [f'action: Deny, source: {{nets: ["8.{at // 250}.{at % 250}.8/32"]}}' for at in range(510)]
    modes = {Mode.OFFLOAD: Probe(Answer.NO, "no such device"), Mode.NATIVE: Probe(Answer.YES)}
    facts = HostFacts("jasper", interfaces=(InterfaceFacts("eth0", modes=modes),))
    assert messages(findings(ENDPOINT, policy(*denied), facts=facts), RuleId.NOT_EARLY) == [
        "gnp/p ingress[508] is enforced in raw, not by XDP: XDP holds 512 entries at most (4 of them failsafes)",
        "gnp/p ingress[509] is enforced in raw, not by XDP: XDP holds 512 entries at most (4 of them failsafes)",
    ]


def test_a_host_that_cannot_is_told_apart_by_its_facts() -> None:
    modes = {mode: Probe(Answer.NO, "no XDP here") for mode in Mode}
    facts = HostFacts("jasper", interfaces=(InterfaceFacts("eth0", modes=modes),))
    deny = policy('action: Deny, source: {nets: ["8.8.8.8/32"]}')
    assert not of_rule(findings(ENDPOINT, deny), RuleId.NOT_EARLY)
    (message,) = messages(findings(ENDPOINT, deny, facts=facts), RuleId.NOT_EARLY)
    assert message.endswith("not by XDP: offload, native, generic: no XDP here")


def test_star_endpoints_are_those_of_the_interfaces_there_are() -> None:
    star = ENDPOINT.replace("interfaceName: eth0", 'interfaceName: "*"')
    facts = HostFacts("jasper", interfaces=(InterfaceFacts("lo"), InterfaceFacts("cali1")))
    entry = policy("action: Deny, protocol: TCP, notProtocol: TCP")
    assert of_rule(findings(star, entry), RuleId.UNREACHABLE)
    assert not of_rule(findings(star, entry, facts=facts), RuleId.UNREACHABLE), "it governs neither of these"


def test_a_tier_that_is_not_there() -> None:
    tier = f"{HEAD}Tier\nmetadata: {{name: security}}\nspec: {{order: 1}}\n"
    given = ENDPOINT, policy("action: Deny", tier="security")
    (finding,) = of_rule(findings(*given), RuleId.TIER_MISSING)
    assert (finding.level, finding.position.line) == (Level.WARNING, 7)
    assert (
        "'security', so it is evaluated after the tiers that exist (default, kube-admin, kube-baseline)"
        in finding.message
    )
    assert not of_rule(findings(*given, tier), RuleId.TIER_MISSING)
