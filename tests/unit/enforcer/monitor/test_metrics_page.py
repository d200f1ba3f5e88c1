"""The metrics as Prometheus sees them: docs/metrics.md, the dashboard and the alerts agree with what is served."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from enforcer.agent.state import Histogram
from enforcer.backends.base import EntryCount
from enforcer.datastore.base import StoreState
from enforcer.datastore.report import ERRORS, EVENTS, RESYNCS, StoreCounts
from enforcer.emergency.expiry import ClockState, Decision
from enforcer.feeds import metrics as feed_metrics
from enforcer.model.vocabulary import Action, Backend, Direction, Mode, Stage
from enforcer.monitor.collector import FALLBACKS, KINDS, SETS_MAX
from enforcer.monitor.counters import INTERFACES_MAX, POLICIES_MAX, CounterReader
from enforcer.monitor.exposition import renderer
from enforcer.planning.plan import InterfacePlan, Plan, PlannedEntry
from enforcer.policy.load import load_text
from enforcer.policy.ruletable import Entry, RuleTable
from tests.unit.enforcer.monitor.views import view

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
DASHBOARD = json.loads((ROOT / "packaging" / "monitoring" / "dashboard.json").read_text())
RULES = ROOT / "packaging" / "monitoring" / "alerts.yaml"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing (Debian: prometheus; or $PROMTOOL)")

DENY, ALLOW, LATE = (
    Entry(f"gnp/dos ingress[{at}]", action, policy="dos")
    for at, action in enumerate((Action.DENY, Action.ALLOW, Action.DENY))
)
EGRESS = Entry("gnp/dos egress[0]", Action.DENY, policy="dos", direction=Direction.EGRESS)
SET = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: bots}, spec: {nets: [192.0.2.0/24]}}"


def plan(name: str, mode: Mode | None, *stages: Stage) -> InterfacePlan:
    planned = tuple(PlannedEntry(entry, stage) for entry, stage in zip((DENY, ALLOW, LATE), stages, strict=True))
    table = RuleTable(name, "e", (DENY, ALLOW, LATE), (EGRESS,))
    return InterfacePlan(
        table, mode, Backend.IPTABLES, (*planned, PlannedEntry(EGRESS, Stage.RAW)), held=2 if mode else 0
    )


PLANS = (
    plan("eth0", Mode.NATIVE, Stage.DRIVER, Stage.RAW, Stage.RAW),
    plan("eth1", None, Stage.RAW, Stage.RAW, Stage.RAW),
)
FULL = view(
    plan=Plan("jasper", PLANS),
    ranges={4: 3},
    resources=load_text(SET),
    store=StoreState(
        "etcd", "https://a:1", True, 1e9, 1e9, revision="42",
        kept=("GlobalNetworkSet bots", "NetworkSet shop/bots"), left_out=("HostEndpoint x", "/etc/enforcer/a.yaml"),
    ),
    counts=StoreCounts(
        {(kind, event): 3 for kind in KINDS for event in EVENTS},
        dict.fromkeys(RESYNCS, 1), dict.fromkeys(ERRORS, 2),
    ),
    apply_s=Histogram().with_value(0.2).with_value(99.0),
    losses={"bpf": 1, "xtables": 0, "nf_tables": 0},
    emergency=Decision(state=ClockState.BEHIND, until={"enforcer-deny-1": 2_000_000_000, "b": None}, cidrs=5),
)  # fmt: skip
COUNTS = [
    EntryCount(name, entry.name, stage, 7, 700)
    for name, stage in (("eth0", Stage.DRIVER), ("eth0", Stage.RAW), ("eth1", Stage.RAW))
    for entry in (DENY, ALLOW, LATE)
]


def exposed(entries: bool = True, **fields: object) -> str:
    """The whole exposition of an agent for which every metric has a value."""
    shown = view(**{**vars(FULL), **fields})
    return renderer(lambda: shown, CounterReader(lambda: COUNTS, entries=entries), process=False)("", "")[0].decode()


def families(text: str) -> dict[str, Metric]:
    """By the name that queries use."""
    return {
        f"{item.name}_total" if item.type == "counter" else item.name: item
        for item in text_string_to_metric_families(text)
    }


def labels_of(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} - {"le"}


def value(text: str, name: str, **labels: str) -> float:
    (found,) = (
        sample.value for family in families(text).values() for sample in family.samples
        if sample.name == name and sample.labels == labels
    )  # fmt: skip
    return float(found)


# --- what is served ---------------------------------------------------------------------------------------------------


def test_the_page_has_each_metric_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `(enforcer_\w+)` \| (\w+) \|([^|]*)\|", PAGE, re.MULTILINE)
    described = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert described == {name: (item.type, labels_of(item)) for name, item in families(exposed()).items()}


def test_drops_and_passes_are_told_apart() -> None:
    text = exposed()
    assert value(text, "enforcer_dropped_packets_total", interface="eth0", stage="driver", policy="dos") == 14
    assert value(text, "enforcer_dropped_bytes_total", interface="eth0", stage="driver", policy="dos") == 1400
    assert (
        value(text, "enforcer_passed_packets_total", interface="eth0", stage="raw", policy="dos", action="Allow") == 7
    )
    assert "enforcer_entry_packets" not in exposed(entries=False)


@pytest.mark.parametrize(
    ("interface", "counts"),
    [("eth0", (0, 1, 1, 1)), ("eth1", (3, 0, 0, 1))],
    ids=["with XDP", "without"],
)
def test_why_entries_are_in_raw_only(interface: str, counts: tuple[int, ...]) -> None:
    text = exposed()
    found = [
        value(text, "enforcer_interface_fallback_entries", interface=interface, reason=reason) for reason in FALLBACKS
    ]
    assert tuple(found) == counts


def test_faults_are_counted_by_kind_and_what_has_no_kind_is_a_file() -> None:
    text = exposed()
    assert value(text, "enforcer_policy_faults", kind="NetworkSet", outcome="kept") == 1
    assert value(text, "enforcer_policy_faults", kind="file", outcome="left-out") == 1
    assert value(text, "enforcer_policy_faults", kind="Tier", outcome="kept") == 0


def test_a_histogram_is_cumulative() -> None:
    text = exposed()
    buckets = [
        value(text, "enforcer_apply_duration_seconds_bucket", le=bound) for bound in ("0.1", "0.3", "30.0", "+Inf")
    ]
    assert buckets == [0, 1, 1, 2]
    assert value(text, "enforcer_apply_duration_seconds_sum") == pytest.approx(99.2)


def test_before_the_first_pass_what_is_not_known_is_absent() -> None:
    text = exposed(plan=None, passed=False, enforced_at_s=None, store=StoreState("files", "x", False, 0.0, 0.0))
    for name in ("dropped_packets_total{", "last_apply_success", "counters_age", "last_contact", "datastore_revision"):
        assert not re.search(rf"^enforcer_{name}", text, re.MULTILINE), name


def test_ranges_are_served_for_both_families() -> None:
    text = exposed()
    assert value(text, "enforcer_table_ranges", family="ipv4") == 3
    assert value(text, "enforcer_table_ranges", family="ipv6") == 0


def test_the_series_of_a_large_host_are_bounded() -> None:
    plans = tuple(plan(f"eth{at}", None, Stage.RAW, Stage.RAW, Stage.RAW) for at in range(200))
    many = "\n---\n".join(SET.replace("bots", f"bots-{at}") for at in range(600))
    text = exposed(plan=Plan("jasper", plans), resources=load_text(many))
    assert len(re.findall(r"^enforcer_set_cidrs{", text, re.MULTILINE)) == SETS_MAX + 1
    assert value(text, "enforcer_set_cidrs", set="other") == 100
    assert len(re.findall(r"^enforcer_interface_stage{", text, re.MULTILINE)) == 5 * (INTERFACES_MAX + 1)
    assert value(text, "enforcer_interface_stage", interface="other", stage="raw") == 200 - INTERFACES_MAX
    assert POLICIES_MAX == 50


@needs_promtool
@pytest.mark.parametrize("entries", [True, False])
def test_prometheus_finds_nothing_wrong(entries: bool) -> None:
    done = promtool("check", "metrics", text=exposed(entries))
    assert (done.returncode, done.stderr) == (0, "")


def promtool(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    assert PROMTOOL
    return subprocess.run([PROMTOOL, *words], input=text, capture_output=True, text=True, check=False, timeout=60)


# --- alerts -----------------------------------------------------------------------------------------------------------


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\benforcer_\w+", expression))


def known() -> set[str]:
    """Every name that a query may use."""
    found = families(exposed())
    parts = {
        f"{name}_{part}"
        for name, item in found.items()
        if item.type == "histogram"
        for part in ("bucket", "sum", "count")
    }
    return found.keys() | parts | feed_metrics.METRICS.keys()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_is_on_metrics_that_exist_and_on_the_page(rule: dict[str, Any]) -> None:
    assert metrics_in(rule["expr"]) <= known()
    assert f"| {rule['alert']} |" in PAGE
    assert rule["labels"]["severity"] in ("critical", "warning")


@needs_promtool
def test_prometheus_accepts_the_alerts() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


# Of each alert: series (promtool's notation, a value a minute), when it fires, and series for which it does not.
AT = 'job="enforcer", instance="a"'
INFO, SUCCESS = f"enforcer_info{{{AT}}}", f"enforcer_last_apply_success_timestamp_seconds{{{AT}}}"
UP, STAGE = f"up{{{AT}}}", f'enforcer_interface_stage{{{AT}, interface="eth0", stage="driver"}}'
FAULTS = f'enforcer_policy_faults{{{AT}, kind="GlobalNetworkSet", outcome="kept"}}'
FAILED, LOST = f'enforcer_applies_total{{{AT}, result="failed"}}', f'enforcer_foreign_changes_total{{{AT}, part="bpf"}}'
CONNECTED, AGE = f"enforcer_datastore_connected{{{AT}}}", f"enforcer_out_of_date_seconds{{{AT}}}"
RESYNCED = f'enforcer_datastore_resyncs_total{{{AT}, reason="compacted"}}'
NEXT_END = f"enforcer_emergency_next_expiry_timestamp_seconds{{{AT}}}"
DROPPED = f'enforcer_dropped_packets_total{{{AT}, interface="eth0", stage="raw", policy="dos"}}'
TRUSTED = f"enforcer_emergency_clock_trusted{{{AT}}}"
CONFIRMED = f'enforcer_feed_last_success_timestamp_seconds{{{AT}, feed="drop"}}'
HELD = f'enforcer_feed_held{{{AT}, feed="drop"}}'
CASES: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
    "EnforcerOutOfDate": ({AGE: "0 31 91 151"}, "1m", {AGE: "0 29 29 29"}),
    "EnforcerNotEnforcing": ({INFO: "1 1 1 1"}, "3m", {INFO: "1 1 1 1", SUCCESS: "5 5 5 5"}),
    "EnforcerDown": ({INFO: "1 1 stale", UP: "1 1 0x9"}, "8m", {UP: "0x9"}),
    "EnforcerFellToRaw": ({STAGE: "1 1 0x9"}, "6m", {STAGE: "0x9"}),
    "EnforcerFault": ({FAULTS: "0 1x9"}, "8m", {FAULTS: "0 1 1 0x9"}),
    "EnforcerPassesFail": ({FAILED: "0 2 4 6 8"}, "4m", {FAILED: "0 1 1 1 1"}),
    "EnforcerDatastoreAway": ({CONNECTED: "1 0x9"}, "8m", {CONNECTED: "1 0 0 1x9"}),
    "EnforcerListsAgain": ({RESYNCED: "0 10 20 30 40"}, "4m", {RESYNCED: "0 1 2 3 4"}),
    "EnforcerEmergencyEndsSoon": (
        {NEXT_END: "1200x9", DROPPED: "0+90000x9"},
        "9m",
        {NEXT_END: "1200x9", DROPPED: "0+6000x9"},
    ),
    "EnforcerClockNotTrusted": ({TRUSTED: "1 0x18"}, "18m", {TRUSTED: "1 0 0 1x15"}),
    "EnforcerFeedOld": ({CONFIRMED: "0x2900"}, "48h18m", {CONFIRMED: "0x1440 86400x1460"}),
    "EnforcerFeedHeld": ({HELD: "0 1 1"}, "2m", {HELD: "1 0 0"}),
    "EnforcerUndone": ({LOST: "0 5 10 15 20"}, "4m", {LOST: "0 1 2 2 2"}),
}


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path) -> None:
    assert CASES.keys() == {rule["alert"] for rule in rules()}
    tests = []
    for name, (firing, at, quiet) in CASES.items():
        for series, expected in ((firing, True), (quiet, False)):
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [{"series": key, "values": values} for key, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                            "eval_time": at,
                            "exp_samples": [{"labels": "{}", "value": 1}] if expected else [],
                        }
                    ],
                }
            )
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


# --- the dashboard ----------------------------------------------------------------------------------------------------


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_grafanas_own_model_knows_every_field_of_the_dashboard() -> None:
    """Read into the types that Grafana generates from its schema, and written again: nothing may be lost."""
    if sys.version_info < (3, 11):
        pytest.skip("grafana-foundation-sdk needs Python 3.11")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    written = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert not list(lost(DASHBOARD, written))


def lost(given: object, written: object, where: str = "") -> Iterator[str]:
    if isinstance(given, dict) and isinstance(written, dict):
        for name, item in given.items():
            yield from lost(item, written[name], f"{where}/{name}") if name in written else (f"{where}/{name}",)
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for at, (one, other) in enumerate(zip(given, written, strict=True)):
            yield from lost(one, other, f"{where}[{at}]")
    elif given != written:
        yield f"{where}: {given!r}, written as {written!r}"


def test_its_panels_have_their_own_numbers_and_places() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for item in (panel["gridPos"] for panel in panels)
        for x in range(item["x"], item["x"] + item["w"])
        for y in range(item["y"], item["y"] + item["h"])
    ]
    assert len(places) == len(set(places))
    assert all(x < 24 for x, _ in places)


def test_its_queries_are_on_metrics_and_labels_that_exist() -> None:
    found = families(exposed())
    labels = {"job", "instance", "le", "feed"} | {label for item in found.values() for label in labels_of(item)}
    for expression in expressions():
        assert metrics_in(expression) <= known(), expression
        used = re.findall(r"(\w+)(?:=~|=|!=)\"", expression)
        used += [name for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for name in group.split(", ")]
        assert set(used) <= labels, expression


def test_it_shows_every_metric() -> None:
    left_out = {"enforcer_entry_packets_total", "enforcer_counters_age_seconds", "enforcer_counters_read_errors_total"}
    left_out |= {"enforcer_datastore_last_contact_timestamp_seconds", "enforcer_datastore_events_total"}
    left_out |= {"enforcer_interface_entries"}
    left_out |= {"enforcer_feed_last_attempt_timestamp_seconds", "enforcer_feed_expires_timestamp_seconds"}
    shown = {re.sub(r"_bucket$", "", name) for expression in expressions() for name in metrics_in(expression)}
    assert shown == (families(exposed()).keys() | feed_metrics.METRICS.keys()) - left_out


@needs_promtool
def test_prometheus_can_parse_its_queries(tmp_path: Path) -> None:
    queries = [text.replace("$__rate_interval", "5m") for text in expressions()]
    rules = [{"record": f"panel:{at}", "expr": text} for at, text in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
