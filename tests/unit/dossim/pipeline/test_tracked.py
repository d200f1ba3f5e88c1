"""Tracked policy as ``explain`` evaluates it: which row decides a packet of each state, at each hook."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.tracked import TrackedPolicy, endpoint_chains
from dossim.pipeline.tracked_chain import Decision, Verdict
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action, CtState
from enforcer.policy.resources import (
    EntityRule,
    HostEndpoint,
    Rule,
)
from tests.unit.dossim.pipeline.tracked_rows import (
    CALICO,
    ESTABLISHED,
    INVALID,
    NEIGHBOURS,
    NEW,
    NOTHING,
    OWN,
    RECEIVES,
    REFUSES,
    Row,
    out,
    through,
)
from tests.unit.dossim.pipeline.tracked_support import (
    ALLOW,
    ENDPOINT,
    EVERY,
    HOST,
    OTHER,
    egress,
    endpoint,
    given,
    ingress,
    key,
    rule,
    tracked,
)

Ask = Callable[[TrackedPolicy, MatchKey, CtState, bool], Decision]


def _mangle(policy: TrackedPolicy, asked: MatchKey, state: CtState, marked: bool) -> Decision:
    return policy.mangle(asked, state, marked=marked)


def _input(policy: TrackedPolicy, asked: MatchKey, state: CtState, marked: bool) -> Decision:
    return policy.input(asked, state, marked=marked)


def _output(policy: TrackedPolicy, asked: MatchKey, state: CtState, marked: bool) -> Decision:
    return policy.output(asked, state, marked=marked)


def _forward(policy: TrackedPolicy, asked: MatchKey, state: CtState, marked: bool) -> Decision:
    return policy.forward(asked, state, marked=marked, to_inside=True)[-1]


HOOKS: dict[str, Ask] = {"mangle": _mangle, "input": _input, "output": _output, "forward": _forward}


def said(found: Decision) -> str:
    verdict = "accept" if found.verdict is Verdict.RETURN and found.marked else str(found.verdict)
    if found.marked and found.row[0] == "M":
        verdict = "accept-marked"
    return " ".join([verdict, found.row, *([found.rule.name] if found.rule is not None else [])])


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in (*CALICO, *OWN, *NEIGHBOURS)])
def test_the_row_that_decides(row: Row) -> None:
    found = HOOKS[row.hook](tracked(row.policy), row.packet, row.state, row.marked)
    assert said(found) == row.decides


def test_rows_have_ids_of_their_own() -> None:
    ids = [row.id for row in (*CALICO, *OWN, *NEIGHBOURS)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        pytest.param(Row("", NOTHING, "input", key(), ""), "no profile ingress", id="the end of all"),
        pytest.param(Row("", RECEIVES, "input", key(source=OTHER), ""), "tier/security ingress default", id="a tier's"),
        pytest.param(Row("", NOTHING, "input", key(), "", INVALID), "conntrack INVALID ingress", id="INVALID"),
        pytest.param(Row("", given(of=endpoint("x")), "output", out(), ""), "profile/x egress: no such profile",
                     id="a profile that is missing"),
        pytest.param(Row("", REFUSES, "input", key(), ""), "gnp/i ingress[0]", id="a rule"),
    ],
)  # fmt: skip
def test_results_call_a_denial_by_what_denies(row: Row, entry: str) -> None:
    found = HOOKS[row.hook](tracked(row.policy), row.packet, row.state, False)
    assert (found.denies, found.entry) == (True, entry)


def test_the_way_through_both_chains_of_a_forwarded_packet() -> None:
    both = given(
        ingress("i", rule(Action.ALLOW), apply_on_forward=True),
        egress("e", rule(Action.ALLOW), apply_on_forward=True),
        of=EVERY,
    )
    found = tracked(both).forward(through(), NEW, marked=False, to_inside=True)
    assert [str(one) for one in found] == [
        "W5: gnp/i ingress[0] allows it",
        "W5: gnp/e egress[0] allows it",
        "F5: it has the accept mark",
    ]
    back = tracked(both).forward(through(), ESTABLISHED, marked=False, to_inside=True)
    assert [one.row for one in back] == ["W1"], "the second chain is not asked"


def test_a_log_goes_on_and_is_named() -> None:
    found = tracked(given(ingress("i", Rule(Action.LOG), ALLOW))).input(key(), NEW, marked=False)
    assert (found.logged, said(found)) == (("gnp/i ingress[0]",), "accept N5 gnp/i ingress[1]")


@pytest.mark.parametrize(
    ("name", "governed"),
    [pytest.param("*", True, id="of every interface"), pytest.param("eth0", False, id="of another")],
)
def test_an_endpoint_of_every_interface_has_the_loopback_too(name: str, governed: bool) -> None:
    found = endpoint_chains(given(of=endpoint(interface=name)), "jasper", "lo", ())
    assert (found is not None) is governed
    if found is not None:
        assert found.ingress.decide(key(), NEW).entry == "no profile ingress"


def test_a_rule_about_what_no_packet_shows_is_refused() -> None:
    names = Rule(Action.ALLOW, source=EntityRule(service_accounts={"names": ["a"]}))
    with pytest.raises(UnsupportedRuleError, match=r"gnp/i ingress\[0\]: tracked policy with source.service_accounts"):
        tracked(given(ingress("i", names)))


def test_only_the_policies_that_select_the_endpoint_take_part() -> None:
    of = HostEndpoint("eth0", labels={"role": "web"}, node="jasper", interface_name="eth0")
    mine = ingress("mine", ALLOW, selector="role == 'web'")
    other = ingress("other", ALLOW, selector="role == 'db'")
    assert said(tracked(given(mine, of=of)).input(key(), NEW, marked=False)) == "accept N5 gnp/mine ingress[0]"
    assert said(tracked(given(other, of=of)).input(key(), NEW, marked=False)) == "deny N9"


def test_without_an_endpoint_nothing_is_governed() -> None:
    assert not tracked(given(of=endpoint(interface="eth1"))).governs
    assert tracked(given(of=ENDPOINT)).governs
    assert tracked(given(of=endpoint(interface=HOST.inside))).governs
