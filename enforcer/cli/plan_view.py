"""A plan as a table and as JSON data. Pure except for the console it prints on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from enforcer.cli.console import line
from enforcer.model.vocabulary import Stage

if TYPE_CHECKING:  # plans are shown on hosts where nothing can be applied
    from rich.console import Console

    from enforcer.enforcement.apply import Applied
    from enforcer.planning.plan import InterfacePlan, Plan, PlannedEntry
    from enforcer.policy.ruletable import RuleTable, TrackedPolicy

SCHEMA = "enforcer/plan/v1"


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON data: for each interface the mode, the entries of each stage, and every reason."""
    return {
        "schema": SCHEMA,
        "node": plan.node,
        "interfaces": [_interface_as_dict(item) for item in plan.interfaces],
        "idle": [
            {"interface": table.interface, "endpoint": table.endpoint, "tracked": _tracked_as_dicts(table)}
            for table in plan.idle
        ],
    }


def print_plan(plan: Plan, console: Console) -> None:
    """One table for each interface; a sentence if there is no interface."""
    if not plan.interfaces:
        console.print(line(f"node {plan.node}: no interface has untracked policy; nothing to enforce"), soft_wrap=True)
    for item in plan.interfaces:
        console.print(line(_heading(item), style="bold"), soft_wrap=True)
        for mode, reason in item.mode_reasons:
            console.print(line(f"  not {mode}: {reason}"), soft_wrap=True)
        console.print(_entry_table(item))
        _print_tracked(item.table, console)
    for table in plan.idle:
        heading = f"{table.interface}: HostEndpoint {table.endpoint}, without untracked policy"
        console.print(line(heading, style="bold"), soft_wrap=True)
        _print_tracked(table, console)


def _print_tracked(table: RuleTable, console: Console) -> None:
    for tracked in table.tracked:
        console.print(line(f"  {_not_enforced(tracked)} ({tracked.position})"), soft_wrap=True)


def stages_of(plan: InterfacePlan) -> dict[Stage, list[str]]:
    """The names of the entries enforced at each stage, earliest stage first; stages without entries are omitted."""
    stages: dict[Stage, list[str]] = {}
    for item in plan.entries:
        stages.setdefault(item.stage, []).append(item.entry.name)
    return {stage: stages[stage] for stage in Stage if stage in stages}


def _interface_as_dict(plan: InterfacePlan) -> dict[str, Any]:
    return {
        "interface": plan.interface,
        "endpoint": plan.table.endpoint,
        "mode": plan.mode and str(plan.mode),
        "netdev_ingress": plan.netdev,
        "raw_backend": str(plan.raw_backend),
        "raw_backend_reason": plan.raw_reason,
        "modes_not_used": [{"mode": str(mode), "reason": reason} for mode, reason in plan.mode_reasons],
        "stages": {str(stage): names for stage, names in stages_of(plan).items()},
        "entries": [_entry_as_dict(item) for item in plan.entries],
        "tracked": _tracked_as_dicts(plan.table),
    }


def _tracked_as_dicts(table: RuleTable) -> list[dict[str, Any]]:
    return [{"policy": item.name, "hooks": list(item.hooks), "source": str(item.position)} for item in table.tracked]


def _not_enforced(tracked: TrackedPolicy) -> str:
    where = ", ".join(tracked.hooks)
    return f"{tracked.name} is tracked policy: Calico enforces it at {where}; here it is neither enforced nor predicted"


def _entry_as_dict(item: PlannedEntry) -> dict[str, Any]:
    return {
        "entry": item.entry.name,
        "direction": str(item.entry.direction),
        "action": str(item.entry.action),
        "stage": str(item.stage),
        "reason": item.reason,
        "source": str(item.entry.position),
    }


def _heading(plan: InterfacePlan) -> str:
    where = f"{plan.early}, then raw" if plan.early else "raw only"
    if plan.mode:
        where = f"{plan.early} (XDP {plan.mode}), then raw"
    return f"{plan.interface}: HostEndpoint {plan.table.endpoint}, enforced at {where} ({_raw(plan)})"


def _raw(plan: InterfacePlan) -> str:
    return f"{plan.raw_backend}: {plan.raw_reason}" if plan.raw_reason else str(plan.raw_backend)


def _entry_table(plan: InterfacePlan) -> Table:
    table = Table("entry", "action", "stage", "why not earlier", "from", box=None, pad_edge=False, header_style="dim")
    for item in plan.entries:
        entry = item.entry
        cells = (entry.name, entry.action, item.stage, item.reason or "-", entry.position)
        table.add_row(*(line(str(cell)) for cell in cells))
    return table


def applied_as_dict(applied: Applied, *, dry_run: bool) -> dict[str, Any]:
    """A pass as JSON data. In a dry run ``changes`` are those that would be made."""
    return {
        "schema": "enforcer/apply/v1",
        "dry_run": dry_run,
        "changes": list(applied.changes),
        "warnings": list(applied.warnings),
        "plan": plan_as_dict(applied.plan),
    }


def print_applied(applied: Applied, console: Console, *, dry_run: bool) -> None:
    """The plan, then the changes."""
    print_plan(applied.plan, console)
    if not applied.changes:
        console.print("nothing to change: the kernel state is as desired", soft_wrap=True)
    for change in applied.changes:
        console.print(line(f"{'would change' if dry_run else 'changed'}: {change}"), soft_wrap=True)
