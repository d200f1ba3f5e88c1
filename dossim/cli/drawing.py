"""The packet pipeline with a plan's entries at the stages that enforce them, for Mermaid and Graphviz. Pure.

Entries of tracked policy that is not enforced are at the stages where Calico would enforce them, in dashed boxes if
nothing is enforced there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dossim.pipeline.graph import pipeline_graph, to_dot, to_mermaid
from enforcer.model.printable import printable
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import Plan

_CLASSES = {True: "enforcing", False: "modelled"}
_STYLES = {True: "penwidth=3", False: "style=dashed"}


def as_mermaid(plan: Plan) -> str:
    """The flowchart; a node that is written again gets its new label."""
    lines = [
        f'    {_identifier(stage)}["<b>{stage}</b><br/>{_mermaid_lines(names)}"]:::{_CLASSES[enforced]}'
        for stage, names, enforced in _enforcing(plan)
    ]
    classes = ["    classDef enforcing stroke-width:3px", "    classDef modelled stroke-dasharray:5 5"]
    return to_mermaid(pipeline_graph()) + "\n".join([*lines, *classes]) + "\n"


def as_dot(plan: Plan) -> str:
    """The graph; attributes given later add to a node."""
    text = to_dot(pipeline_graph()).rstrip().removesuffix("}")
    lines = [
        f'    "{stage}" [{_STYLES[enforced]}, label="{stage}\\n{_escaped(chr(10).join(map(printable, names)))}"];'
        for stage, names, enforced in _enforcing(plan)
    ]
    return text + "\n".join([*lines, "}"]) + "\n"


def _enforcing(plan: Plan) -> Iterator[tuple[Stage, list[str], bool]]:
    """For each stage with entries their names, and whether any of them is enforced."""
    for stage in Stage:
        enforced = [
            f"{interface.interface}: {item.entry.action} {item.entry.name}"
            for interface in plan.interfaces
            for item in interface.entries
            if item.stage is stage
        ]
        enforced += _of_tracked(plan, stage, enforced=True)
        modelled = [f"{name} (Calico, not enforced here)" for name in _of_tracked(plan, stage, enforced=False)]
        if enforced or modelled:
            yield stage, enforced + modelled, bool(enforced)


def _of_tracked(plan: Plan, stage: Stage, *, enforced: bool) -> list[str]:
    found = [
        f"{item.interface}: {entry.action} {entry.name}"
        for item in plan.tracked
        for chain in item.table.chains
        for entry in chain.entries()
        if item.enforced is enforced and chain.hook.stage is stage
    ]
    return list(dict.fromkeys(found))


def _identifier(stage: Stage) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", str(stage))


def _mermaid_lines(names: Sequence[str]) -> str:
    """Mermaid's entity codes are ``#NUMBER;``: no name ends the label or brings HTML of its own."""
    return "<br/>".join(re.sub(r"[\"<>&#;`\\]", lambda at: f"#{ord(at[0])};", printable(name)) for name in names)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
