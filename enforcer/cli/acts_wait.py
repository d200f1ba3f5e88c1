"""Waits until the agent on this host enforces acts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from enforcer.emergency.act import Act
from enforcer.emergency.times import written
from enforcer.model.errors import EnforcerError

_WITHIN_S = 60.0
_EACH_S = 0.1


def wait_for(acts: Sequence[Act], gone: Sequence[str] = ()) -> str:
    """Why it is not known that the agent enforces these acts as they are, and not those that are ``gone``; "" once it
    does.
    """
    from enforcer.monitor.status_socket import ask

    until_s = time.monotonic() + _WITHIN_S
    while True:
        try:
            report = ask()
        except EnforcerError as error:
            return f"no agent answers: {error}"
        if "emergency" not in report:
            return "the agent is of an earlier version; restart it"
        held = report["emergency"]["objects"]
        if all(_is_there(held, act) for act in acts) and not any(name in held for name in gone):
            return ""
        if time.monotonic() >= until_s:
            return str(report["problem"] or report["datastore"]["problem"] or "the agent has not read it yet")
        time.sleep(_EACH_S)


def _is_there(held: Mapping[str, Any], act: Act) -> bool:
    found = held.get(act.name)
    until = None if act.until_s is None else written(act.until_s)
    return found is not None and (found["until"], found["cidrs"]) == (until, len(act.nets))
