"""What a running agent says of itself, as lines and as data."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from enforcer.cli.datastore_view import datastore_lines
from enforcer.model.counted import counted

if TYPE_CHECKING:
    from enforcer.agent.lock import AgentRecord


@dataclass(frozen=True)
class AgentStatus:
    """The agent that runs in this network namespace. ``report``: what it says (:mod:`enforcer.monitor.report`); None if
    it does not answer, with ``problem``.
    """

    record: AgentRecord
    report: Mapping[str, Any] | None
    problem: str = ""


def agent_as_dict(agent: AgentStatus) -> dict[str, Any]:
    return {**asdict(agent.record), "state": agent.report, "silent": agent.problem or None}


def agent_lines(agent: AgentStatus) -> Iterator[str]:
    """What the agent says, for people."""
    yield f"{agent.record} maintains this state"
    report = agent.report
    if report is None:
        yield f"it does not answer, so only the kernel is shown: {agent.problem}"
        return
    yield from datastore_lines(report["datastore"], time.time())
    yield _enforced_line(report)
    yield from _emergency_lines(report.get("emergency"))


def _enforced_line(report: Mapping[str, Any]) -> str:
    if report["enforced"] is None:
        return f"no pass has succeeded since the agent started: {report['problem'] or 'the first one is not over'}"
    if not report["out_of_date_s"]:
        return f"everything that was read is enforced, last checked at {report['enforced']}"
    problem = f": {report['problem']}" if report["problem"] else ""
    return f"out of date for {report['out_of_date_s']:.0f} s, last pass at {report['enforced']}{problem}"


def _emergency_lines(emergency: Mapping[str, Any] | None) -> Iterator[str]:
    """``emergency``: None of an agent of an earlier version, which knows no acts."""
    if not emergency or not emergency["objects"]:
        return
    next_end = f"; the next ends at {emergency['next_end']}" if emergency["next_end"] else ""
    held = f"{counted(emergency['cidrs'], 'CIDR')} in {counted(len(emergency['objects']), 'object')}"
    yield f"emergency acts: {held}{next_end}"
    if emergency["clock"] not in (None, "trusted"):
        yield f"  they may end later: the clock is {emergency['clock']}"
