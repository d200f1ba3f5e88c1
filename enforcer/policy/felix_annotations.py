"""Annotations ``config.projectcalico.org/NAME`` of a FelixConfiguration: they override the spec, as text.

``libcalico-go/lib/backend/syncersv1/updateprocessors/configurationprocessor.go`` passes them to Felix, which parses the
text (``felix/config/param_types.go``). For the settings that matter here, Felix's names differ from the API's only in
case. Calico does not validate them: for a faulty one, Felix uses its default or exits. Here it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from enforcer.policy import felix_fields
from enforcer.policy.nodes import Scalar
from enforcer.policy.reading import Cursor, Reader, Refused, attempt, string

PREFIX = "config.projectcalico.org/"

_TRUE, _FALSE = ("true", "1", "yes", "y", "t"), ("false", "0", "no", "n", "f")
_BASES = {"0x": 16, "0o": 8, "0b": 2}
_CANONICAL = {"nftablesMode": ("Auto", "Enabled", "Disabled"), "bpfAttachType": ("TC", "TCX", "Netkit")}


def overrides(annotations: Mapping[str, Cursor], readers: Mapping[str, Reader[Any]]) -> Iterator[tuple[str, Any]]:
    """The settings in annotations, by their names in the API, read like those of the spec."""
    folded = {name.lower(): name for name in readers}
    for key in sorted(annotations):
        if not key.startswith(PREFIX):
            continue
        at, name = annotations[key], key.removeprefix(PREFIX)
        api_name = folded.get(name.lower())
        if api_name is not None:
            value = attempt(_reading(api_name, readers[api_name]), at, None)
            if value is not None:
                yield api_name, value
        elif meant := felix_fields.misspelt(name, readers):
            if meant in readers:
                at.fault(f"Felix has no setting {name!r}; did you mean {meant[0].upper() + meant[1:]!r}?")


def _reading(name: str, read: Reader[Any]) -> Reader[Any]:
    """Reads the text of an annotation like the same field of the spec."""

    def read_text(at: Cursor) -> Any:
        value = _value(at, name, string(at))
        return read(Cursor(at.report, Scalar(value, at.node.line, at.node.column), at.field))

    return read_text


def _value(at: Cursor, name: str, text: str) -> str | int | bool:
    folded, kind = text.lower(), felix_fields.TYPES[name]
    if kind == "boolean":
        if folded not in (*_TRUE, *_FALSE, "none"):
            raise Refused(at, f"expected a boolean such as 'true', found {text!r}")
        return folded in _TRUE
    if kind == "integer":
        return 0 if folded == "none" else _integer(at, text)
    if name.endswith("Interval"):
        return "0" if folded == "none" else f"{_seconds(at, text):f}s"
    return next((word for word in _CANONICAL.get(name, ()) if word.lower() == folded), text)


def _integer(at: Cursor, text: str) -> int:
    """An integer, parsed like Go's strconv.ParseInt with base 0."""
    try:
        digits = text.lstrip("+-")
        base = _BASES.get(digits[:2].lower(), 8 if digits[:1] == "0" and len(digits) > 1 else 10)
        if len(text) > 40 or text.strip() != text:
            raise ValueError
        return int(text, base)
    except ValueError:
        raise Refused(at, f"expected a whole number, found {text[:60]!r}") from None


def _seconds(at: Cursor, text: str) -> float:
    try:
        seconds = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e12:
        raise Refused(at, f"expected a number of seconds, found {text[:60]!r}")
    return seconds
