"""The JSON Schema and the code accept the same documents: neither has a key that the other lacks."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dossim.model.disposition import OPEN_FATES, Fate
from dossim.scenario.findings import InvalidScenario, Marks, plain
from dossim.scenario.generate import GENERATORS
from dossim.scenario.load import load_scenario
from dossim.scenario.model import Generator, LeaveOut, Parameters
from dossim.scenario.schema import FINDINGS_MAX, schema, schema_findings
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import CtState, Stage
from enforcer.policy.nodes import from_text


def definitions() -> dict[str, dict[str, object]]:
    return dict(schema()["$defs"])


def properties_of(word: str) -> dict[str, object]:
    found = definitions()[word]["properties"]
    assert isinstance(found, dict)
    return found


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(dict(schema()))


def test_generators_are_the_same_everywhere() -> None:
    traffic = schema()["$defs"]["traffic"]["else"]
    words = {str(word) for word in Generator}
    assert set(traffic["properties"]["generate"]["enum"]) == words
    assert {row["if"]["properties"]["generate"]["const"] for row in traffic["allOf"]} == words
    assert set(GENERATORS) == set(Generator)
    assert words <= set(definitions())


@pytest.mark.parametrize("word", Generator, ids=str)
def test_every_parameter_a_generator_takes_exists(word: Generator) -> None:
    known = {field.name.replace("_", "-") for field in fields(Parameters)}
    assert set(properties_of(str(word))) - known == {"generate", "label"}


def test_every_parameter_is_taken_by_some_generator() -> None:
    taken = {name for word in Generator for name in properties_of(str(word))}
    assert {field.name.replace("_", "-") for field in fields(Parameters)} <= taken


def test_closed_sets_are_the_code_s() -> None:
    assert definitions()["stage"]["enum"] == [str(stage) for stage in Stage]
    assert definitions()["mode"]["enum"] == [str(mode) for mode in ModeChoice if mode is not ModeChoice.OFFLOAD]
    packets = schema()["$defs"]["expectation"]["else"]["else"]["else"]["properties"]
    assert set(packets["fate"]["enum"]) == {str(fate) for fate in Fate if fate not in OPEN_FATES}
    conntrack = schema()["$defs"]["expectation"]["then"]["properties"]["conntrack"]["properties"]
    assert set(conntrack["state"]["properties"]) == {str(state) for state in CtState}
    leave_out = properties_of("fragments")["leave-out"]
    assert isinstance(leave_out, dict)
    assert set(leave_out["enum"]) == {str(word) for word in LeaveOut}


def found_in(document: object) -> list[str]:
    root = next(from_text(json.dumps(document)))
    return [str(finding) for finding in schema_findings(plain(root), Marks("x.yaml", root))]


SMALL = {
    "name": "x",
    "policy": [],
    "traffic": [{"generate": "syn-flood", "count": 1, "sources": "203.0.113.1", "label": "a"}],
}
BEYOND = [
    ({"name": "x" * 301}, "301 characters; at most 300"),
    ({"policy": ["a"] * 1001}, "1,001 items; at most 1,000"),
    ({"traffic": [{}] * 257}, "257 items; at most 256"),
    # For mypy: a dict of JSON
    ({"traffic": [SMALL["traffic"][0] | {"label": "a\n"}]}, "expected a label"),  # type: ignore[index]
    # For mypy: a dict of JSON
    ({"traffic": [SMALL["traffic"][0] | {"seed": 2**62}]}, "expected a number"),  # type: ignore[index]
    # For mypy: a dict of JSON
    ({"traffic": [SMALL["traffic"][0] | {"sources": ["a"] * 10_001}]}, "expected an IP address"),  # type: ignore[index]
    ({"expect": [{"entry": "x", "packets": 10**18}]}, "a number, or at-least"),
    ({"modes": [{}] * 100_000}, "100,000 items; at most 4"),
    ({"modes": ["raw", "raw"]}, "an item is there twice"),
    ({"tracked": "enforced"}, 'expected one of model, enforce, found "enforced"; did you mean'),
]


@pytest.mark.parametrize(("fields_given", "message"), BEYOND)
def test_every_list_text_and_number_has_an_end(fields_given: dict[str, object], message: str) -> None:
    found = found_in({**SMALL, **fields_given})
    assert any(message in finding for finding in found)
    assert all(len(finding) < 500 for finding in found)
    assert len(found) <= FINDINGS_MAX + 1


@pytest.mark.parametrize("number", [10**30, -(10**30), 10**400], ids=["large", "negative", "huge"])
def test_a_number_beyond_64_bits_is_one_finding(tmp_path: Path, number: int) -> None:
    file = tmp_path / "x.scenario.yaml"
    row = f"{{generate: arp, count: 1, sources: 203.0.113.1, label: a, seed: {number}}}"
    file.write_text(f"name: x\npolicy: []\ntraffic: [{row}]\n")
    with pytest.raises(InvalidScenario) as caught:
        load_scenario(file)
    assert len(caught.value.findings) == 1
    assert len(str(caught.value)) < 500


def test_a_few_findings_stand_for_many() -> None:
    found = found_in({**SMALL, "traffic": [{"generate": "x", "label": n} for n in range(250)]})
    assert 10 < len(found) <= FINDINGS_MAX + 1
    assert "x.yaml:1:1: more than 100 findings; the others are not shown" in found


def test_whole_numbers_may_be_written_with_a_point() -> None:
    # For mypy: a dict of JSON
    assert found_in({**SMALL, "traffic": [SMALL["traffic"][0] | {"count": 5.0}]}) == []  # type: ignore[index]


def patterns(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["pattern"]} if isinstance(node.get("pattern"), str) else set()
        return own.union(*map(patterns, node.values()))
    return set().union(*map(patterns, node)) if isinstance(node, list) else set()


@pytest.mark.parametrize("pattern", sorted(patterns(schema())))
def test_no_pattern_has_two_ways_to_the_same_text(pattern: str) -> None:
    """Consecutive or nested repetitions of the same characters would backtrack exponentially."""
    # The pattern parser of re itself.
    parser = import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

    def repeats(parsed: object) -> list[bool]:
        found = []
        for name, argument in parsed:  # type: ignore[attr-defined]  # of this subclass
            if str(name) == "MAX_REPEAT":
                found.append(bool(repeats(argument[2])))
            elif str(name) == "SUBPATTERN":
                found += repeats(argument[3])
        return found

    found = repeats(parser.parse(pattern))
    assert not any(found)
    assert re.fullmatch(pattern, "a" * 100_000 + "!") is None
