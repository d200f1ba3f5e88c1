"""Tracked policy that is not enforced (``tracked: model``): what the enforcer does, and what Calico would do."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from dossim.cli.packet_rows import CsvRows
from dossim.drill.results import PredictResult
from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation
from dossim.model.disposition import Fate
from dossim.packet.capture import Capture
from dossim.predict.batches import Decided
from dossim.report.calico import CalicoRow, CalicoView, calico_of
from dossim.report.html import html
from dossim.report.json import as_dict
from dossim.report.junit import junit
from dossim.report.terminal import print_view
from dossim.report.view import View, view_of, view_of_scenario
from dossim.scenario.expect import evaluate
from dossim.scenario.run import ScenarioResult, ScenarioRunner
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import Resources
from tests.support.cut_captures import cut_at
from tests.unit.dossim.fabricated import drilled, scenario
from tests.unit.dossim.pipeline.tracked_support import (
    ALLOW,
    ALLOW_ALL,
    BEYOND,
    HOST,
    TCP,
    UDP,
    endpoint,
    given,
    ingress,
    pre_dnat,
    rule,
    tcp,
    udp,
    untracked,
)

MODEL = TrackedChoice.MODEL
ISN = "the initial sequence number that the host chose for this connection"
# Denies UDP 7 in raw, 8 in mangle and 9 in filter INPUT, and allows the rest; forwards nothing to UDP 10.
POLICY = given(
    untracked("raw", rule(Action.DENY, UDP, 7)),
    pre_dnat("early", rule(Action.DENY, UDP, 8)),
    ingress("normal", rule(Action.DENY, UDP, 9), ALLOW, order=1),
    ingress("forward", rule(Action.DENY, UDP, 10), ALLOW, apply_on_forward=True, order=2),
)
FRAMES = [udp(7), udp(8), udp(9), udp(9, sport=1025), udp(10, destination=BEYOND), udp(11), tcp(port=80)]


def predicted(policy: Resources, frames: Sequence[bytes], tracked: TrackedChoice = MODEL) -> PredictResult:
    situation = Situation(policy, HOST, ModeChoice.RAW, tracked=tracked)
    return predict_capture(Capture.from_frames(frames), situation)


def rows(result: PredictResult) -> list[tuple[str, str, int]]:
    found = calico_of(result)
    assert found is not None
    return [(row.stage, row.entry, row.packets) for row in found.rows]


def test_both_ends_are_predicted_apart() -> None:
    result = predicted(POLICY, FRAMES)
    assert result.prediction.totals() == {"raw": 1, "delivered": 5, "forwarded": 1}
    assert rows(result) == [
        ("mangle", "gnp/early ingress[0]", 1),
        ("filter-input", "gnp/normal ingress[0]", 2),
        ("filter-forward", "gnp/forward ingress[0]", 1),
    ]


def test_calicos_end_is_that_of_the_enforced_policy() -> None:
    modelled, enforced = predicted(POLICY, FRAMES), predicted(POLICY, FRAMES, TrackedChoice.ENFORCE)
    assert modelled.modelled is not None
    calico = modelled.modelled.prediction
    assert calico is not None
    ends = [[str(each.disposition(packet)) for packet in range(len(FRAMES))] for each in (calico, enforced.prediction)]
    assert ends[0] == ends[1]
    assert (enforced.modelled, modelled.tables) == (None, None)


def test_what_raw_drops_is_no_drop_of_tracked_policy() -> None:
    assert rows(predicted(POLICY, [udp(7)])) == []


def test_a_host_endpoint_alone_is_closed_in_calico() -> None:
    assert rows(predicted(given(), [udp(7), tcp(port=22)])) == [("filter-input", "no profile ingress", 1)]
    allowing = given(of=endpoint("allow-all"), profiles=(ALLOW_ALL,))
    assert rows(predicted(allowing, [udp(7), tcp(port=22)])) == []


def test_without_a_host_endpoint_calico_does_nothing() -> None:
    assert predicted(Resources(), FRAMES).modelled is None


def test_several_possible_ends_are_counted() -> None:
    found = calico_of(predicted(given(ingress("web", ALLOW)), [tcp(0x02), tcp(0x10, seq=1_001, ack=5)]))
    assert found is not None
    assert (found.packets, dict(found.several)) == (0, {ISN: 1})
    assert f"  1 packet it may drop or not: it depends on {ISN}" in list(found.lines())


def test_what_only_tracked_policy_leaves_open_is_counted() -> None:
    """The second packet is whole; its state depends on the first, which the capture cut."""
    frames = [tcp(0x02), tcp(0x11, seq=1_001, ack=5)]
    capture = cut_at(frames, [len(frames[0]) - 4, len(frames[1])])
    found = predict_capture(capture, Situation(given(ingress("web", ALLOW)), HOST, ModeChoice.RAW))
    assert [found.prediction.disposition(packet).fate for packet in (0, 1)] == [Fate.UNDETERMINED, Fate.DELIVERED]
    view = calico_of(found)
    assert view is not None
    assert (view.packets, view.undetermined) == (0, 1)
    assert "  1 packet undetermined with it" in list(view.lines())


def test_a_rule_that_nobody_can_evaluate_leaves_the_rest_of_the_prediction() -> None:
    web = ingress("web", replace(rule(Action.ALLOW, TCP, 80), http={"methods": ["GET"]}))
    policy = given(untracked("raw", rule(Action.DENY, UDP, 7)), web)
    result = predicted(policy, FRAMES)
    assert result.prediction.totals() == {"raw": 1, "delivered": 5, "forwarded": 1}
    found = calico_of(result)
    assert found is not None
    assert "gnp/web ingress[0]" in found.why_not
    assert list(found.lines()) == [
        f"what Calico would drop after conntrack (tracked: model: not enforced here, not verified) is unknown: "
        f"{found.why_not}"
    ]
    assert found.as_dict()["why_not"] == found.why_not
    with pytest.raises(UnsupportedRuleError):
        predicted(policy, FRAMES, TrackedChoice.ENFORCE)


def as_csv(result: PredictResult, path: Path) -> list[dict[str, str]]:
    later = result.modelled.prediction if result.modelled else None
    rows = CsvRows(str(path))
    rows.start()
    rows.see(Decided(result.capture, result.prediction, later))
    rows.finish()
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_csv_has_both_ends_of_each_packet(tmp_path: Path) -> None:
    table = as_csv(predicted(POLICY, FRAMES), tmp_path / "rows")
    assert [(row["fate"], row["stage"]) for row in table[:3]] == [
        ("dropped", "raw"),
        ("delivered", ""),
        ("delivered", ""),
    ]
    names = ("calico_fate", "calico_stage", "calico_entry")
    assert [tuple(row[name] for name in names) for row in table[:3]] == [
        ("dropped", "raw", "gnp/raw ingress[0]"),
        ("dropped", "mangle", "gnp/early ingress[0]"),
        ("dropped", "filter-input", "gnp/normal ingress[0]"),
    ]
    enforced = as_csv(predicted(POLICY, FRAMES, TrackedChoice.ENFORCE), tmp_path / "rows")
    assert {row[name] for row in enforced for name in names} == {""}


# -- reports -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drill() -> View:
    """A drill of the scenario of normal policy, which the enforcer does not enforce: everything is delivered."""
    runner = ScenarioRunner(replace(scenario("normal-policy"), tracked=TrackedChoice.MODEL, expect=()))
    result = drilled(runner.predict(ModeChoice.RAW).result)
    outcomes = evaluate(runner.scenario, ModeChoice.RAW, runner.traffic, result)
    return view_of_scenario(ScenarioResult(runner.scenario, ModeChoice.RAW, runner.traffic, result, outcomes))


def test_a_drill_judges_what_is_enforced_alone(drill: View) -> None:
    assert (drill.matched, drill.mismatched, drill.holds) == (650, 0, True)
    assert [(row.word, row.predicted) for row in drill.stages] == [("delivered", 650)]
    assert drill.entries == ()
    assert drill.calico is not None
    assert drill.calico.stages == {"filter-input": 400}


def test_every_report_tells_them_apart(drill: View) -> None:
    sentence = "Calico would drop 400 packets after conntrack (tracked: model: not enforced here, not verified)"
    console = Console(width=200)
    with console.capture() as capture:
        print_view(drill, console)
    said = capture.get().splitlines()
    at = said.index(sentence)
    assert said[at - 1] == "tracked policy gnp/web is not enforced here (--tracked model)"
    assert said[at + 1].startswith("  200 packets at filter-input by gnp/web ingress[0] (")
    assert said[at + 1].endswith("policies/normal-policy.yaml:20)")
    assert said[at + 2] == "  200 packets at filter-input by tier/default ingress default"
    page = html([drill], title="t")
    assert "<h3>What Calico would drop</h3>" in page
    assert sentence in page
    assert "<code>gnp/web ingress[0]</code>" in page
    properties = ElementTree.fromstring(junit([("a.scenario.yaml", drill)])).iter("property")
    assert [item.get("value") for item in properties if item.get("name") == "calico"] == [sentence]


def test_json_has_what_calico_would_drop_and_that_nothing_verified_it(drill: View) -> None:
    found = json.loads(json.dumps(as_dict(drill)))
    assert (found["stages"].keys(), found["entries"]) == ({"delivered"}, [])
    calico = found["calico"]
    assert (calico["packets"], calico["stages"], calico["verified"]) == (400, {"filter-input": 400}, False)
    assert [(row["entry"], row["stage"], row["predicted"]) for row in calico["entries"]] == [
        ("gnp/web ingress[0]", "filter-input", 200),
        ("tier/default ingress default", "filter-input", 200),
    ]


def test_where_it_is_enforced_no_report_has_such_a_section() -> None:
    view = view_of(predicted(POLICY, FRAMES, TrackedChoice.ENFORCE))
    assert as_dict(view)["calico"] is None
    assert "What Calico would drop" not in html([view], title="t")


def test_a_packet_that_is_too_short_is_dropped_by_no_entry() -> None:
    short = CalicoRow("filter-input", "", "", "too short for a rule that matches on ports or ICMP type", 1)
    assert str(short) == "1 packet at filter-input (too short for a rule that matches on ports or ICMP type)"
    assert CalicoView((short,)).as_dict()["entries"][0]["entry"] is None
