"""Results like those of a drill, constructed without a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dossim.drill.results import DrillResult, PredictResult
from dossim.model.disposition import Fate
from dossim.observe import Observations
from dossim.predict.prediction import FATE_CODE, NO_STAGE, STAGE_CODE
from dossim.scenario.expect import evaluate
from dossim.scenario.load import load_scenario
from dossim.scenario.model import Scenario
from dossim.scenario.run import ScenarioResult, ScenarioRunner
from dossim.verify import verify
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage

ROOT = Path(__file__).parents[3]
UNOBSERVED = 255
SENTENCES = ("kfree_skb in nowhere, reason NOT_SPECIFIED; no checkpoint", "not freed; no checkpoint")

Ending = tuple[Fate, Stage | None] | None


def scenario(name: str = "syn-flood") -> Scenario:
    """A shipped scenario."""
    return load_scenario(ROOT / "scenarios" / f"{name}.scenario.yaml")


def drilled(result: PredictResult, otherwise: Mapping[int, Ending] | None = None, *, tracked: int = 0) -> DrillResult:
    """The drill of a prediction: all packets end as predicted, except those in ``otherwise`` (None: unobserved)."""
    prediction = result.prediction
    fate, stage = prediction.fate.copy(), prediction.stage.copy()
    for packet, ending in (otherwise or {}).items():
        fate[packet] = UNOBSERVED if ending is None else FATE_CODE[ending[0]]
        stage[packet] = NO_STAGE if ending is None or ending[1] is None else STAGE_CODE[ending[1]]
    evidence = (fate == UNOBSERVED).astype(np.int32)
    observations = Observations(fate, stage, evidence, SENTENCES, np.zeros(len(fate), np.bool_))
    changed = list(otherwise or {})
    entry = prediction.entry.copy()
    entry[changed] = -1
    verification = verify(
        prediction,
        observations,
        entries=result.plan.table.ingress,
        counters=replace(prediction, entry=entry).entry_counts(),
        summary=lambda packet: f"a packet <{packet}>",
    )
    return DrillResult(
        **vars(result),
        verification=verification,
        observations=observations,
        conntrack_entries=tracked,
        kernel="6.18.0",
        driver="veth",
    )


def scenario_result(
    name: str = "syn-flood",
    mode: ModeChoice = ModeChoice.NATIVE,
    *,
    otherwise: Mapping[int, Ending] | None = None,
    tracked: int = 0,
    drill: bool = True,
) -> ScenarioResult:
    """A shipped scenario's result in one mode."""
    runner = ScenarioRunner(scenario(name))
    predicted = runner.predict(mode)
    if not drill:
        return predicted
    result = drilled(predicted.result, otherwise, tracked=tracked)
    outcomes = evaluate(runner.scenario, mode, runner.traffic, result)
    return ScenarioResult(runner.scenario, mode, runner.traffic, result, outcomes)


def holding(outcomes: Sequence[object]) -> list[bool | None]:
    """Whether each outcome holds, in order."""
    return [outcome.holds for outcome in outcomes]  # type: ignore[attr-defined]
