"""The table of goals, computed from figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import xdp_report
from bench.xdp_report import rows, show


def figures(ours: float, trie: float) -> dict[str, Any]:
    def one(above: float) -> dict[str, Any]:
        return {"ns": 150 + above, "above_ns": above, "spread_ns": 1.0, "load_s": 0.1, "test_run": {
            "ns": 30 + above, "above_ns": above - 1, "spread_ns": 1.0}}  # fmt: skip

    return {"parse-only": one(0.0), "ours": one(ours), "lpm-trie": one(trie), "xdp-filter": {"unable": "not here"}}


RESULT: dict[str, Any] = {
    "host": {"kernel": "6.18", "cpu": "some"},
    "pool": {"sources": 65_536, "bytes4": 262_144},
    "rounds": 3,
    "hit": {"100": figures(15, 60), "10000": figures(40, 120)},
    "addresses": {},
    "miss": {"100": figures(2, 60), "10000": figures(11, 120)},
    "hit6": {"100": figures(31, 60)},
    "hit6-clustered": {"100": figures(30, 60)},
    "in-stack": {},
    "entries": {"above_one_entry_ns": 19.0},
    "load": {"cidrs": 1_000_000, "load_s": 0.4, "add_one_ms": 1.2},
    "memory": {"ipv4": 4 << 20, "ipv6": 17 << 20},
}


def reached(result: dict[str, Any]) -> dict[str, bool | None]:
    return {what: found for what, _, _, found in rows(result)}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("miss, above parse-only, the worst of all sizes (live)", False),
        ("miss, above parse-only, the worst of all sizes (test runs)", True),
        ("hit in 100 CIDRs, cheaper than an LPM trie (live)", True),
        ("hit in 10,000 CIDRs, cheaper than an LPM trie (live)", False),
        ("hit in 1,000,000 CIDRs, cheaper than an LPM trie (live)", None),
        ("64 entries with protocols and ports, above one (live)", True),
        ("IPv6 hit to IPv4 hit, 100 CIDRs anywhere (live)", False),
        ("IPv6 hit to IPv4 hit, 100 CIDRs in one /32 (live)", True),
        ("load 1,000,000 CIDRs, call to enforced", True),
        ("add one CIDR to 1,000,000, call to enforced", False),
        ("memory of 100,000 ipv4 CIDRs", True),
        ("memory of 100,000 ipv6 CIDRs", False),
        ("capacity", None),
    ],
)
def test_a_goal_is_reached_not_reached_or_not_measured(what: str, expected: bool | None) -> None:
    assert reached(RESULT)[what] is expected


def test_everything_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(RESULT)
    shown = capsys.readouterr().out
    assert "not here" in shown
    assert "not reached" in shown


def test_it_is_written_as_json_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xdp_report, "RESULTS", tmp_path)
    xdp_report.write(RESULT, "found")
    assert (tmp_path / "found.json").read_text().startswith("{")
