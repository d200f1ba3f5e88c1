"""compile_tracked: which chains an interface has after conntrack, and what is in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from enforcer.model.vocabulary import Action, Direction, Stage
from enforcer.policy.compile import compile_tracked
from enforcer.policy.resources import (
    DEFAULT_FAILSAFE_INBOUND,
    DEFAULT_FAILSAFE_OUTBOUND,
    EntityRule,
    FelixConfiguration,
    GlobalNetworkPolicy,
    HostEndpoint,
    Profile,
    Resources,
    Rule,
    Tier,
)
from enforcer.policy.tracked import Hook, TrackedChain, TrackedTable

ALLOW, DENY = Rule(Action.ALLOW), Rule(Action.DENY)
ENDPOINT = HostEndpoint("hep", {"role": "edge"}, node="jasper", interface_name="eth0")
ALWAYS = (Hook.INPUT, Hook.OUTPUT, Hook.FORWARD_IN, Hook.FORWARD_OUT)
INVALID_IN, END_IN = "conntrack INVALID ingress", "no profile ingress"


def gnp(name: str, *ingress: Rule, **fields: Any) -> GlobalNetworkPolicy:
    return GlobalNetworkPolicy(name, **{"ingress": ingress, "selector": "role == 'edge'", **fields})


def compiled(*items: Any, endpoint: HostEndpoint = ENDPOINT, interface: str = "eth0") -> TrackedTable | None:
    def of(kind: type) -> tuple[Any, ...]:
        return tuple(item for item in items if type(item) is kind)

    resources = Resources(
        host_endpoints=(endpoint,),
        policies=of(GlobalNetworkPolicy),
        tiers=of(Tier),
        profiles=of(Profile),
        felix_configurations=of(FelixConfiguration),
    )
    return compile_tracked(resources, node="jasper", interface=interface)


def chain(hook: Hook, *items: Any, **where: Any) -> TrackedChain:
    table = compiled(*items, **where)
    assert table is not None
    found = table.at(hook)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("items", "hooks"),
    [
        pytest.param((), ALWAYS, id="an endpoint alone"),
        pytest.param((gnp("a", DENY),), ALWAYS, id="normal policy"),
        pytest.param((gnp("a", DENY, apply_on_forward=True),), ALWAYS, id="policy for forwarded packets too"),
        pytest.param(
            (gnp("a", DENY, pre_dnat=True, apply_on_forward=True),), (Hook.PRE_DNAT, *ALWAYS), id="preDNAT policy"
        ),
        pytest.param((gnp("a", DENY, do_not_track=True, apply_on_forward=True),), ALWAYS, id="untracked policy"),
        pytest.param(
            (gnp("a", DENY, pre_dnat=True, apply_on_forward=True, selector="role == 'x'"),), ALWAYS, id="of another"
        ),
    ],
)
def test_the_chains_of_an_interface(items: tuple[Any, ...], hooks: tuple[Hook, ...]) -> None:
    table = compiled(*items)
    assert table is not None
    assert (table.interface, table.endpoint) == ("eth0", "hep")
    assert tuple(item.hook for item in table.chains) == hooks


def test_an_interface_without_endpoint_has_none() -> None:
    assert compiled(gnp("a", DENY), interface="eth1") is None


@pytest.mark.parametrize(("name", "governed"), [("*", True), ("eth0", False)])
def test_any_interface_is_the_loopback_too(name: str, governed: bool) -> None:
    table = compiled(endpoint=replace(ENDPOINT, interface_name=name), interface="lo")
    assert (table is not None) is governed


@pytest.mark.parametrize(
    ("items", "names"),
    [
        pytest.param((), (INVALID_IN, END_IN), id="nothing allows anything"),
        pytest.param(
            (gnp("a", ALLOW, DENY),),
            (INVALID_IN, "gnp/a ingress[0]", "gnp/a ingress[1]", "tier/default ingress default", END_IN),
            id="a policy",
        ),
        pytest.param((gnp("a", egress=(DENY,), types=("Egress",)),), (INVALID_IN, END_IN), id="of egress alone"),
        pytest.param(
            (gnp("b", DENY, order=2.0), gnp("a", ALLOW, order=1.0)),
            (INVALID_IN, "gnp/a ingress[0]", "gnp/b ingress[0]", "tier/default ingress default", END_IN),
            id="in order",
        ),
        pytest.param(
            (Tier("t", order=1.0, default_action=Action.PASS), gnp("t.a", DENY, tier="t"), gnp("b", ALLOW)),
            (INVALID_IN, "gnp/t.a ingress[0]", "gnp/b ingress[0]", "tier/default ingress default", END_IN),
            id="a tier that passes",
        ),
        pytest.param(
            (gnp("t.a", DENY, tier="t"),),
            (INVALID_IN, "gnp/t.a ingress[0]", "tier/t ingress default", END_IN),
            id="a tier that does not exist",
        ),
        pytest.param(
            (FelixConfiguration("default", disable_conntrack_invalid_check=True),), (END_IN,), id="INVALID not checked"
        ),
    ],
)
def test_what_decides_of_received_packets(items: tuple[Any, ...], names: tuple[str, ...]) -> None:
    assert tuple(chain(Hook.INPUT, *items).names()) == names


def test_profiles_come_last_in_the_order_of_the_endpoint() -> None:
    endpoint = replace(ENDPOINT, profiles=("b", "missing", "a"))
    found = chain(Hook.INPUT, Profile("a", ingress=(ALLOW,)), Profile("b", ingress=(DENY,)), endpoint=endpoint)
    assert [(item.name, item.default, [entry.name for entry in item.entries]) for item in found.profiles] == [
        ("b", Action.PASS, ["profile/b ingress[0]"]),
        ("missing", Action.PASS, ["profile/missing ingress: no such profile"]),
        ("a", Action.PASS, ["profile/a ingress[0]"]),
    ]
    assert [entry.action for item in found.profiles for entry in item.entries] == [
        Action.DENY,
        Action.DENY,
        Action.ALLOW,
    ]


def test_pre_dnat_policy_never_denies_what_it_does_not_match() -> None:
    found = chain(Hook.PRE_DNAT, gnp("a", ALLOW, pre_dnat=True, apply_on_forward=True))
    assert [tier.default for tier in found.tiers] == [Action.PASS]
    assert found.end is Action.PASS


@pytest.mark.parametrize(
    ("hook", "failsafes", "direction", "stage"),
    [
        (Hook.PRE_DNAT, DEFAULT_FAILSAFE_INBOUND, Direction.INGRESS, Stage.MANGLE),
        (Hook.INPUT, DEFAULT_FAILSAFE_INBOUND, Direction.INGRESS, Stage.FILTER_INPUT),
        (Hook.OUTPUT, DEFAULT_FAILSAFE_OUTBOUND, Direction.EGRESS, Stage.EGRESS),
        (Hook.FORWARD_IN, (), Direction.INGRESS, Stage.FILTER_FORWARD),
        (Hook.FORWARD_OUT, (), Direction.EGRESS, Stage.FILTER_FORWARD),
    ],
)
def test_failsafes_guard_what_ends_or_begins_at_the_host(
    hook: Hook, failsafes: tuple[Any, ...], direction: Direction, stage: Stage
) -> None:
    found = chain(hook, gnp("a", ALLOW, pre_dnat=True, apply_on_forward=True))
    assert found.failsafes == failsafes
    assert (hook.direction, hook.stage) == (direction, stage)


def test_a_rule_that_no_entry_can_express_is_named() -> None:
    rule = Rule(Action.ALLOW, source=EntityRule(services={"name": "web"}))
    table = compiled(gnp("a", rule))
    assert table is not None
    (sentence,) = table.unsupported
    assert "gnp/a ingress[0]: tracked policy cannot be enforced with source.services" in sentence
