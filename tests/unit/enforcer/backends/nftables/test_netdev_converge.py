"""The table of netdev ingress on a fake kernel: each pass reaches its plan, whatever failed before.

It may drop nothing for a moment, because raw drops the same packets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings

from enforcer.backends.nftables.netdev.render import render
from enforcer.backends.nftables.rules import Table
from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan
from tests.support.examples import examples
from tests.support.fakes.nft import Tables
from tests.support.host_plans import TIMELY, changes, timely
from tests.support.reconcile import Met, check_change, check_faults, remembering
from tests.unit.enforcer.backends.nftables.nft_world import NftWorld

_render = remembering(render)


@dataclass
class NetdevWorld(NftWorld):
    """The same reconciler, with another rendering."""

    def tables(self, plan: Plan) -> tuple[Table, ...]:
        return (_render(plan, self.settings),)

    def dropped(self, rules: Tables, sets: Tables, among: Met | None = None) -> Met:
        """No packet must be dropped here: raw drops it."""
        return frozenset()


def _early(plan: Plan) -> Plan:
    """All interfaces have netdev ingress, and all their entries are held there."""
    return replace(
        plan, interfaces=tuple(replace(item, netdev=True, held=len(item.table.ingress)) for item in plan.interfaces)
    )


@settings(max_examples=examples(10, nightly=1000))
@given(changes(Backend.NFTABLES))
def test_a_pass_reaches_its_plan(change: tuple[Plan, Plan]) -> None:
    check_change(NetdevWorld, *map(_early, change))


@pytest.mark.parametrize("row", TIMELY)
def test_wherever_it_fails_the_next_pass_mends_it(row: str) -> None:
    assert check_faults(NetdevWorld, *map(_early, timely(row, Backend.NFTABLES))) > 5
