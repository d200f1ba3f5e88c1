"""Terminal, JUnit and HTML reports contain the same facts."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from dossim.model.disposition import Fate
from dossim.pipeline.graph import EDGES
from dossim.report.diagram import PLACES, diagram
from dossim.report.html import html
from dossim.report.json import as_dict
from dossim.report.junit import junit
from dossim.report.terminal import print_view
from dossim.report.view import GLOSS, StageRow, View, view_of_scenario
from enforcer.model.choices import ModeChoice, TrackedChoice
from enforcer.model.vocabulary import CtState, Stage
from enforcer.policy.resources import NOWHERE
from tests.unit.dossim.fabricated import scenario_result


@pytest.fixture(scope="module")
def held() -> View:
    return view_of_scenario(scenario_result())


@pytest.fixture(scope="module")
def failed() -> View:
    return view_of_scenario(scenario_result(otherwise={3: (Fate.DELIVERED, None), 5: None}))


@pytest.fixture(scope="module")
def predicted() -> View:
    return view_of_scenario(scenario_result(drill=False))


def printed(view: View) -> str:
    stream = io.StringIO()
    print_view(view, Console(file=stream, width=200))
    return stream.getvalue()


def test_the_verdict_and_the_line_that_dropped(held: View) -> None:
    text = printed(held)
    assert "2,000 packets: predicted == observed" in text
    assert re.search(
        r"2,000 packets blocked, as expected, by gnp/dos-mitigation ingress\[0\] \(\S*how-to\.yaml:36\)", text
    )
    assert re.search(r"driver +2,000 +2,000 +2,000", text)


def test_a_disagreement_is_shown_with_its_evidence(failed: View) -> None:
    text = printed(failed)
    assert "predicted != observed: 1 mismatched, 1 unobserved" in text
    assert "packet 3: a packet <3>" in text
    assert "predicted dropped at driver by gnp/dos-mitigation ingress[0]" in text
    assert "observed  delivered: kfree_skb in nowhere" in text
    assert "observed  unobserved: not freed" in text
    assert "FAILED" in text


def test_a_prediction_never_claims_to_be_more(predicted: View) -> None:
    text = printed(predicted)
    assert "predicted only; nothing was enforced, replayed or observed" in text
    assert "would be blocked by" in text
    assert "observed" not in text.splitlines()[2]
    assert "unknown conntrack entries" in text


def cases(text: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text).iter("testcase"))


def test_junit_counts_what_was_only_predicted_as_skipped(held: View, failed: View, predicted: View) -> None:
    text = junit([("a.scenario.yaml", view) for view in (held, failed, predicted)])
    suite = ElementTree.fromstring(text).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    passed, failing, skipped = cases(text)
    assert passed.find("failure") is None
    assert passed.find("skipped") is None
    failure = failing.find("failure")
    assert failure is not None
    assert failure.text is not None
    assert "packet 3" in failure.text
    assert skipped.find("skipped") is not None


def test_junit_survives_what_xml_cannot_hold(held: View) -> None:
    from dataclasses import replace

    (case,) = cases(junit([("a\x00b.yaml", replace(held, title="bell \x07 <&>"))]))
    assert case.get("name") == "bell \\x07 <&> [native]"


def test_html_is_self_contained(held: View) -> None:
    page = html([held], title="A <drill>")
    assert page.startswith("<!DOCTYPE html>")
    assert "A &lt;drill&gt;" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)|@import|url\(""", page)
    assert "<script" not in page


def test_html_shows_matrix_entries_and_mismatches(failed: View) -> None:
    page = html([failed], title="x")
    assert "Predicted × observed" in page
    assert re.search(r'class="n hit">1,998<', page)
    assert len(re.findall(r'class="n miss">1<', page)) == 2
    assert "how-to.yaml:36" in page
    assert "a packet &lt;3&gt;" in page


def test_html_of_several_begins_with_a_summary(held: View, failed: View, predicted: View) -> None:
    page = html([held, failed, predicted], title="x")
    assert "3 results" in page
    assert page.count('class="card"') == 4
    assert "predicted only" in page


def test_the_matrix_adds_up(failed: View) -> None:
    assert sum(failed.matrix.values()) == failed.packets
    assert failed.matrix[("driver", "delivered")] == 1
    assert failed.matrix[("driver", "unobserved")] == 1
    assert failed.matrix_words == (["driver", "delivered"], ["driver", "delivered", "unobserved"])


def test_every_ending_has_a_gloss_and_a_place() -> None:
    words = {str(stage) for stage in Stage} | {str(Fate.DELIVERED), str(Fate.FORWARDED)}
    assert set(GLOSS) == words
    assert {str(node) for node in PLACES} == words


@pytest.mark.parametrize("stage", ["conntrack", "mangle", "filter-input", "filter-forward"])
def test_the_drawing_shows_what_was_dropped_after_raw(predicted: View, stage: str) -> None:
    drawing = diagram(replace(predicted, stages=(StageRow(stage, 3), StageRow("delivered", 4))))
    assert {box.name: box.dropped for box in drawing.boxes if box.dropped} == {stage: 3}
    assert sum(box.ended for box in drawing.boxes) == 4


def test_the_drawing_counts_what_passed(held: View) -> None:
    drawing = diagram(view_of_scenario(scenario_result("forwarded", ModeChoice.RAW, drill=False)))
    assert len(drawing.lines) == sum(edge.target is not Fate.DROPPED for edge in EDGES)
    boxes = {box.name: box for box in drawing.boxes}
    assert (boxes["raw"].dropped, boxes["raw"].enforcing) == (1000, True)
    assert boxes["forwarded"].ended == 100
    counts = {line.condition: line.packets for line in drawing.lines}
    assert counts["no fragment, or its datagram is complete"] == 1100
    assert counts["for this host"] == 0
    assert counts["for another host, and forwarding is on"] == 100


def test_what_is_left_out_is_said(predicted: View) -> None:
    assert predicted.scope == ""
    partial = replace(predicted, tracked=("gnp/a", "gnp/b"))
    said = "tracked policy gnp/a, gnp/b is not enforced here (--tracked model)"
    assert said in printed(partial)
    assert said in html([partial], title="t")


def test_what_is_wrong_with_a_capture_is_in_every_report(held: View) -> None:
    warning = "x.pcap: record 7 at byte 900 is cut short: needs 60 bytes, 9 are left; the 7 packets before it were read"
    view = replace(held, about=("1 packet (RAW).", warning), warnings=(warning,))
    text, page = printed(view), html([view], title="x")
    for shown in (text, page):
        assert shown.index("1 packet (RAW).") < shown.index(warning) < shown.index(view.verdict)
    assert as_dict(view)["capture"]["warnings"] == [warning]
    (case,) = cases(junit([("a.scenario.yaml", view)]))
    assert [item.get("value") for item in case.iter("property") if item.get("name") == "about"] == list(view.about)


def test_one_packet_is_one_packet(held: View) -> None:
    view = replace(held, packets=1, not_sendable=1, open_reasons=(("not sendable: too long", 1),))
    shown = printed(view) + html([view], title="x")
    assert "1 packet: predicted == observed" in shown
    assert not re.search(r"\b1 (packets|entries|connections)\b", shown)


def test_a_result_without_packets_is_no_agreement(held: View) -> None:
    assert "nothing was shown" in printed(replace(held, packets=0))
    assert 'class="verdict good"' not in html([replace(held, packets=0)], title="x")


def test_a_failure_says_that_it_is_an_expectation_that_failed(held: View) -> None:
    outcomes = tuple(replace(item, holds=item.position == NOWHERE) for item in held.outcomes)
    (case,) = cases(junit([("a.scenario.yaml", replace(held, outcomes=outcomes))]))
    failure = case.find("failure")
    assert failure is not None
    said = r"\d+ expectations? failed; 2,000 packets: predicted == observed"
    assert re.match(said, failure.get("message", ""))
    view = replace(held, outcomes=outcomes)
    assert re.search(said, printed(view))
    assert re.search(f'class="verdict bad">{said}', html([view], title="x"))


def test_what_conntrack_said_of_the_packets_is_shown() -> None:
    states = {3: CtState.INVALID, **dict.fromkeys(range(10, 1500), CtState.NEW)}
    view = view_of_scenario(scenario_result(otherwise={3: (Fate.DELIVERED, None)}, states=states))
    assert "conntrack: 1,490 NEW, 1 INVALID\n" in printed(view)
    page = html([view], title="states")
    assert '<th class="n">NEW</th><th class="n">INVALID</th>' in page
    assert '<td class="n">1,490</td><td class="n">1</td>' in page
    assert "<td>delivered</td><td>INVALID</td>" in page
    dropping = replace(view, conntrack_drops=2000)
    assert "conntrack: 1,490 NEW, 1 INVALID, 2,000 dropped by conntrack itself\n" in printed(dropping)
    assert '<td class="n">2,000</td>' in html([dropping], title="states")


def test_where_nothing_got_past_conntrack_it_said_nothing(held: View, predicted: View) -> None:
    for view in (held, predicted):
        assert "conntrack:" not in printed(view)
        assert "Connection tracking" not in html([view], title="none")


# --- tracked policy ---------------------------------------------------------------------------------------------------

ISN = "the initial sequence number that the host chose for this connection"


@pytest.fixture(scope="module")
def tracked() -> View:
    return view_of_scenario(scenario_result("normal-policy", ModeChoice.RAW))


def test_tracked_entries_and_defaults_are_listed_with_their_stages(tracked: View) -> None:
    rows = {row.entry: row for row in tracked.entries}
    assert list(rows) == [
        "conntrack INVALID ingress",
        "gnp/web ingress[0]",
        "gnp/web ingress[1]",
        "tier/default ingress default",
        "no profile ingress",
        "conntrack INVALID egress",
    ], "what acts only on what the host sends is not listed"
    assert rows["conntrack INVALID ingress"].stages == ("filter-input", "filter-forward")
    assert rows["conntrack INVALID egress"].stages == ("filter-forward",)
    assert rows["gnp/web ingress[0]"].stages == ("filter-input",)
    assert (rows["gnp/web ingress[0]"].predicted, rows["gnp/web ingress[0]"].observed) == (200, 200)
    assert rows["gnp/web ingress[0]"].source.endswith("policies/normal-policy.yaml:20")
    assert rows["no profile ingress"].source.endswith("policies/normal-policy.yaml:2"), "the HostEndpoint"
    assert rows["tier/default ingress default"].source == "", "no Tier resource sets it"
    assert all("tracked policy" in row.reason for row in rows.values())


def test_what_tracked_policy_dropped_is_in_every_report(tracked: View) -> None:
    text, page = printed(tracked), html([tracked], title="t")
    assert re.search(r"200 packets blocked, as expected, by gnp/web ingress\[0\] \(\S+:20\) at filter-input\n", text)
    assert "200 packets blocked, as expected, by tier/default ingress default at filter-input\n" in text
    assert "<td>filter-input, filter-forward</td>" in page
    assert '<span class="soft">a default</span>' in page
    boxes = {box.name: box for box in diagram(tracked).boxes}
    assert (boxes["filter-input"].enforcing, boxes["filter-input"].dropped) == (True, 400)
    assert not boxes["raw"].enforcing


def test_enforced_policy_is_not_called_left_out(tracked: View) -> None:
    assert tracked.tracked == ("gnp/web",)
    assert tracked.scope == ""
    modelled = replace(tracked, tracked_choice=TrackedChoice.MODEL)
    assert modelled.scope == "tracked policy gnp/web is not enforced here (--tracked model)"


def test_several_possible_ends_are_counted_with_the_reason(tracked: View, held: View) -> None:
    open_ended = replace(tracked, several={ISN: 3})
    said = f"3 packets have several possible ends: it depends on {ISN}"
    assert said in printed(open_ended)
    assert said in html([open_ended], title="t")
    (case,) = cases(junit([("a.scenario.yaml", open_ended)]))
    assert [item.get("value") for item in case.iter("property") if item.get("name") == "several_ends"] == ["3"]
    assert "several possible ends" not in printed(held)
