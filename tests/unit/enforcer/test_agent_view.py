"""What ``enforcer status`` says of an agent's emergency acts, from the agent's own report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from enforcer.agent.lock import AgentRecord
from enforcer.cli.agent_view import AgentStatus, agent_lines
from enforcer.emergency.expiry import ClockState, Decision
from enforcer.monitor.report import report_of
from tests.unit.enforcer.monitor.views import view

RECORD = AgentRecord(7, "2026-11-28T00:00:00Z", "jasper", "/etc/enforcer")


def lines(report: dict[str, Any]) -> list[str]:
    return [line for line in agent_lines(AgentStatus(RECORD, report)) if "emergency" in line or "clock" in line]


def test_people_read_how_much_is_denied_and_how_long() -> None:
    decision = Decision(state=ClockState.TRUSTED, until={"a": 1_800_000_000, "b": None}, cidrs=2001)
    report = report_of(view(emergency=decision), None)
    assert lines(report) == ["emergency acts: 2,001 CIDRs in 2 objects; the next ends at 2027-01-15T08:00:00Z"]
    behind = report_of(view(emergency=replace(decision, state=ClockState.BEHIND)), None)
    assert lines(behind)[1] == "  they may end later: the clock is behind"
    permanent = report_of(view(emergency=Decision(until={"b": None}, cidrs=1)), None)
    assert lines(permanent) == ["emergency acts: 1 CIDR in 1 object"]


def test_nothing_is_said_without_acts_or_of_an_earlier_agent() -> None:
    report = report_of(view(), None)
    assert lines(report) == []
    del report["emergency"]
    assert lines(report) == []
