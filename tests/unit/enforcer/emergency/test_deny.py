"""What a deny would do, before it is written: to stand beside which list, whether it drops, what it would hit."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from enforcer.emergency.deny import DenyPlan, Wanted, deny_plan
from enforcer.emergency.protection import Facts
from enforcer.model.errors import UsageError
from enforcer.policy.resources import Resources
from tests.unit.enforcer.emergency.world import BOTS, DENY, ENDPOINT, V3, act, deed, nets, policy, resources, with_acts

BAD = "198.51.100.7/32"
GOOD = f"""
{V3}
kind: GlobalNetworkSet
metadata: {{name: partners, labels: {{allow: partners}}}}
spec: {{nets: [198.51.100.0/25]}}
---"""
OTHER = f"""
{V3}
kind: GlobalNetworkSet
metadata: {{name: others, labels: {{deny: all, from: feed}}}}
spec: {{nets: [192.0.2.128/25]}}
---"""
PROTECTED = f"""
{V3}
kind: GlobalNetworkSet
metadata: {{name: cdn, labels: {{enforcer.io/protected: "true"}}}}
spec: {{nets: [100.64.0.0/10]}}
---"""
ALLOW = "{action: Allow, source: {selector: \"allow == 'partners'\"}}"


def plan(base: Resources, *cidrs: str, hours: float | None = 4, facts: Facts | None = None, **more: object) -> DenyPlan:
    wanted = Wanted(nets(*cidrs), deed(hours=hours), **more)  # type: ignore[arg-type]  # of several types
    return deny_plan(base, wanted, facts or Facts())


def test_an_address_is_denied_beside_the_only_list() -> None:
    found = plan(resources(), BAD)
    assert found.refused == ()
    assert (found.beside.name, found.beside.labels) == ("bots", {"deny": "all"})
    assert [each.nets for each in found.acts] == [nets(BAD)]


def test_of_several_lists_one_must_be_named() -> None:
    both = resources(ENDPOINT, BOTS, OTHER, policy())
    with pytest.raises(UsageError, match=r"denies several lists: bots, others; choose one with --set NAME"):
        plan(both, BAD)
    assert plan(both, BAD, beside="others").beside.labels == {"deny": "all", "from": "feed"}
    with pytest.raises(
        UsageError, match=r"--set bot: there is no GlobalNetworkSet of this name; there are: bots, others"
    ):
        plan(both, BAD, beside="bot")


def test_lists_of_the_same_labels_are_one() -> None:
    twin = BOTS.replace("name: bots", "name: a-bots")
    assert plan(resources(ENDPOINT, BOTS, twin, policy()), BAD).beside.name == "a-bots"


def test_acts_are_no_lists_to_stand_beside() -> None:
    base = with_acts(resources(), act("192.0.2.9/32"))
    assert plan(base, BAD).beside.name == "bots"
    with pytest.raises(UsageError, match="is an emergency object itself"):
        plan(base, BAD, beside=act("192.0.2.9/32").name)


def test_a_policy_without_a_list_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="no GlobalNetworkSet is denied by untracked policy"):
        plan(resources(ENDPOINT, BOTS, policy("{action: Deny, source: {nets: [192.0.2.0/24]}}")), BAD)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((ENDPOINT, BOTS, GOOD, policy(ALLOW, DENY)), "gnp/dos ingress[0] lets it pass first"),
        (
            (ENDPOINT, BOTS, policy("{action: Allow}", name="a", more="order: 1"), policy(more="order: 2")),
            "gnp/a ingress[0] lets",
        ),
        ((ENDPOINT, BOTS, policy("{action: Pass}", DENY)), "for any HostEndpoint"),
    ],
    ids=["an exception", "an earlier policy", "a Pass"],
)
def test_nothing_would_be_dropped(parts: tuple[str, ...], says: str) -> None:
    found = plan(resources(*parts), BAD, beside="bots")
    assert any(
        sentence.startswith(f"nothing would be dropped of {BAD}") and says in sentence for sentence in found.refused
    )
    assert plan(resources(*parts), BAD, beside="bots", insists=True).refused == ()


def test_a_list_that_no_policy_selects() -> None:
    found = plan(resources(ENDPOINT, BOTS, GOOD, policy()), BAD, beside="partners")
    assert any("no Deny of untracked policy selects the labels of the list" in each for each in found.refused)


def test_what_passes_in_part_is_a_note() -> None:
    found = plan(
        resources(ENDPOINT, BOTS, policy("{action: Allow, protocol: TCP, destination: {ports: [443]}}", DENY)), BAD
    )
    assert found.refused == ()
    assert found.notes == ("gnp/dos ingress[0] comes first and lets some packets of 1 of the CIDRs pass",)


@pytest.mark.parametrize(
    ("cidr", "hit"),
    [
        ("10.0.0.0/7", "is wider than /8"),
        ("2001::/16", "is wider than /19"),
        ("127.0.0.1/32", "127.0.0.1/32 is in 127.0.0.0/8, loopback"),
        ("224.0.0.251/32", "multicast"),
        ("fe80::/64", "which IPv6 needs to find neighbours"),
        ("fe80::/10", "fe80::/10 is link-local addresses"),
        ("169.254.169.254/32", "link-local addresses"),
        ("192.0.2.1/32", "192.0.2.1 is an address of HostEndpoint jasper-eth0 (expectedIPs)"),
        ("192.0.2.0/28", "192.0.2.0/28 contains 192.0.2.1, an address of HostEndpoint jasper-eth0"),
        ("100.100.0.0/16", "GlobalNetworkSet cdn (enforcer.io/protected)"),
        ("198.51.100.0/24", "gns/partners, the exceptions of gnp/dos ingress[0]"),
        ("10.9.0.0/16", "10.9.0.0/16 contains 10.9.8.7, the peer of this SSH session"),
        (
            "172.16.1.0/24",
            "172.16.1.0/24 is in 172.16.0.0/12, a network of the failsafe port 22 (FelixConfiguration default)",
        ),
    ],
)
def test_what_is_protected_is_refused_by_name_and_may_be_insisted_on(cidr: str, hit: str) -> None:
    felix = f"""
{V3}
kind: FelixConfiguration
metadata: {{name: default}}
spec: {{failsafeInboundHostPorts: [{{protocol: TCP, port: 22, net: 172.16.0.0/12}}]}}
---"""
    base = resources(ENDPOINT, BOTS, GOOD, PROTECTED, felix, policy(ALLOW, DENY))
    facts = Facts([(ip_address("10.9.8.7"), "the peer of this SSH session")])
    found = plan(base, cidr, facts=facts)
    assert any(hit in sentence for sentence in found.refused), found.refused
    insisted = plan(base, cidr, facts=facts, insists=True)
    assert insisted.refused == ()
    assert any(hit in note for note in insisted.notes)
    assert insisted.acts


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "::/0"])
def test_every_address_is_never_denied(cidr: str) -> None:
    found = plan(resources(), cidr, insists=True)
    assert found.refused == (f"{cidr} is every address: refused, also with --force",)


@pytest.mark.parametrize("cidr", ["8.8.8.8/32", "10.0.0.0/8", "2001:db8::/32", "2001:db8::1/128"])
def test_what_is_not_protected(cidr: str) -> None:
    assert plan(resources(), cidr).refused == ()


def test_what_is_denied_for_ever_is_not_written_again() -> None:
    found = plan(resources(), "203.0.113.9/32", hours=None)
    assert (found.acts, found.covered, found.refused) == ((), {nets("203.0.113.9/32")[0]: "gns/bots"}, ())


def test_what_an_act_denies_as_long_is_not_written_again() -> None:
    held = act(BAD, hours=4)
    base = with_acts(resources(), held)
    assert plan(base, BAD, hours=2).covered == {nets(BAD)[0]: f"gns/{held.name}"}
    assert plan(base, BAD, hours=2).acts == ()
    assert [each.name for each in plan(base, BAD, hours=5).acts] == [held.name], "it ends later: written"
    assert [each.name for each in plan(base, BAD, hours=2, shortens=True).acts] == [held.name]


def test_what_a_feed_denies_is_written_because_its_next_list_may_lack_it() -> None:
    fed = BOTS.replace("deny: all", 'deny: all, enforcer.io/feed: "drop"').replace("name: bots", "name: feed-drop-v4")
    found = plan(resources(ENDPOINT, fed, policy()), "203.0.113.9/32")
    assert ([each.nets for each in found.acts], found.covered) == ([nets("203.0.113.9/32")], {})


def test_only_what_is_not_covered_is_written() -> None:
    found = plan(resources(), BAD, "203.0.113.9/32")
    assert [each.nets for each in found.acts] == [nets(BAD)]
    assert list(found.covered or {}) == list(nets("203.0.113.9/32"))


def test_a_wider_network_than_what_is_listed_is_written() -> None:
    assert [each.nets for each in plan(resources(), "203.0.112.0/23").acts] == [nets("203.0.112.0/23")]


def test_two_halves_of_a_list_cover_the_whole() -> None:
    halves = BOTS.replace("203.0.113.0/24", "203.0.113.0/25, 203.0.113.128/25")
    assert plan(resources(ENDPOINT, halves, policy()), "203.0.113.0/24").acts == ()


def test_a_list_behind_an_exception_does_not_cover() -> None:
    """The list has it, but only one of two kinds of hosts denies it."""
    other = ENDPOINT.replace("jasper", "agate").replace("role: edge", "role: inner").replace("192.0.2.1", "192.0.2.2")
    inner = policy(name="inner").replace("role == 'edge'", "role == 'inner'").replace("deny == 'all'", "only == 'here'")
    base = resources(ENDPOINT, other, BOTS, policy(), inner)
    assert plan(base, "203.0.113.9/32", beside="bots").acts == ()
    assert plan(base, BAD, beside="bots").refused == ()


def test_policy_that_cannot_be_compiled_is_a_note() -> None:
    other = ENDPOINT.replace("jasper", "agate").replace("role: edge", "role: inner").replace("192.0.2.1", "192.0.2.2")
    odd = policy("{action: Deny, source: {serviceAccounts: {names: [x]}}}", name="odd").replace("'edge'", "'inner'")
    found = plan(resources(ENDPOINT, other, BOTS, policy(), odd), BAD)
    assert found.acts
    assert any("serviceAccounts" in note for note in found.notes)


def test_a_list_that_is_denied_as_a_destination() -> None:
    egress = policy().replace("types: [Ingress]", "types: [Egress]").replace("ingress:", "egress:")
    egress = egress.replace("source:", "destination:")
    assert plan(resources(ENDPOINT, BOTS, egress), BAD).acts
