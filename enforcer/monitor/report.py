"""What a running agent says to ``enforcer status``, as JSON data. Pure."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from enforcer.agent.state import View
from enforcer.monitor.settings import Wanted

SCHEMA = "enforcer/agent/v1"


def report_of(view: View, wanted: Wanted | None) -> dict[str, Any]:
    """The state of the agent: times in RFC 3339, those of the datastore in seconds since 1970. ``wanted``: what it
    serves.
    """
    return {
        "schema": SCHEMA,
        "node": view.node,
        "started": _time(view.started_at_s),
        "datastore": asdict(view.store),
        "enforced": _time(view.enforced_at_s),
        "out_of_date_s": round(view.out_of_date_s, 1),
        "problem": view.problem or None,
        "pass_runs_for_s": None if view.passing_for_s is None else round(view.passing_for_s, 1),
        "passes": dict(view.applies),
        "emergency": _emergency(view),
        "metrics": str(wanted.metrics) if wanted and wanted.metrics else None,
        "health": str(wanted.health) if wanted and wanted.health else None,
    }


def _emergency(view: View) -> dict[str, Any]:
    """The acts that the last pass enforced, each with its end."""
    decision = view.emergency
    sizes = {item.name: len(item.nets) for item in view.resources.global_network_sets}
    return {
        "cidrs": decision.cidrs,
        "next_end": _time(decision.next_end_s),
        "clock": str(decision.state) if decision.state else None,
        "ended": sorted(decision.ended),
        "objects": {
            name: {"until": _time(until_s), "cidrs": sizes.get(name, 0)}
            for name, until_s in (decision.until or {}).items()
        },
    }


def _time(at_s: float | None) -> str | None:
    return None if at_s is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
