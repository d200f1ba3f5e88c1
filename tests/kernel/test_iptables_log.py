"""Log entries of raw: what they may log is limited as FelixConfiguration says, and everything goes on behind them."""

from __future__ import annotations

import pytest

from enforcer.apply import settings_of
from enforcer.backends.iptables import IptablesBackend
from enforcer.policy.resources import FelixConfiguration
from tests.kernel.iptables_plans import DENY, LOG, entry, plan, table
from tests.kernel.iptables_support import (
    OTHER,
    Wire,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    frames,
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    saved,
    udp,
    v4,
)

pytestmark = pytest.mark.needs_root

LOGGED = plan(table(entry(0, LOG, protocol=17), entry(1, DENY, protocol=17)))

RATES = [
    ("10/second", 5, "-m limit --limit 10/sec"),
    ("9999/second", 9999, "-m limit --limit 10000/sec --limit-burst 9999"),  # the kernel counts ten thousandths
    ("10/minute", 7, "-m limit --limit 10/min --limit-burst 7"),
    ("60/minute", 5, "-m limit --limit 1/sec"),
    ("3/hour", 5, "-m limit --limit 3/hour"),
    ("2/day", 5, "-m limit --limit 2/day --limit-burst 2"),  # no room for the credit of more than a day
    ("2/day", 0, "-m limit --limit 2/day --limit-burst 1"),
]


def backend(rate: str, burst: int = 5) -> IptablesBackend:
    felix = FelixConfiguration("default", log_action_rate_limit=rate, log_action_rate_limit_burst=burst)
    return IptablesBackend(settings_of(felix))


@pytest.mark.parametrize(("rate", "burst", "match"), RATES)
def test_a_rate_is_what_iptables_calls_it_and_is_read_back_as_it_is(
    inside: str, rate: str, burst: int, match: str
) -> None:
    assert backend(rate, burst).apply(LOGGED).changes
    (line,) = [line for line in saved(4) if "-j LOG" in line]
    assert match in line
    assert ("--limit-burst" in line) is ("--limit-burst" in match)
    assert not backend(rate, burst).apply(LOGGED).changes


def test_without_a_rate_nothing_is_limited(inside: str) -> None:
    backend("").apply(LOGGED)
    assert not [line for line in saved(4) if "-m limit" in line]


def test_what_is_beyond_the_rate_is_not_logged_and_goes_on(cable: Wire) -> None:
    with cable.inside():
        backend("1/day", 1).apply(LOGGED)
    cable.send(4, frames(v4(OTHER, udp(9)) * 10))
    with cable.inside():
        counts = {count.entry: count.packets for count in backend("1/day", 1).counters()}
        backend("").detach()
    assert counts == {"gnp/edge ingress[0]": 1, "gnp/edge ingress[1]": 10}
