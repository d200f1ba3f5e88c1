"""The state of an agent's datastore for people."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

_MOST = 20  # faults that are listed; JSON has all


def datastore_lines(state: Mapping[str, Any], now_s: float) -> Iterator[str]:
    """Whether it is followed, and up to which revision; then each fault, and what keeps an older version.

    ``state``: the fields of ``datastore.base.StoreState``.
    """
    where = f"datastore {state['kind']} ({state['where']})"
    since = _time(state["since"])
    held = ", ".join(filter(None, (f"{state['objects']:,} objects", _revision(state), _contact(state, now_s))))
    if state["connected"]:
        yield f"{where}: followed since {since}; {held}"
    else:
        problem = state["problem"] or "no answer yet"
        yield f"{where}: not followed since {since}: {problem}"
        yield f"  what is enforced stays: {held}"
    for fault in state["faults"][:_MOST]:
        yield f"  {fault['object']}: {fault['message']} (since {_time(fault['since'])}; {fault['outcome']})"
    if (rest := len(state["faults"]) - _MOST) > 0:
        yield f"  and {rest} more faults; -o json has all"
    for names, what in ((state["kept"], "at an older version"), (state["left_out"], "left out")):
        if names:
            more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
            yield f"  {what}: {', '.join(names[:_MOST])}{more}"


def _revision(state: Mapping[str, Any]) -> str:
    return f"revision {state['revision']}" if state["revision"] else ""


def _contact(state: Mapping[str, Any], now_s: float) -> str:
    return f"last answer {max(0, round(now_s - state['contact']))} s ago" if state["contact"] else "never answered"


def _time(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
