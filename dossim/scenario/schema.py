"""The JSON Schema of scenario files, and its complaints as findings that a person can act on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

from dossim.scenario.findings import Marks, did_you_mean, field_of
from enforcer.errors import Finding


@cache
def schema() -> Mapping[str, Any]:
    """The schema that ships with the package."""
    loaded: Mapping[str, Any] = json.loads(files("dossim.scenario").joinpath("scenario.schema.json").read_text())
    return loaded


def schema_findings(document: Any, marks: Marks) -> list[Finding]:
    """Everything in which the document departs from the schema, in file order."""
    found = [finding for error in _validator().iter_errors(document) for finding in _findings(error, marks)]
    # A field that two branches of the schema know is complained of twice.
    return sorted(set(found), key=lambda finding: finding.position)


@cache
def _validator() -> Any:
    return Draft202012Validator(dict(schema()))


def _findings(error: Any, marks: Marks) -> Iterator[Finding]:
    steps = list(error.absolute_path)
    match error.validator:
        case "additionalProperties":
            known = error.schema.get("properties", {})
            for name in error.instance:
                if name not in known:
                    message = f"unknown field{did_you_mean(name, set(known) - set(error.instance))}"
                    yield Finding(marks.key(steps, name), field_of([*steps, str(name)]), message)
        case "required":
            missing = next(name for name in error.validator_value if f"'{name}'" in error.message)
            hint = "; or 'capture' for a capture" if missing == "generate" else ""
            yield marks.finding(steps, f"the field {missing!r} is missing{hint}")
        case "enum":
            known = [str(word) for word in error.validator_value]
            yield marks.finding(
                steps, f"expected one of {', '.join(known)}, found {shown(error.instance)}{_near(error)}"
            )
        case "uniqueItems":
            yield marks.finding(steps, "an item is there twice")
        case "minItems" | "minProperties":
            yield marks.finding(steps, f"expected {error.schema.get('title', 'something')}, found nothing")
        case _:
            yield marks.finding(
                steps, f"expected {error.schema.get('title', error.message)}, found {shown(error.instance)}"
            )


def _near(error: Any) -> str:
    hint = did_you_mean(error.instance, [str(word) for word in error.validator_value])
    return hint if "did you mean" in hint else ""


def shown(value: Any) -> str:
    """A value as the file spells it, shortened."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
