"""Checks of a drill's result, and its observations in the form of a witness's answers."""

from __future__ import annotations

from dossim.drill.results import DrillResult
from dossim.model.disposition import Disposition


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
