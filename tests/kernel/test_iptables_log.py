"""Log entries of raw: their rate is limited by FelixConfiguration, and evaluation continues after them."""

from __future__ import annotations

import pytest

from enforcer.backends.iptables import IptablesBackend
from enforcer.backends.iptables.settings import settings_of
from enforcer.model.vocabulary import Backend
from enforcer.policy.resources import FelixConfiguration
from tests.kernel.iptables_plans import DENY, LOG, entry, plan, table
from tests.kernel.iptables_support import (
    OTHER,
    Wire,
    cable_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    frames,
    inside_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
    run,
    saved,
    udp,
    v4,
)
from tests.kernel.raw_support import (
    RawDriver,
    raw_fixture,  # noqa: F401  # pytest finds fixtures where they are imported
)

pytestmark = pytest.mark.needs_root

TABLE = table(entry(0, LOG, protocol=17), entry(1, DENY, protocol=17))
LOGGED = plan(TABLE)

RATES = [
    ("10/second", 5, "-m limit --limit 10/sec"),
    ("9999/second", 9999, "-m limit --limit 10000/sec --limit-burst 9999"),  # the kernel counts in 1/10000 s
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


def test_what_is_beyond_the_rate_is_not_logged_and_goes_on(raw: RawDriver, cable: Wire) -> None:
    limited = raw.configured(log_action_rate_limit="1/day", log_action_rate_limit_burst=1)
    with cable.inside():
        limited.apply(raw.plan(TABLE))
    cable.send(frames(v4(OTHER, udp(9)) * 10))
    with cable.inside():
        counts = {count.entry: count.packets for count in limited.counters()}
        limited.detach()
    assert counts == {"gnp/edge ingress[0]": 1, "gnp/edge ingress[1]": 10}


NFT_RATES = [
    ("10/second", 5, "limit rate 10/second"),
    ("10/minute", 7, "limit rate 10/minute burst 7 packets"),
    ("3/hour", 5, "limit rate 3/hour"),
    ("2/day", 0, "limit rate 2/day burst 1 packets"),
]


@pytest.mark.parametrize(("rate", "burst", "match"), NFT_RATES)
def test_a_rate_is_what_nft_calls_it_and_is_read_back_as_it_is(inside: str, rate: str, burst: int, match: str) -> None:
    raw = RawDriver(Backend.NFTABLES)
    limited = raw.configured(log_action_rate_limit=rate, log_action_rate_limit_burst=burst)
    assert limited.apply(raw.plan(TABLE)).changes
    (line,) = [line for line in run("nft", "list", "table", "ip", "enforcer").splitlines() if " log " in line]
    assert match in line
    assert not limited.apply(raw.plan(TABLE)).changes


PREFIXES = [("calico-packet", "calico-packet: "), ("%t/%n", "default/edge: "), ("x" * 40, "x" * 27 + ": ")]


@pytest.mark.parametrize(("template", "prefix"), PREFIXES)
def test_the_prefix_is_that_of_iptables(inside: str, template: str, prefix: str) -> None:
    raw = RawDriver(Backend.NFTABLES)
    raw.configured(log_prefix=template).apply(raw.plan(TABLE))
    assert f'log prefix "{prefix}" level notice' in run("nft", "list", "table", "ip", "enforcer")
