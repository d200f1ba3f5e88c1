"""Results like those of a drill, constructed without a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dossim.drill.results import DrillResult, PredictResult
from dossim.model.disposition import Fate
from dossim.observe import Observations
from dossim.observe.journey import CT_STATES, NO_STATE
from dossim.predict.prediction import FATE_CODE, NO_STAGE, STAGE_CODE
from dossim.scenario.expect import evaluate
from dossim.scenario.load import load_scenario
from dossim.scenario.model import Scenario
from dossim.scenario.run import ScenarioResult, ScenarioRunner
from dossim.verify.compare import verify
from enforcer.model.choices import ModeChoice
from enforcer.model.conntrack import ConntrackStatistics
from enforcer.model.vocabulary import CtState, Stage

ROOT = Path(__file__).parents[3]
UNOBSERVED = 255
SENTENCES = ("kfree_skb in nowhere, reason NOT_SPECIFIED; no checkpoint", "not freed; no checkpoint")

Ending = tuple[Fate, Stage | None] | None


def scenario(name: str = "syn-flood") -> Scenario:
    """A shipped scenario."""
    return load_scenario(ROOT / "scenarios" / f"{name}.scenario.yaml")


def observed(
    fate: npt.NDArray[np.uint8],
    stage: npt.NDArray[np.uint8],
    evidence: npt.NDArray[np.int32],
    sentences: tuple[str, ...],
    state: npt.NDArray[np.uint8] | None = None,
) -> Observations:
    """Observations of packets that are no fragments and have no mark; without ``state`` none got past conntrack."""
    count = len(fate)
    state = np.full(count, NO_STATE, np.uint8) if state is None else state
    nothing = np.zeros(count, np.bool_)
    return Observations(fate, stage, evidence, sentences, nothing, state, nothing, np.zeros(count, np.uint32))


def drilled(
    result: PredictResult,
    otherwise: Mapping[int, Ending] | None = None,
    *,
    tracked: int = 0,
    states: Mapping[int, CtState] | None = None,
) -> DrillResult:
    """The drill of a prediction: all packets end as predicted, except those in ``otherwise`` (None: unobserved).
    ``states``: those that conntrack gave to packets that got past it.
    """
    prediction = result.prediction
    fate, stage = prediction.fate.copy(), prediction.stage.copy()
    for packet, ending in (otherwise or {}).items():
        fate[packet] = UNOBSERVED if ending is None else FATE_CODE[ending[0]]
        stage[packet] = NO_STAGE if ending is None or ending[1] is None else STAGE_CODE[ending[1]]
    evidence = (fate == UNOBSERVED).astype(np.int32)
    state = np.full(len(fate), NO_STATE, np.uint8)
    state[list(states or {})] = [CT_STATES.index(item) for item in (states or {}).values()]
    observations = observed(fate, stage, evidence, SENTENCES, state)
    changed = list(otherwise or {})
    entry = prediction.entry.copy()
    entry[changed] = -1
    verification = verify(
        prediction,
        observations,
        entries=prediction.entries,
        counters=replace(prediction, entry=entry).entry_counts(),
        summary=lambda packet: f"a packet <{packet}>",
    )
    return DrillResult(
        **vars(result),
        verification=verification,
        observations=observations,
        conntrack_entries=tracked,
        conntrack=ConntrackStatistics(),
        kernel="6.18.0",
        driver="veth",
    )


def scenario_result(
    name: str = "syn-flood",
    mode: ModeChoice = ModeChoice.NATIVE,
    *,
    otherwise: Mapping[int, Ending] | None = None,
    tracked: int = 0,
    states: Mapping[int, CtState] | None = None,
    drill: bool = True,
) -> ScenarioResult:
    """A shipped scenario's result in one mode."""
    runner = ScenarioRunner(scenario(name))
    predicted = runner.predict(mode)
    if not drill:
        return predicted
    result = drilled(predicted.result, otherwise, tracked=tracked, states=states)
    outcomes = evaluate(runner.scenario, mode, runner.traffic, result)
    return ScenarioResult(runner.scenario, mode, runner.traffic, result, outcomes)


def holding(outcomes: Sequence[object]) -> list[bool | None]:
    """Whether each outcome holds, in order."""
    return [outcome.holds for outcome in outcomes]  # type: ignore[attr-defined]  # of this subclass
