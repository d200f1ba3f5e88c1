"""Views of an agent's state for tests."""

from __future__ import annotations

from dataclasses import replace

from enforcer.agent.state import Histogram, View
from enforcer.datastore.base import StoreState
from enforcer.datastore.report import StoreCounts
from enforcer.emergency.expiry import Decision
from enforcer.planning.plan import Plan
from enforcer.policy.resources import FelixConfiguration, Resources

GOOD = View(
    node="jasper",
    started_at_s=1e9,
    store=StoreState("files", "/etc/enforcer", True, 1e9, 1e9),
    counts=StoreCounts(),
    felix=FelixConfiguration("default"),
    ticked_ago_s=1.0,
    passing_for_s=None,
    passed=True,
    plan=Plan("jasper", ()),
    ranges={},
    resources=Resources(),
    enforced_at_s=1e9 + 5,
    out_of_date_s=0.0,
    problem="",
    applies={"changed": 1, "unchanged": 2, "failed": 0},
    apply_s=Histogram(),
    propagation_s=Histogram(),
    losses={},
    emergency=Decision(),
)


def view(**fields: object) -> View:
    return replace(GOOD, **fields)  # type: ignore[arg-type]  # of several types
