"""Sentences that terminal, pytest and JUnit share, each fit to print on one line. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dossim.report.view import View
from dossim.verify import Mismatch
from enforcer.model.counted import counted
from enforcer.model.printable import printable

if TYPE_CHECKING:  # a prediction has no scenario, and needs no Scapy
    from dossim.scenario.expect import Outcome

SHOWN = 10


def failure_lines(view: View, *, shown: int = SHOWN) -> Iterator[str]:
    """What did not hold, expectation by expectation, then the first mismatches."""
    for outcome in view.outcomes:
        if outcome.holds is False:
            yield printable(outcome_line(outcome))
    if not view.agrees and not view.outcomes:
        yield view.verdict
    if view.busy:
        yield view.busy
    yield from mismatch_lines(view, shown=shown)


def outcome_line(outcome: Outcome) -> str:
    """``scenario.yaml:12: attack: dropped at or before raw, share 1: found 1,998 of 2,000 packets``."""
    where = f"{outcome.position.path}:{outcome.position.line}: " if outcome.position.line else ""
    numbers = ", ".join(map(str, outcome.packets))
    others = f" (packets that ended otherwise: {numbers})" if numbers else ""
    return f"{where}expected {outcome.expectation}; found {outcome.found}{others}"


def mismatch_lines(view: View, *, shown: int = SHOWN) -> Iterator[str]:
    """The first mismatches, one line each for packet, prediction and observation."""
    for item in view.mismatches[:shown]:
        yield from map(printable, _mismatch(item))
    wrong = view.mismatched + view.unobserved
    if wrong > shown:
        yield f"... {wrong - shown:,} more"


def _mismatch(item: Mismatch) -> Iterator[str]:
    in_file = f" (record {item.record} of the file)" if item.record != item.packet else ""
    yield f"packet {item.packet}{in_file}: {item.summary}"
    if item.is_state:
        yield f"  predicted ctstate {item.possible}"
        yield f"  observed  ctstate {item.state}, {_without_reason(item)} as predicted: {item.evidence}"
        return
    yield f"  predicted {item.predicted}"
    seen = "unobserved" if item.observed is None else _without_reason(item)
    yield f"  observed  {seen}: {item.evidence}"


def _without_reason(item: Mismatch) -> str:
    assert item.observed is not None
    stage = item.observed.stage
    return f"{item.observed.fate} at {stage}" if stage else str(item.observed.fate)


def blocked_lines(view: View) -> Iterator[str]:
    """For each entry that dropped packets, the sentence that names its line of YAML."""
    blocked = "blocked, as expected, by" if view.drilled else "would be blocked by"
    for row in view.blocking:
        source = f" ({row.source})" if row.source else ""
        yield printable(f"{counted(row.dropped)} {blocked} {row.entry}{source} at {row.stage}")


def several_lines(view: View) -> Iterator[str]:
    """How many packets have several possible ends, and on what their end depends."""
    for depends, count in view.several.items():
        has = "has" if count == 1 else "have"
        yield printable(f"{counted(count)} {has} several possible ends: it depends on {depends}")
