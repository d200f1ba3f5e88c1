"""Feeds for people and as data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from enforcer.cli.console import line
from enforcer.model.counted import counted

if TYPE_CHECKING:
    from rich.console import Console

    from enforcer.feeds.config import Feed
    from enforcer.feeds.state import FeedState
    from enforcer.feeds.sync import Result


@dataclass(frozen=True)
class Outcome:
    """``result``: None if the datastore, or what is remembered, failed. ``code``: the exit code of this feed alone."""

    feed: str
    result: Result | None
    code: int
    problem: str = ""


def results_as_dict(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {"schema": "enforcer/feed-sync/v1", "feeds": [_outcome_as_dict(item) for item in outcomes]}


def _outcome_as_dict(item: Outcome) -> dict[str, Any]:
    result = item.result
    changes = result.changes if result else None
    return {
        "feed": item.feed,
        "status": str(result.status) if result else "failed",
        "fetched": bool(result and result.fetched),
        "problem": item.problem or None,
        "notes": list(result.notes) if result else [],
        "size": asdict(result.size) if result and result.size else None,
        "created": [each.name for each in changes.create] if changes else [],
        "replaced": [each.name for each in changes.replace] if changes else [],
        "deleted": list(changes.delete) if changes else [],
        "unchanged": changes.unchanged if changes else 0,
        "next": _time(result.next_s) if result and result.next_s else None,
    }


def print_results(outcomes: Sequence[Outcome], console: Console) -> None:
    for item in outcomes:
        console.print(line(f"{item.feed}: {_summary(item)}"))
        for note in item.result.notes if item.result else ():
            console.print(line(f"  {note}"))


def _summary(item: Outcome) -> str:
    result = item.result
    if result is None:
        return f"failed: {item.problem}"
    parts = [str(result.status)]
    if not result.fetched and result.next_s:
        parts = [f"{result.status}, not fetched before {_time(result.next_s)}"]
    if result.size is not None and result.changes is not None:
        parts.append(_size(result))
    if item.problem:
        parts.append(item.problem)
    return "; ".join(parts)


def _size(result: Result) -> str:
    changes, size = result.changes, result.size
    assert changes is not None
    assert size is not None
    done = {"created": len(changes.create), "changed": len(changes.replace), "deleted": len(changes.delete)}
    told = ", ".join(f"{count} {what}" for what, count in done.items() if count) or "none changed"
    counts = ((size.cidrs, "CIDR"), (changes.sets, "set"))
    cidrs, sets = (counted(count, what) for count, what in counts)
    return f"{cidrs} in {sets}, {told}"


def states_as_dict(found: Sequence[tuple[Feed, FeedState]], gone: Sequence[str]) -> dict[str, Any]:
    """``gone``: feeds that are not in feeds.yaml any more."""
    return {
        "schema": "enforcer/feeds/v1",
        "feeds": [
            {
                "feed": feed.name,
                "source": feed.shown_source,
                "status": str(state.status),
                "problem": state.problem or None,
                "unwritten": state.unwritten or None,
                "good": _time(state.good_s) if state.good_s else None,
                "age_s": round(time.time() - state.good_s) if state.good_s else None,
                "attempted": _time(state.attempted_s) if state.attempted_s else None,
                "fetched": _time(state.fetched_s) if state.fetched_s else None,
                "expires": _time(state.expires_s) if state.expires_s else None,
                "sha256": state.sha256 or None,
                "size": asdict(state.size) if state.size else None,
            }
            for feed, state in found
        ],
        "gone": list(gone),
    }


def print_states(found: Sequence[tuple[Feed, FeedState]], gone: Sequence[str], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("feed", "status", "last good", "CIDRs", "source"):
        table.add_column(name, justify="right" if name == "CIDRs" else "left")
    for feed, state in found:
        good = f"{_age(time.time() - state.good_s)} ago" if state.good_s else "never"
        cidrs = f"{state.size.cidrs:,}" if state.size else ""
        table.add_row(feed.name, str(state.status), good, cidrs, feed.shown_source)
    console.print(table)
    for feed, state in found:
        for problem in filter(None, (state.problem, state.unwritten)):
            console.print(line(f"{feed.name}: {problem}"))
    for name in gone:
        console.print(line(f"{name}: not in feeds.yaml any more; its sets stay until 'enforcer feed remove {name}'"))


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _time(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
