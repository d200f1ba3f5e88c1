"""The decision stream of a CrowdSec Local API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcer.feeds import crowdsec
from enforcer.feeds.crowdsec import Decision, applied
from enforcer.lists.entry import written

NOW = 1_790_000_000.0


def decision(
    number: int, value: str, *, scope: str = "Ip", kind: str = "ban", duration: str = "4h0m0s", **more: Any
) -> dict[str, Any]:
    return {"id": number, "origin": "crowdsec", "scenario": "x", "scope": scope, "type": kind, "value": value,
            "duration": duration, **more}  # fmt: skip


def stream(new: list[dict[str, Any]] | None = None, deleted: list[dict[str, Any]] | None = None) -> str:
    return json.dumps({"new": new, "deleted": deleted})


def test_decisions_come_change_and_end() -> None:
    first = applied(
        stream([decision(1, "198.51.100.7"), decision(2, "203.0.113.0/24", scope="Range", duration="90m")]), {}, NOW
    )
    assert first.decisions == {"1": Decision("198.51.100.7", NOW + 14400), "2": Decision("203.0.113.0/24", NOW + 5400)}
    assert list(map(written, crowdsec.networks(first.decisions, NOW))) == ["198.51.100.7/32", "203.0.113.0/24"]
    assert list(map(written, crowdsec.networks(first.decisions, NOW + 5400))) == ["198.51.100.7/32"]
    second = applied(
        stream([decision(3, "2001:db8::7")], [decision(1, "198.51.100.7", duration="-2s")]), first.decisions, NOW + 60
    )
    assert second.decisions.keys() == {"2", "3"}
    assert applied(stream(), second.decisions, NOW + 5401).decisions.keys() == {"3"}
    assert not second.parsed.bad


def test_one_of_two_decisions_on_an_address_may_end() -> None:
    both = applied(stream([decision(1, "198.51.100.7"), decision(2, "198.51.100.7", duration="8h")]), {}, NOW)
    left = applied(stream(None, [decision(1, "198.51.100.7")]), both.decisions, NOW)
    assert crowdsec.networks(left.decisions, NOW) != []


def test_what_denies_nothing_here_is_counted() -> None:
    found = applied(
        stream(
            [
                decision(1, "198.51.100.7", kind="captcha"),
                decision(2, "XX", scope="Country"),
                decision(3, "198.51.100.8", simulated=True),
            ]
        ),
        {},
        NOW,
    )
    assert not found.decisions
    assert found.others == {"captcha of Ip": 1, "ban of Country": 1, "simulated ban": 1}


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (decision(1, "evil.example"), "expected an IP address"),
        (decision(1, "198.51.100.7", duration="for ever"), "no duration"),
        ({}, "no duration"),
    ],
)
def test_a_decision_that_is_none_is_a_bad_line(item: dict[str, Any], why: str) -> None:
    found = applied(stream([decision(9, "198.51.100.9"), item]), {}, NOW)
    assert (found.parsed.good, found.parsed.bad, found.parsed.first_bad[0].line) == (1, 1, 2)
    assert found.parsed.first_bad[0].why.startswith(why)


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"message":"access forbidden"}', "[" * 100_000])
def test_another_answer_is_no_stream(text: str) -> None:
    assert "no stream of decisions" in applied(text, {}, NOW).parsed.problem


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("4h", 14400.0), ("3h59m54.25s", 14394.25), ("500ms", 0.5), ("1h0m0.000000001s", 3600.000000001)],
)
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    (found,) = applied(stream([decision(1, "198.51.100.7", duration=text)]), {}, 0.0).decisions.values()
    assert found.until_s == pytest.approx(seconds)


def test_decisions_are_stored_and_read() -> None:
    held = {"1": Decision("198.51.100.7", 5.5)}
    assert crowdsec.from_data(json.loads(json.dumps(crowdsec.as_data(held)))) == held
    for wrong in ([], {"1": ["x.y", 1]}, {"1": []}):
        with pytest.raises((ValueError, TypeError)):
            crowdsec.from_data(wrong)
