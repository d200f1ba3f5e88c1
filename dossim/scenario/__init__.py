"""Scenario files: policy, host, traffic and what is expected of them, in one YAML file.

::

    *.scenario.yaml --load--> Scenario --traffic--> labelled capture --run--> ScenarioResult with its outcomes
"""
