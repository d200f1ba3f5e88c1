"""The packets of :mod:`tests.support.reach` reach what can be reached: ten times as many hardly reach more entries."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from dossim.model.host import Host
from enforcer.policy.resources import Resources
from tests.support.reach import CANDIDATES, reach
from tests.support.strategies import hosts, resources
from tests.support.witnesses import table_of


@pytest.mark.long
@pytest.mark.slow
def test_what_a_long_search_reaches_a_short_one_reaches() -> None:
    found: Counter[str] = Counter()

    @settings(max_examples=150, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(resources(), hosts())
    def search(policy: Resources, host: Host) -> None:
        table = table_of(policy, host)
        short = reach(table, host).decided
        long = reach(table, host, 1, candidates_each=10 * CANDIDATES).decided
        found.update(
            short=sum(map(bool, short.values())), missed=sum(bool(long[name] and not short[name]) for name in long)
        )
        found.update(entries=len(short))

    search()
    assert found["short"] > found["entries"] / 3, found  # many come after entries that decide all their packets
    assert found["missed"] <= found["short"] / 50, found
