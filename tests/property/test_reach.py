"""The packets of :mod:`tests.reach` reach what can be reached: a search ten times as long finds hardly any more."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings

from dossim.host import Host
from enforcer.policy.compile import compile_table
from enforcer.policy.resources import Resources
from tests.reach import CANDIDATES, reach
from tests.strategies import hosts, resources


def test_what_a_long_search_reaches_a_short_one_reaches() -> None:
    found: Counter[str] = Counter()

    @settings(max_examples=150, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(resources(), hosts())
    def search(policy: Resources, host: Host) -> None:
        addresses = [address.ip for address in host.addresses]
        table = compile_table(policy, node=host.node, interface=host.interface, addresses=addresses)
        short = reach(table, host).decided
        long = reach(table, host, 1, candidates_each=10 * CANDIDATES).decided
        found.update(short=sum(map(bool, short.values())), missed=sum(long[name] > 0 == short[name] for name in long))

    search()
    assert found["short"] > 30
    assert found["missed"] <= found["short"] / 50, found
