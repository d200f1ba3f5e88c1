"""Checks of a drill's result, and its observations in the form of a witness's answers."""

from __future__ import annotations

from typing import Any

from dossim.drill import run
from dossim.drill.results import DrillResult
from dossim.drill.situation import Situation
from dossim.model.disposition import Disposition
from dossim.packet.capture import Capture

TRIES = 4


def drill_capture(capture: Capture, situation: Situation, **options: Any) -> DrillResult:
    """Run a drill; repeat it if it reports that the machine was too busy for some packets, as its user would."""
    for _ in range(TRIES - 1):
        result = run.drill_capture(capture, situation, **options)
        if not result.busy or result.verification.mismatched:
            return result
    return run.drill_capture(capture, situation, **options)


def assert_as_predicted(result: DrillResult) -> None:
    """Every packet was observed where it was predicted, and every entry has the predicted count."""
    wrong = [
        f"{result.mode}: packet {mismatch.packet} {result.capture.frame(mismatch.packet).hex()}: "
        f"predicted {mismatch.predicted}, observed {mismatch.observed}: {mismatch.evidence}"
        for mismatch in result.verification.mismatches
    ]
    assert not wrong, "\n".join(wrong)
    assert result.verification.agrees, result.verification.entries


def ends(result: DrillResult) -> list[Disposition]:
    """Where each packet was seen to end; only the counters show the entry."""
    assert result.observations is not None
    found = [result.observations.disposition(number) for number in range(len(result.capture))]
    assert None not in found, f"unobserved: {[number for number, end in enumerate(found) if end is None]}"
    return [end for end in found if end is not None]
