"""Scenario files: policy, host, traffic and what is expected of them, in one YAML file.

::

    *.scenario.yaml --load--> Scenario --traffic--> labelled capture --run--> ScenarioResult with its outcomes
"""

from dossim.scenario.findings import InvalidScenario as InvalidScenario
from dossim.scenario.load import SUFFIX as SUFFIX
from dossim.scenario.load import load_scenario as load_scenario
from dossim.scenario.load import rooted_scenarios as rooted_scenarios
from dossim.scenario.load import scenario_files as scenario_files
from dossim.scenario.model import Scenario as Scenario
from dossim.scenario.run import ScenarioResult as ScenarioResult
from dossim.scenario.run import ScenarioRunner as ScenarioRunner
