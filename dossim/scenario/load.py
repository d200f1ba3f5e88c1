"""load_scenario: a ``*.scenario.yaml`` file -> Scenario, or everything that is wrong with it at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from dossim.drill.situation import Situation, enforced_after, lab_facts, modelled_after, plan_for
from dossim.model.errors import PacketError
from dossim.scenario.budget import DEFAULT, Budget, Exceeded, Limits, size_of
from dossim.scenario.confine import Confinement, Outside, read_text
from dossim.scenario.expression import ExpressionError, count_of
from dossim.scenario.findings import InvalidScenario, Marks, did_you_mean, plain, repeated_keys
from dossim.scenario.model import CaptureTraffic, EntryExpectation, GeneratedTraffic, Generator, Scenario
from dossim.scenario.policy import read_policy
from dossim.scenario.read import Reader
from dossim.scenario.schema import FINDINGS_MAX, schema_findings
from dossim.scenario.situation import destinations_of, situation_of
from dossim.scenario.traffic import missing_destination
from enforcer.model.errors import EnforcerError, Finding, Position, UnsupportedRuleError, UsageError
from enforcer.policy.nodes import DocumentFault, Node, from_text
from enforcer.system.files import UnreadableError


def load_scenario(
    path: str | os.PathLike[str],
    *,
    root: Path | None = None,
    allow: Sequence[Path] = (),
    limits: Limits = DEFAULT,
) -> Scenario:
    """The scenario of a file, with its policy loaded and everything checked that needs no capture.

    The files it names must be below its folder, below ``root`` (the folder that was searched for scenarios) or below
    one of ``allow``. Raises InvalidScenario with all findings, those of the policy files included.
    """
    file = Path(path)
    confined = Confinement.of(file, root=root, allow=allow)
    document = _read_document(file, confined)
    resources, policy, findings = read_policy(file, document.root, document.marks, confined)
    findings += islice(repeated_keys(document.root, document.marks), FINDINGS_MAX)
    faults = schema_findings(document.data, document.marks)
    if faults:
        raise InvalidScenario(_in_order(findings + faults))
    reader = Reader(file, document.data, document.marks, confined)
    scenario = Scenario(
        name=document.data["name"],
        path=file,
        resources=resources,
        traffic=reader.traffic(),
        description=document.data.get("description", ""),
        policy=policy,
        host=reader.host(),
        modes=reader.modes(),
        tracked=reader.tracked(),
        slow=document.data.get("slow", False),
    )
    scenario = replace(scenario, expect=reader.expectations([row.label for row in scenario.traffic]))
    findings += reader.findings or _size_findings(scenario, limits)
    findings += [] if findings else _situation_findings(scenario, document.marks)
    if findings:
        raise InvalidScenario(_in_order(findings))
    return scenario


@dataclass(frozen=True)
class _Document:
    root: Node
    data: Any
    marks: Marks


def _read_document(file: Path, confined: Confinement) -> _Document:
    try:
        confined.require(file)
        documents = list(from_text(read_text(file)))
    except Outside as error:  # a symbolic link
        raise InvalidScenario([Finding(Position(str(file)), "", f"leads to {error}")]) from error
    except UnreadableError as error:
        raise InvalidScenario([Finding(Position(str(file)), "", str(error))]) from error
    except DocumentFault as fault:
        raise InvalidScenario([Finding(Position(str(file), fault.line, fault.column), "", fault.message)]) from fault
    if len(documents) != 1:
        message = f"expected one YAML document, found {len(documents)}; each scenario is a file of its own"
        raise InvalidScenario([Finding(Position(str(file)), "", message)])
    return _Document(documents[0], plain(documents[0]), Marks(file, documents[0]))


def _size_findings(scenario: Scenario, limits: Limits) -> list[Finding]:
    """The row at which the generated traffic exceeds the limits; captures are counted when they are read."""
    budget = Budget(limits)
    for number, row in enumerate(scenario.traffic):
        if not isinstance(row, GeneratedTraffic):
            continue
        try:
            described = _described(row)
            budget.describe(described)
            budget.take(described * row.parameters.count, 0)
            budget.take(*size_of(row))
        except (Exceeded, PacketError) as error:
            message = error.message if isinstance(error, ExpressionError) else str(error)
            return [Finding(row.position, f"traffic[{number}]", message)]
    return []


def _described(row: GeneratedTraffic) -> int:
    return count_of(row.parameters.packet) if row.generator is Generator.SCAPY else 0


def _situation_findings(scenario: Scenario, marks: Marks) -> list[Finding]:
    """Findings that depend on policy, host and traffic together."""
    try:
        situation = situation_of(scenario, scenario.modes[0])
    except UsageError as error:
        return [marks.finding(("host",), str(error))]
    return _destination_findings(scenario, situation) + _entry_findings(scenario, situation)


def _destination_findings(scenario: Scenario, situation: Situation) -> list[Finding]:
    if not situation.host.addresses and any(isinstance(row, CaptureTraffic) for row in scenario.traffic):
        return []  # the captures will give the host's addresses
    destinations = destinations_of(situation)
    return [
        Finding(row.position, f"traffic[{number}]", message)
        for number, row in enumerate(scenario.traffic)
        if isinstance(row, GeneratedTraffic) and (message := missing_destination(row, destinations))
    ]


def _entry_findings(scenario: Scenario, situation: Situation) -> list[Finding]:
    """Expectations for entries that the policy does not have."""
    wanted = [(n, row) for n, row in enumerate(scenario.expect) if isinstance(row, EntryExpectation)]
    if not wanted:
        return []
    try:
        plan = plan_for(situation, lab_facts(situation.host))
        tracked = enforced_after(situation).tables
    except EnforcerError as error:
        return [Finding(Position(str(scenario.path)), "policy", str(error))]
    names = [*(entry.name for entry in plan.table.ingress), *(tracked.stages() if tracked else ())]
    others = _not_enforced(situation)
    return [
        Finding(row.position, f"expect[{number}].entry", _why_none(row.entry, names, others))
        for number, row in wanted
        if row.entry not in names
    ]


def _not_enforced(situation: Situation) -> Collection[str]:
    """The entries of tracked policy that nothing enforces."""
    try:
        tables = modelled_after(situation).tables
    except UnsupportedRuleError:
        return ()
    return tables.stages() if tables else ()


def _why_none(entry: str, names: Sequence[str], others: Collection[str]) -> str:
    if entry in others:
        return f"{entry} is of tracked policy, which drops nothing here without 'tracked: enforce'"
    return f"no entry is called {entry!r}{did_you_mean(entry, names)}"


def _in_order(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.position)
