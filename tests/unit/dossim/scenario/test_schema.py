"""The JSON Schema says what the code does: no word in one that the other lacks."""

from __future__ import annotations

from dataclasses import fields

import pytest
from jsonschema import Draft202012Validator

from dossim.disposition import Fate
from dossim.scenario.generate import GENERATORS
from dossim.scenario.model import Generator, LeaveOut, Parameters
from dossim.scenario.schema import schema
from enforcer.mode import ModeChoice
from enforcer.words import Stage


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
    packets = schema()["$defs"]["expectation"]["else"]["else"]["properties"]
    assert set(packets["fate"]["enum"]) == {str(fate) for fate in Fate}
    leave_out = properties_of("fragments")["leave-out"]
    assert isinstance(leave_out, dict)
    assert set(leave_out["enum"]) == {str(word) for word in LeaveOut}
