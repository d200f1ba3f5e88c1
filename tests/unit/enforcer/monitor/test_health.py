"""Liveness is about the process, readiness about what is enforced: a table of states."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from enforcer.datastore.base import StoreState
from enforcer.monitor.health import health_of
from tests.unit.enforcer.monitor.views import view

AWAY = StoreState("etcd", "https://a:1", False, 1e9, 1e9 - 60, problem="no endpoint answers")

ROWS = [
    ("all is well", {}, {}, True, True, "enforced on 0 interfaces"),
    ("nothing is enforced yet", {"passed": False, "plan": None}, {}, True, False, "the first one is not over"),
    ("nothing could be enforced", {"passed": False, "problem": "no raw backend"}, {}, True, False, "no raw backend"),
    ("the datastore is away", {"store": AWAY}, {}, True, True,
     "etcd: not connected for 30 s; the enforced policy stays: no endpoint answers"),
    ("it is away at the start", {"store": AWAY, "passed": False}, {}, True, False, "for 30 s: no endpoint answers"),
    ("out of date", {"out_of_date_s": 40.0, "problem": "busy"}, {}, True, True, "out of date for 40 s: busy"),
    ("the loop is late", {"ticked_ago_s": 31.0}, {}, False, True, "ran 31 s ago"),
    ("the loop is just in time", {"ticked_ago_s": 30.0}, {}, True, True, "ran 30 s ago"),
    ("the loop waits for a pass", {"ticked_ago_s": 99.0, "passing_for_s": 99.0}, {}, True, True, "running for 99 s"),
    ("the pass hangs", {"passing_for_s": 301.0}, {}, False, True, "running for 301 s"),
    ("another timeout of the pass", {"passing_for_s": 301.0}, {"pass": 600.0}, True, True, "600s"),
    ("another timeout of the loop", {"ticked_ago_s": 3.0}, {"event-loop": 2.0}, False, True, "| 2s "),
    ("no timeout", {"ticked_ago_s": 1e6}, {"event-loop": 0.0}, True, True, "ran 1000000 s ago"),
    ("a timeout of Felix's own components", {}, {"async_calc_graph": 0.001}, True, True, "files: connected"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "timeouts_s", "live", "ready", "detail"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_health(
    fields: Mapping[str, object], timeouts_s: Mapping[str, float], live: bool, ready: bool, detail: str
) -> None:
    health = health_of(view(**fields), timeouts_s, now_s=1e9 + 30)
    assert (health.live, health.ready) == (live, ready)
    assert detail in health.table()


def test_the_table_escapes_what_a_terminal_would_interpret() -> None:
    table = health_of(
        view(store=StoreState("files", "x", False, 0.0, 0.0, problem="a\x1b[2Jb\nc")), {}, now_s=1e9
    ).table()
    assert "\x1b" not in table
    assert len({len(line) for line in table.splitlines()}) == 1
