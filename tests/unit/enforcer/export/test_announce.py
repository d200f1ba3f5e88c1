"""Announced and withdrawn: what ExaBGP is told, and that ExaBGP's own parser reads it."""

from __future__ import annotations

import pytest
from exabgp.environment import getenv
from exabgp.logger import log
from exabgp.reactor.api import API

from enforcer.export.announce import ANNOUNCE, WITHDRAW, Announcer, Step
from enforcer.export.render import as_exabgp
from enforcer.export.select import Flow, Rule

ONE, OTHER = Flow("198.51.100.7/32", "203.0.113.9/32"), Flow("2001:db8::/48", "2001:db8:1::9/128")


def rule(flow: Flow, until_s: int | None = None) -> Rule:
    return Rule(flow, "gnp/deny ingress[0]", "GlobalNetworkSet bots", None, until_s)


def test_a_flow_is_announced_once_and_withdrawn_after_the_hold_down() -> None:
    announcer = Announcer(60.0)
    assert announcer.step([rule(ONE), rule(OTHER)], 0.0) == [(ANNOUNCE, ONE), (ANNOUNCE, OTHER)]
    assert announcer.step([rule(ONE), rule(OTHER)], 30.0) == []
    assert announcer.step([rule(ONE)], 60.0) == []
    assert announcer.step([rule(ONE)], 89.0) == []
    assert announcer.step([rule(ONE)], 90.0) == [(WITHDRAW, OTHER)]
    assert announcer.step([rule(ONE)], 120.0) == []


def test_a_flow_that_comes_back_within_the_hold_down_is_no_update() -> None:
    announcer = Announcer(60.0)
    announcer.step([rule(ONE)], 0.0)
    assert announcer.step([], 30.0) == []
    assert announcer.step([rule(ONE)], 59.0) == []
    assert announcer.step([], 100.0) == []
    assert announcer.step([], 119.0) == [(WITHDRAW, ONE)]


def test_an_act_is_withdrawn_at_its_end() -> None:
    announcer = Announcer(60.0)
    announcer.step([rule(ONE, 100)], 0.0)
    assert announcer.step([rule(ONE, 100)], 99.0) == []
    assert announcer.step([rule(ONE, 100)], 100.0) == [(WITHDRAW, ONE)]
    assert announcer.step([rule(ONE, 200)], 101.0) == [(ANNOUNCE, ONE)]
    assert announcer.step([rule(ONE)], 150.0) == []  # for ever, now
    assert announcer.step([], 200.0) == []


def test_at_the_end_everything_is_withdrawn() -> None:
    announcer = Announcer()
    announcer.step([rule(ONE), rule(OTHER)], 0.0)
    ended: list[Step] = announcer.end()
    assert ended == [(WITHDRAW, ONE), (WITHDRAW, OTHER)]
    assert announcer.end() == []


@pytest.fixture(scope="module")
def exabgp() -> API:
    log.init(getenv())
    return API(None)


@pytest.mark.parametrize("verb", [ANNOUNCE, WITHDRAW])
@pytest.mark.parametrize(
    ("flow", "read"),
    [
        (ONE, "flow destination-ipv4 203.0.113.9/32 source-ipv4 198.51.100.7/32 extended-community rate-limit:0"),
        (OTHER,
         "flow destination-ipv6 2001:db8:1::9/128/0 source-ipv6 2001:db8::/48/0 extended-community rate-limit:0"),
    ],
)  # fmt: skip
def test_exabgp_reads_a_flow_as_it_is_meant(exabgp: API, verb: str, flow: Flow, read: str) -> None:
    assert [str(route) for route in exabgp.api_flow(as_exabgp(verb, flow))] == [read]


def test_exabgp_would_refuse_another_text(exabgp: API) -> None:
    assert not exabgp.api_flow(as_exabgp(ANNOUNCE, Flow("198.51.100.7/32", "nonsense")))
