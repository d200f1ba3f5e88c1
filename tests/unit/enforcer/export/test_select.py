"""Which sources are exported, in which order, and what is left out and named."""

from __future__ import annotations

from collections.abc import Mapping

from enforcer.export.select import Count, Flow, Selection, select
from enforcer.policy.load import load_text

NOW = 1_790_000_000.0
ENDPOINT = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h, labels: {role: h}}
spec: {node: jasper, interfaceName: eth0, expectedIPs: [203.0.113.9, "2001:db8::9"]}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [{protocol: tcp, port: 22, net: 192.0.2.0/28}]}
---
"""


def policy(rules: str, order: int = 1, name: str = "deny") -> str:
    return f"""
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: {name}}}
spec:
  doNotTrack: true
  applyOnForward: true
  selector: role == 'h'
  order: {order}
  types: [Ingress]
  ingress: {rules}
---
"""


def listed(name: str, nets: str, label: str = "deny", more: str = "", notes: str = "") -> str:
    return f"""
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: {name}, labels: {{list: {label}{more}}}, annotations: {{{notes}}}}}
spec: {{nets: [{nets}]}}
---
"""


DENY = policy("[{action: Deny, source: {selector: list == 'deny'}}]")


def selected(
    text: str,
    counts: Mapping[str, Count] | None = None,
    *,
    top: int | None = None,
    destinations: bool = True,
    endpoint: str = ENDPOINT,
    node: str = "jasper",
) -> Selection:
    return select(load_text(endpoint + text, "p.yaml"), node, counts, top=top, destinations=destinations, now_s=NOW)


def flows(found: Selection) -> list[Flow]:
    return [rule.flow for rule in found.rules]


def test_a_denied_source_is_exported_to_our_own_addresses_of_its_family() -> None:
    found = selected(DENY + listed("bots", "198.51.100.7, '2001:db8:1::/48'"))
    assert flows(found) == [Flow("198.51.100.7/32", "203.0.113.9/32"), Flow("2001:db8:1::/48", "2001:db8::9/128")]
    assert {rule.entry for rule in found.rules} == {"gnp/deny ingress[0]"}
    assert {rule.listed for rule in found.rules} == {"GlobalNetworkSet bots"}
    assert not found.left_out


def test_never_a_source_alone() -> None:
    endpoint = ENDPOINT.replace(', expectedIPs: [203.0.113.9, "2001:db8::9"]', "")
    found = selected(DENY + listed("bots", "198.51.100.7"), endpoint=endpoint)
    assert not found.rules
    assert "HostEndpoint h has no expectedIPs" in found.left_out[0]
    without = selected(DENY + listed("bots", "198.51.100.7"), endpoint=endpoint, destinations=False)
    assert flows(without) == [Flow("198.51.100.7/32")]


def test_endpoints_of_other_nodes_are_not_ours() -> None:
    assert not selected(DENY + listed("bots", "198.51.100.7"), node="onyx").rules


def test_what_the_policy_lets_pass_is_left_out_and_named() -> None:
    allow = policy("[{action: Allow, source: {nets: [198.51.100.0/28]}}]", 0, "friends")
    found = selected(allow + DENY + listed("bots", "198.51.100.7, 198.51.100.0/24, 203.0.113.7"))
    assert flows(found) == [Flow("203.0.113.7/32", "203.0.113.9/32")]
    assert list(found.left_out) == [
        "GlobalNetworkSet bots: 1 of 3 CIDRs are let through in part by gnp/friends ingress[0]",
        "GlobalNetworkSet bots: 1 of 3 CIDRs are let through by gnp/friends ingress[0]",
    ]


def test_a_deny_of_some_packets_is_none_upstream() -> None:
    found = selected(
        policy("[{action: Deny, protocol: UDP, source: {selector: list == 'deny'}}]") + listed("bots", "198.51.100.7")
    )
    assert not found.rules
    (left_out,) = found.left_out
    assert left_out == (
        "GlobalNetworkSet bots: 1 of 1 CIDRs are denied in part only: "
        "gnp/deny ingress[0] matches on more than the source"
    )


def test_networks_of_failsafe_ports_are_left_out_and_open_ones_are_named() -> None:
    found = selected(DENY + listed("bots", "192.0.2.7, 198.51.100.7"))
    assert flows(found) == [Flow("198.51.100.7/32", "203.0.113.9/32")]
    assert list(found.left_out) == [
        "GlobalNetworkSet bots: 1 of 2 CIDRs have addresses in the networks of failsafe ports"
    ]
    assert not found.notes
    open_to_all = ENDPOINT.replace(", net: 192.0.2.0/28", "")
    found = selected(DENY + listed("bots", "192.0.2.7"), endpoint=open_to_all)
    assert found.notes == ["HostEndpoint h: upstream has no failsafe ports: the sources lose ports 22, too"]
    assert found.rules


TWO = (
    policy("[{action: Deny, source: {selector: list == 'deny'}}, {action: Deny, source: {selector: list == 'more'}}]")
    + listed("many", "198.51.100.0/30, 198.51.100.8/30, 198.51.100.16/30")
    + listed("few", "203.0.113.64/30")
    + listed("other", "203.0.113.128/25", "more")
)


def test_lists_are_ranked_by_the_drops_of_their_entry_and_then_by_size() -> None:
    counts = {"gnp/deny ingress[0]": Count(5, 500), "gnp/deny ingress[1]": Count(7, 700)}
    assert [rule.listed for rule in selected(TWO, counts).rules] == [
        f"GlobalNetworkSet {name}" for name in ("other", "few", "many", "many", "many")
    ]
    assert selected(TWO, counts).rules[0].count == Count(7, 700)
    assert [rule.listed for rule in selected(TWO).rules][:1] == ["GlobalNetworkSet few"]
    assert selected(TWO).rules[0].count is None


def test_a_list_that_does_not_fit_is_left_out_as_a_whole() -> None:
    found = selected(TWO, {}, top=3)
    assert [rule.listed for rule in found.rules] == ["GlobalNetworkSet few", "GlobalNetworkSet other"]
    (left_out,) = found.left_out
    assert left_out.startswith("GlobalNetworkSet many: 3 rules do not fit into the 1 that are left of --top 3; ")


def test_emergency_acts_come_first_and_end() -> None:
    def act(name: str, net: str, created: str, until: str) -> str:
        notes = f"enforcer.io/created: '{created}', enforcer.io/expires: '{until}'"
        return listed(name, net, more=", enforcer.io/emergency: 'true'", notes=notes)

    text = (
        DENY
        + listed("a-list", "198.51.100.0/24")
        + act("older", "203.0.113.1", "2026-09-21T10:00:00Z", "2026-09-21T20:00:00Z")
        + act("newer", "203.0.113.2", "2026-09-21T12:00:00Z", "2026-09-21T20:00:00Z")
        + act("ended", "203.0.113.3", "2026-09-21T12:00:00Z", "2026-09-21T14:00:00Z")
    )
    found = selected(text)
    assert [rule.listed.split()[1] for rule in found.rules] == ["newer", "older", "a-list"]
    assert [rule.until_s for rule in found.rules] == [1790020800, 1790020800, None]


def test_a_source_within_another_needs_no_rule() -> None:
    found = selected(DENY + listed("a", "198.51.100.0/24") + listed("b", "198.51.100.7, 198.51.101.7"))
    assert [flow.source for flow in flows(found)] == ["198.51.100.0/24", "198.51.101.7/32"]


def test_nets_of_a_rule_are_exported_as_well() -> None:
    found = selected(policy("[{action: Deny, source: {nets: [198.51.100.0/24]}}]"))
    assert flows(found) == [Flow("198.51.100.0/24", "203.0.113.9/32")]
    assert found.rules[0].listed.startswith("the rule at p.yaml:")
