"""JSON: the documented fields, and only valid JSON values."""

from __future__ import annotations

import json
from dataclasses import replace

from dossim.model.disposition import Fate
from dossim.report.json import as_dict, dumps, run_as_dict
from dossim.report.view import view_of_scenario
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import CtState, Stage
from tests.unit.dossim.fabricated import scenario_result


def test_a_drill_has_the_fields_of_the_contract() -> None:
    result = as_dict(view_of_scenario(scenario_result()))
    assert result["schema"] == "dossim/drill/v1"
    assert set(result["capture"]) == {"path", "sha256", "packets", "warnings"}
    assert result["host"] == {"kernel": "6.18.0", "interface": "eth0", "driver": "veth", "mode": "native"}
    assert (result["packets"], result["matched"], result["mismatched"]) == (2000, 2000, 0)
    assert (result["unobserved"], result["unpredicted"]) == (0, 0)
    assert result["stages"] == {"driver": {"predicted": 2000, "observed": 2000, "matched": 2000}}
    (entry,) = result["entries"]
    assert entry["entry"] == "gnp/dos-mitigation ingress[0]"
    assert entry["source"].endswith("scenarios/policies/how-to.yaml:36")
    assert (entry["predicted"], entry["observed"]) == (2000, 2000)
    assert result["mismatches"] == []
    assert "predict" in result["timings_s"]


def test_a_prediction_is_the_same_without_the_observed_half() -> None:
    result = as_dict(view_of_scenario(scenario_result(drill=False)))
    assert result["schema"] == "dossim/predict/v1"
    assert result["stages"] == {"driver": {"predicted": 2000}}
    assert not {"matched", "mismatched", "unobserved", "mismatches"} & set(result)
    assert "observed" not in result["entries"][0]


def test_a_mismatch_says_both_sides_and_the_evidence() -> None:
    view = view_of_scenario(scenario_result(otherwise={3: (Fate.DELIVERED, None), 5: None}))
    result = as_dict(view)
    assert (result["matched"], result["mismatched"], result["unobserved"]) == (1998, 1, 1)
    assert result["matched"] + result["mismatched"] + result["unobserved"] == result["packets"]
    wrong, lost = result["mismatches"]
    assert wrong["packet"] == 3
    assert wrong["predicted"] == {"fate": "dropped", "stage": "driver", "entry": "gnp/dos-mitigation ingress[0]"}
    assert (wrong["observed"]["fate"], wrong["observed"]["stage"]) == ("delivered", None)
    assert lost["observed"] == {"fate": None, "stage": None, "evidence": "not freed; no checkpoint"}


def test_what_conntrack_said_is_counted_and_stands_beside_each_mismatch() -> None:
    states = {3: CtState.NEW, 4: CtState.NEW, 6: CtState.UNTRACKED}
    otherwise = {3: (Fate.DELIVERED, None), 5: (Fate.DROPPED, Stage.IP_INPUT)}
    result = as_dict(view_of_scenario(scenario_result(otherwise=otherwise, states=states)))
    assert result["states"] == {"NEW": 2, "UNTRACKED": 1, "matched": 0, "differing": 0, "several": 0}
    assert result["conntrack_drops"] == 0
    past, before = (item["observed"] for item in result["mismatches"])
    assert past["state"] == "NEW"
    assert past["evidence"].endswith(", ctstate NEW")
    assert not {"state", "mark"} & set(before), "it did not get past conntrack, and had no mark"


def test_a_mark_is_a_number() -> None:
    view = view_of_scenario(scenario_result(otherwise={3: (Fate.DELIVERED, None)}))
    (wrong,) = view.mismatches
    (shown,) = as_dict(replace(view, mismatches=(replace(wrong, mark=0x20000),)))["mismatches"]
    assert shown["observed"]["mark"] == 0x20000


def test_a_run_reports_what_held_and_what_could_not_be_evaluated() -> None:
    views = [view_of_scenario(scenario_result()), view_of_scenario(scenario_result(drill=False))]
    run = json.loads(dumps(run_as_dict([("a.scenario.yaml", view) for view in views])))
    assert run["schema"] == "dossim/run/v1"
    assert run["holds"] is True
    drill, prediction = run["items"]
    assert (drill["drilled"], prediction["drilled"]) == (True, False)
    assert [outcome["holds"] for outcome in prediction["outcomes"]] == [True, True, None]
    assert prediction["result"]["schema"] == "dossim/predict/v1"


def test_tracked_policy_adds_its_entries_and_says_whether_it_is_enforced() -> None:
    result = as_dict(view_of_scenario(scenario_result("normal-policy", ModeChoice.RAW)))
    assert (result["tracked"], result["tracked_choice"]) == (["gnp/web"], "enforce")
    entries = {item["entry"]: item for item in result["entries"]}
    default = entries["tier/default ingress default"]
    assert (default["action"], default["stages"], default["source"]) == ("Deny", ["filter-input"], "")
    assert (default["predicted"], default["observed"]) == (200, 200)


def test_without_it_nothing_of_a_result_changes_its_meaning() -> None:
    result = as_dict(view_of_scenario(scenario_result()))
    assert (result["tracked"], result["tracked_choice"]) == ([], "model")
    assert [(item["action"], item["stages"]) for item in result["entries"]] == [("Deny", ["driver"])]
    assert result["sets"] == {"packets": 0, "reasons": {}}


def test_several_possible_ends_are_counted_by_what_decides() -> None:
    view = replace(view_of_scenario(scenario_result(drill=False)), several={"a number": 2, "another": 1})
    assert as_dict(view)["sets"] == {"packets": 3, "reasons": {"a number": 2, "another": 1}}
