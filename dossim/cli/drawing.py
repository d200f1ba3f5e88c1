"""The packet pipeline with a plan's entries at the stages that enforce them, for Mermaid and Graphviz. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dossim.pipeline.graph import pipeline_graph, to_dot, to_mermaid
from enforcer.model.printable import printable
from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import Plan


def as_mermaid(plan: Plan) -> str:
    """The flowchart; a node that is written again gets its new label."""
    lines = [
        f'    {re.sub(r"[^A-Za-z0-9_]", "_", str(stage))}["<b>{stage}</b><br/>{_mermaid_lines(names)}"]:::enforcing'
        for stage, names in _enforcing(plan)
    ]
    return to_mermaid(pipeline_graph()) + "\n".join([*lines, "    classDef enforcing stroke-width:3px"]) + "\n"


def as_dot(plan: Plan) -> str:
    """The graph; attributes given later add to a node."""
    text = to_dot(pipeline_graph()).rstrip().removesuffix("}")
    lines = [
        f'    "{stage}" [penwidth=3, label="{stage}\\n{_escaped(chr(10).join(map(printable, names)))}"];'
        for stage, names in _enforcing(plan)
    ]
    return text + "\n".join([*lines, "}"]) + "\n"


def _enforcing(plan: Plan) -> Iterator[tuple[Stage, list[str]]]:
    for stage in Stage:
        names = [
            f"{interface.interface}: {item.entry.action} {item.entry.name}"
            for interface in plan.interfaces
            for item in interface.entries
            if item.stage is stage
        ]
        if names:
            yield stage, names


def _mermaid_lines(names: Sequence[str]) -> str:
    """Mermaid's entity codes are ``#NUMBER;``: no name ends the label or brings HTML of its own."""
    return "<br/>".join(re.sub(r"[\"<>&#;`\\]", lambda at: f"#{ord(at[0])};", printable(name)) for name in names)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
