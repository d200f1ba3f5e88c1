"""The decisions of a CrowdSec Local API, as its stream has them (GET /v1/decisions/stream). Pure.

The first answer (``startup=true``) has every decision, each later one what is new and what was deleted since the one
before. A decision ends after its duration, whether or not its deletion is seen.
Source: https://docs.crowdsec.net/docs/local_api/bouncers, crowdsec pkg/models (Decision, DecisionsStreamResponse).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from enforcer.lists.entry import Network, networks_of
from enforcer.lists.parse import Parsed

_SCOPES = ("ip", "range")
_TYPE = "ban"
_DURATION = re.compile(r"(-?)((?:[0-9]+(?:\.[0-9]+)?(?:h|ms|m|us|µs|ns|s))+)")
_PART = re.compile(r"([0-9.]+)(h|ms|m|us|µs|ns|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}  # Go's time.Duration


@dataclass(frozen=True)
class Decision:
    """``until_s``: Unix time of its end."""

    value: str
    until_s: float


Decisions = Mapping[str, Decision]
"""By their id."""


@dataclass
class Answer:
    """``parsed``: the decisions as entries, where a line is the number of a decision in the answer. ``others``: kinds
    of decisions that deny nothing here, such as captchas or countries, and how many there are.
    """

    parsed: Parsed = field(default_factory=Parsed)
    decisions: dict[str, Decision] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)


def applied(text: str, held: Decisions, now_s: float) -> Answer:
    """The decisions after an answer. ``held``: those before, none for an answer to ``startup=true``."""
    found = Answer(decisions={key: item for key, item in held.items() if item.until_s > now_s})
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not {"new", "deleted"} & answer.keys():
        found.parsed.problem = "the answer is no stream of decisions, which has 'new' and 'deleted'"
        return found
    for item in _items(answer, "deleted"):
        found.decisions.pop(_key(item), None)
    for number, item in enumerate(_items(answer, "new"), 1):
        _take(found, number, item, now_s)
    return found


def networks(decisions: Decisions, now_s: float) -> list[Network]:
    """What is denied now."""
    found: list[Network] = []
    for item in decisions.values():
        if item.until_s > now_s:
            found += networks_of(item.value)
    return found


def as_data(decisions: Decisions) -> dict[str, Any]:
    """To store."""
    return {key: [item.value, item.until_s] for key, item in decisions.items()}


def from_data(data: object) -> dict[str, Decision]:
    """Raises ValueError for what :func:`as_data` did not make."""
    if not isinstance(data, dict):
        raise ValueError("no decisions")
    found = {}
    for key, item in data.items():
        value, until_s = item
        networks_of(value)
        found[str(key)] = Decision(value, float(until_s))
    return found


def _items(answer: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    items = answer.get(name) or []
    return [item if isinstance(item, dict) else {} for item in items] if isinstance(items, list) else [{}]


def _key(item: Mapping[str, Any]) -> str:
    return str(item.get("id") or f"{item.get('origin')}/{item.get('scenario')}/{item.get('value')}")


def _take(found: Answer, number: int, item: Mapping[str, Any], now_s: float) -> None:
    scope, kind, value = (str(item.get(name, "")) for name in ("scope", "type", "value"))
    shown = json.dumps(item, ensure_ascii=False)
    if kind and (kind.lower() != _TYPE or scope.lower() not in _SCOPES or item.get("simulated")):
        what = f"simulated {kind}" if item.get("simulated") else f"{kind} of {scope}"
        found.others[what] = found.others.get(what, 0) + 1
        return
    duration_s = _duration_s(str(item.get("duration", "")))
    if duration_s is None:
        found.parsed.refuse(number, shown, "no duration, such as 3h59m")
        return
    before = found.parsed.good
    found.parsed.take(number, value, shown)
    if found.parsed.good > before and duration_s > 0:
        found.decisions[_key(item)] = Decision(value, now_s + duration_s)


def _duration_s(text: str) -> float | None:
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    try:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(found[2]))
    except ValueError:
        return None
    return -seconds if found[1] else seconds
