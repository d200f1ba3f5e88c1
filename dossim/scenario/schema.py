"""The JSON Schema of scenario files, and its errors as findings that a person can act on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from dossim.scenario.findings import Marks, did_you_mean, field_of
from enforcer.model.errors import Finding

FINDINGS_MAX = 100
_SHOWN = 60


@cache
def schema() -> Mapping[str, Any]:
    """The schema that ships with the package."""
    loaded: Mapping[str, Any] = json.loads(files("dossim.scenario").joinpath("scenario.schema.json").read_text())
    return loaded


def schema_findings(document: Any, marks: Marks) -> list[Finding]:
    """All violations of the schema, in file order."""
    errors = list(islice(_validator().iter_errors(document), FINDINGS_MAX + 1))
    each = [finding for error in errors for finding in islice(_findings(error, marks), FINDINGS_MAX)]
    # A field in two branches of the schema is reported twice.
    found = sorted(dict.fromkeys(each), key=lambda finding: finding.position)
    if len(errors) > FINDINGS_MAX or len(found) > FINDINGS_MAX:
        found[FINDINGS_MAX:] = [marks.finding((), f"more than {FINDINGS_MAX} findings; the others are not shown")]
    return found


@cache
def _validator() -> Any:
    own = extend(Draft202012Validator, {"pattern": _pattern, "uniqueItems": _unique_items})
    return own(dict(schema()))


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Match the whole text: the library searches in it, and Python's ``$`` also matches before a final line feed."""
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield ValidationError(f"does not match {pattern}")


def _unique_items(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Replaces the library's check, which takes quadratic time for items that cannot be sorted."""
    if wanted and isinstance(instance, list):
        texts = [json.dumps(item, sort_keys=True, default=str) for item in instance]
        if len(set(texts)) < len(texts):
            yield ValidationError("an item is there twice")


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
        case "maxItems":
            yield marks.finding(steps, f"{len(error.instance):,} items; at most {error.validator_value:,} are read")
        case "maxLength":
            yield marks.finding(
                steps, f"{len(error.instance):,} characters; at most {error.validator_value:,} are read"
            )
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
    if isinstance(value, (list, dict)) and len(value) > _SHOWN:
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value):,}"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
