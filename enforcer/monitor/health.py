"""Whether the agent is alive and ready, in components, as Felix reports it (``libcalico-go/lib/health``). Pure.

Ready means that policy is enforced: a datastore that is away changes nothing about that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from enforcer.agent.state import View
from enforcer.model.counted import counted
from enforcer.model.printable import printable

LOOP_TIMEOUT_S, PASS_TIMEOUT_S = 30.0, 300.0


@dataclass(frozen=True)
class Component:
    """``live``, ``ready``: None where the component says nothing of it. ``timeout_s`` None: it has none; 0: never."""

    name: str
    live: bool | None
    ready: bool | None
    detail: str
    timeout_s: float | None = None


@dataclass(frozen=True)
class Health:
    components: tuple[Component, ...]

    @property
    def live(self) -> bool:
        return all(item.live is not False for item in self.components)

    @property
    def ready(self) -> bool:
        return all(item.ready is not False for item in self.components)

    def table(self) -> str:
        """The components as a table, in Felix's columns."""
        rows = [("COMPONENT", "TIMEOUT", "LIVENESS", "READINESS", "DETAIL")]
        rows += [
            (
                item.name,
                f"{item.timeout_s:g}s" if item.timeout_s else "-",
                _word(item.live, "live"),
                _word(item.ready, "ready"),
                printable(item.detail),
            )
            for item in self.components
        ]
        return "\n".join(_lines(rows)) + "\n"


def health_of(view: View, timeouts_s: Mapping[str, float], *, now_s: float) -> Health:
    """``timeouts_s``: other timeouts of components; 0 is none. ``now_s``: seconds since 1970."""
    loop_s = timeouts_s.get("event-loop", LOOP_TIMEOUT_S)
    pass_s = timeouts_s.get("pass", PASS_TIMEOUT_S)
    passing_s = view.passing_for_s
    looping = passing_s is not None or not loop_s or view.ticked_ago_s <= loop_s  # a pass has a timeout of its own
    in_time = passing_s is None or not pass_s or passing_s <= pass_s
    return Health(
        (
            Component("datastore", None, None, _datastore(view, now_s)),
            Component("event-loop", looping, None, f"ran {view.ticked_ago_s:.0f} s ago", loop_s),
            Component("pass", in_time, None, _passing(view), pass_s),
            Component("policy", None, view.passed, _policy(view)),
        )
    )


def _datastore(view: View, now_s: float) -> str:
    store = view.store
    if store.connected:
        return f"{store.kind}: connected"
    since = f" for {now_s - store.since:.0f} s" if store.since else ""
    kept = "; the enforced policy stays" if view.passed else ""
    return f"{store.kind}: not connected{since}{kept}" + (f": {store.problem}" if store.problem else "")


def _passing(view: View) -> str:
    return "none runs" if view.passing_for_s is None else f"running for {view.passing_for_s:.0f} s"


def _policy(view: View) -> str:
    if not view.passed:
        return f"no pass of this agent is in force: {view.problem or 'the first one is not over'}"
    interfaces = len(view.plan.interfaces) if view.plan else 0
    parts = [f"enforced on {counted(interfaces, 'interface')}"]
    if view.out_of_date_s:
        parts.append(f"out of date for {view.out_of_date_s:.0f} s" + (f": {view.problem}" if view.problem else ""))
    if view.store.faults:
        parts.append(counted(len(view.store.faults), "fault"))
    return "; ".join(parts)


def _word(value: bool | None, quality: str) -> str:
    return "-" if value is None else f"reporting {quality}" if value else f"reporting non-{quality}"


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    yield rule
    for at, row in enumerate(rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        if at == 0:
            yield rule
    yield rule
