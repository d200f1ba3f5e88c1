"""A scenario run in one of its modes: predicted only, or drilled on the running kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dossim.drill.results import DrillResult, PredictResult
from dossim.drill.run import Progress, drill_capture, predict_capture
from dossim.drill.situation import Situation
from dossim.packet.capture import Capture, concat
from dossim.scenario.budget import DEFAULT, Budget, Limits
from dossim.scenario.expect import Outcome, evaluate
from dossim.scenario.model import CaptureTraffic, Scenario
from dossim.scenario.situation import destinations_of, situation_of
from dossim.scenario.traffic import LabelledCapture, build_traffic, capture_of
from enforcer.model.choices import ModeChoice


@dataclass(frozen=True)
class ScenarioResult:
    """``result`` is a DrillResult if it was drilled: then outcomes are about the observations."""

    scenario: Scenario
    choice: ModeChoice
    traffic: LabelledCapture
    result: PredictResult
    outcomes: tuple[Outcome, ...]

    @property
    def drilled(self) -> bool:
        return isinstance(self.result, DrillResult)

    @property
    def holds(self) -> bool:
        """Whether every expectation that could be evaluated holds."""
        return all(outcome.holds is not False for outcome in self.outcomes)


class ScenarioRunner:
    """Runs one scenario; its traffic is built once for all modes."""

    def __init__(self, scenario: Scenario, *, limits: Limits = DEFAULT) -> None:
        self.scenario = scenario
        self._limits = limits

    def predict(self, choice: ModeChoice) -> ScenarioResult:
        """Predict each packet's fate; needs no privilege."""
        traffic = self.traffic
        return self._result(
            choice, predict_capture(traffic.capture, self._situation(choice), recorded=traffic.recorded)
        )

    def drill(self, choice: ModeChoice, *, progress: Progress | None = None) -> ScenarioResult:
        """Drill on the running kernel. Raises what :func:`drill_capture` raises."""
        traffic, situation = self.traffic, self._situation(choice)
        result = drill_capture(traffic.capture, situation, progress=progress, recorded=traffic.recorded)
        return self._result(choice, result)

    @cached_property
    def traffic(self) -> LabelledCapture:
        """The scenario's traffic. Raises CaptureError, PacketError or ScenarioError."""
        destinations = destinations_of(self._situation(self.scenario.modes[0]))
        return build_traffic(self.scenario.traffic, destinations, path=str(self.scenario.path), limits=self._limits)

    @cached_property
    def _recorded(self) -> Capture | None:
        """The scenario's captures, which give the host's addresses if nothing else does. Raises ScenarioError."""
        rows = [row for row in self.scenario.traffic if isinstance(row, CaptureTraffic)]
        if self.scenario.host.addresses or not rows:
            return None
        budget = Budget(self._limits)
        return concat(capture_of(row, budget) for row in rows)

    def _situation(self, choice: ModeChoice) -> Situation:
        return situation_of(self.scenario, choice, self._recorded)

    def _result(self, choice: ModeChoice, result: PredictResult) -> ScenarioResult:
        outcomes = evaluate(self.scenario, choice, self.traffic, result)
        return ScenarioResult(self.scenario, choice, self.traffic, result, outcomes)
