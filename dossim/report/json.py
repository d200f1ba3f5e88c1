"""JSON for machines: ``dossim/predict/v1``, ``dossim/drill/v1``, and ``dossim/run/v1`` around them.

Within a version fields may be added, but none is removed or changes its meaning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dossim.exhaustion import words
from dossim.model.disposition import Disposition
from dossim.report.view import EntryRow, View
from dossim.verify import Mismatch
from enforcer.model.printable import printable_json

if TYPE_CHECKING:  # a prediction has no scenario, and needs no Scapy
    from dossim.scenario.expect import Outcome

PREDICT = "dossim/predict/v1"
DRILL = "dossim/drill/v1"
RUN = "dossim/run/v1"


def dumps(data: Any) -> str:
    """The text that files and stdout get."""
    return printable_json(json.dumps(data, indent=2, ensure_ascii=False)) + "\n"


def as_dict(view: View) -> dict[str, Any]:
    """A prediction or a drill."""
    capture = {
        "path": view.capture,
        "sha256": view.sha256,
        "packets": view.packets,
        "warnings": list(view.warnings),
    }
    if not view.drilled:
        return {
            "schema": PREDICT,
            "capture": capture,
            "host": {"interface": view.interface, "mode": view.mode},
            "about": list(view.about),
            **_sample(view),
            **_open(view),
            "stages": {row.word: {"predicted": row.predicted} for row in view.stages},
            "entries": [_entry(row, observed=False) for row in view.entries],
            "tracked": list(view.tracked),
            "tracked_choice": str(view.tracked_choice),
            "calico": view.calico and view.calico.as_dict(),
            **_outlook(view),
            "timings_s": dict(view.timings_s),
        }
    return {
        "schema": DRILL,
        "capture": capture,
        "host": {"kernel": view.kernel, "interface": view.interface, "driver": view.driver, "mode": view.mode},
        "about": list(view.about),
        **_open(view),
        "matched": view.matched,
        "mismatched": view.mismatched,
        "unobserved": view.unobserved,
        "unpredicted": view.unpredicted,
        "busy": view.busy or None,
        "stages": {
            row.word: {"predicted": row.predicted, "observed": row.observed, "matched": row.matched}
            for row in view.stages
        },
        "states": {str(state): count for state, count in view.states.items()} | _compared_states(view),
        "entries": [_entry(row, observed=True) for row in view.entries],
        "tracked": list(view.tracked),
        "tracked_choice": str(view.tracked_choice),
        "calico": view.calico and view.calico.as_dict(),
        "mismatches": [_mismatch(item) for item in view.mismatches],
        "conntrack_entries": view.conntrack_entries,
        "conntrack_drops": view.conntrack_drops,
        "conntrack_full": view.full_table or None,
        "timings_s": dict(view.timings_s),
    }


def run_as_dict(items: Sequence[tuple[str, View]]) -> dict[str, Any]:
    """A run of scenarios: (path, view) for each scenario and mode."""
    return {
        "schema": RUN,
        "holds": all(view.holds for _, view in items),
        "items": [
            {
                "scenario": view.title,
                "path": path,
                "mode": view.choice,
                "drilled": view.drilled,
                "holds": view.holds,
                "outcomes": [_outcome(outcome) for outcome in view.outcomes],
                "result": as_dict(view),
            }
            for path, view in items
        ],
    }


def _open(view: View) -> dict[str, Any]:
    """How many packets there are, and how many have no fate to compare with a kernel's; ``skipped`` ones are in
    neither. ``sets``: those with several possible ends.
    """
    return {
        "packets": view.packets,
        "undetermined": view.undetermined,
        "not_sendable": view.not_sendable,
        "skipped": dict(view.skipped),
        "open": [{"reason": reason, "packets": count} for reason, count in view.open_reasons],
        "sets": {"packets": view.several_ends, "reasons": dict(view.several)},
    }


def _sample(view: View) -> dict[str, Any]:
    """The key ``sample`` where not all packets were predicted: so many ``of`` all, by ``seed``."""
    found = view.sample
    return {} if found is None else {"sample": {"packets": found.packets, "of": found.offered, "seed": found.seed}}


def _outlook(view: View) -> dict[str, Any]:
    """The key ``conntrack`` where the connection tracking table was looked at."""
    return {} if view.outlook is None else {"conntrack": words.as_dict(view.outlook)}


def _entry(row: EntryRow, *, observed: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"entry": row.entry, "source": row.source, "predicted": row.predicted}
    found |= {"action": row.action, "stages": list(row.stages)}
    return found | ({"observed": row.observed} if observed else {})


def _mismatch(item: Mismatch) -> dict[str, Any]:
    observed = {"fate": None, "stage": None} if item.observed is None else _ending(item.observed)
    return {
        "packet": item.packet,
        "record": item.record,
        "summary": item.summary,
        "differs_in": "state" if item.is_state else "end",
        "predicted": _ending(item.predicted) | {"entry": item.predicted.entry} | _possible(item),
        "observed": observed | {"evidence": item.evidence} | _seen(item),
    }


def _compared_states(view: View) -> dict[str, int]:
    """Packets that ended as predicted, by whether conntrack said of them what was predicted; of the matched ones
    ``several`` may have had another state as well.
    """
    found = view.compared_states
    return {"matched": found.matched, "differing": found.differing, "several": found.several}


def _possible(item: Mismatch) -> dict[str, Any]:
    """What conntrack was predicted to say of the packet, where it is known."""
    if item.possible is None:
        return {}
    return {"states": [str(state) for state in item.possible.states], "states_reason": item.possible.reason}


def _seen(item: Mismatch) -> dict[str, Any]:
    """What conntrack said of the packet and its mark, where there is any."""
    state = {} if item.state is None else {"state": str(item.state)}
    return state | ({"mark": item.mark} if item.mark else {})


def _ending(disposition: Disposition) -> dict[str, str | None]:
    return {"fate": str(disposition.fate), "stage": disposition.stage and str(disposition.stage)}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "expectation": outcome.expectation,
        "holds": outcome.holds,
        "found": outcome.found,
        "line": outcome.position.line or None,
        "packets": list(outcome.packets),
    }
