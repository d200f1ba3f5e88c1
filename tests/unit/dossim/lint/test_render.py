"""JSON and SARIF: the formats that other programs read, and the table of rules in docs/lint.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dossim.lint import RULES, Finding, Level, Related, RuleId, as_json, as_sarif
from enforcer.model.errors import Position
from tests.unit.dossim.lint.policies import ENDPOINT, findings, policy

DOCUMENT = Path(__file__).parents[4] / "docs" / "lint.md"
FINDINGS = findings(ENDPOINT, policy("action: Allow", "action: Deny", "action: Deny, protocol: UDP"))


def test_rules_cover_their_ids_in_order() -> None:
    assert [rule.id for rule in RULES] == list(RuleId)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.id) for rule in RULES)
    assert all(text.endswith(".") for rule in RULES for text in (rule.summary, rule.remedy))


def test_every_rule_is_in_the_documents() -> None:
    rows = [line.split("|")[1].strip() for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert rows == [f"`{rule.id}`" for rule in RULES]


def test_json() -> None:
    at, other = Position("p.yaml", 3, 7), Position("q.yaml", 1, 1)
    finding = Finding(RuleId.SHADOWED, Level.ERROR, at, "never acts", (Related(other, "this one"),))
    assert as_json([finding]) == {
        "schema": "dossim/lint/v1",
        "findings": [
            {
                "rule": "shadowed-entry",
                "level": "error",
                "path": "p.yaml",
                "line": 3,
                "column": 7,
                "message": "never acts",
                "related": [{"path": "q.yaml", "line": 1, "column": 1, "message": "this one"}],
            }
        ],
    }


# --- SARIF 2.1.0, sections of the standard in brackets ----------------------------------------------------------------


@pytest.fixture(scope="module")
def sarif() -> dict[str, Any]:
    return as_sarif(FINDINGS, "1.2.3")


def test_the_log_and_its_tool(sarif: dict[str, Any]) -> None:
    assert sarif["version"] == "2.1.0"  # [3.13.2]
    assert sarif["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = sarif["runs"]  # [3.13.4]
    driver = run["tool"]["driver"]  # [3.14.6], [3.18.2]
    assert (driver["name"], driver["version"]) == ("dossim lint", "1.2.3")
    for rule in driver["rules"]:  # [3.49]
        assert rule["shortDescription"]["text"]
        assert rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])


def test_results(sarif: dict[str, Any]) -> None:
    (run,) = sarif["runs"]
    assert len(run["results"]) == len(FINDINGS) > 0
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]  # [3.27.6]
        assert result["level"] in ("error", "warning", "note")  # [3.27.10]
        assert result["message"]["text"]  # [3.27.11]
        for location in (*result["locations"], *result.get("relatedLocations", ())):
            physical = location["physicalLocation"]
            assert physical["artifactLocation"]["uri"] == "p.yaml"
            assert physical["region"]["startLine"] >= 1  # [3.30.5]
            assert physical["region"]["startColumn"] >= 1
    shadowed = next(result for result in run["results"] if result["ruleId"] == "shadowed-entry")
    (related,) = shadowed["relatedLocations"]
    assert related["id"] == 1
    assert related["message"]["text"] == "Allow of gnp/p ingress[0], evaluated earlier"


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("policies/a b.yaml", "policies/a%20b.yaml"),
        ("/etc/enforcer/p.yaml", "file:///etc/enforcer/p.yaml"),
        ("<stdin>", "%3Cstdin%3E"),
    ],
)
def test_paths_are_uris(path: str, uri: str) -> None:
    log = as_sarif([Finding(RuleId.UNUSED_SET, Level.WARNING, Position(path), "unused")], "1")
    (location,) = log["runs"][0]["results"][0]["locations"]
    assert location["physicalLocation"] == {"artifactLocation": {"uri": uri}}, "no region: the file as a whole"
