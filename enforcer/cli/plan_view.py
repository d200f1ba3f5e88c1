"""A plan as a table and as JSON data. Pure except for the console it prints on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from enforcer.cli.console import line
from enforcer.model.vocabulary import Action, Stage

if TYPE_CHECKING:  # plans are shown on hosts where nothing can be applied
    from rich.console import Console

    from enforcer.enforcement.apply import Applied
    from enforcer.enforcement.lockout import Lost, SwitchOn
    from enforcer.planning.plan import InterfacePlan, Plan, PlannedEntry, TrackedPlan
    from enforcer.policy.resources import Failsafe
    from enforcer.policy.ruletable import RuleTable, TrackedPolicy
    from enforcer.policy.tracked import TrackedChain

SCHEMA = "enforcer/plan/v1"

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


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
        "tracked": [_chains_as_dict(item) for item in plan.tracked],
    }


def print_plan(plan: Plan, console: Console) -> None:
    """One table for each interface; a sentence if there is no interface."""
    enforced = {item.interface for item in plan.tracked if item.enforced}
    if not plan.interfaces and not any(item.enforced for item in plan.tracked):
        console.print(line(f"node {plan.node}: no interface has untracked policy; nothing to enforce"), soft_wrap=True)
    for item in plan.interfaces:
        console.print(line(_heading(item), style="bold"), soft_wrap=True)
        for mode, reason in item.mode_reasons:
            console.print(line(f"  not {mode}: {reason}"), soft_wrap=True)
        console.print(_entry_table(item))
        _print_tracked(item.table, console, enforced=item.interface in enforced)
    for table in plan.idle:
        heading = f"{table.interface}: HostEndpoint {table.endpoint}, without untracked policy"
        console.print(line(heading, style="bold"), soft_wrap=True)
        _print_tracked(table, console, enforced=table.interface in enforced)
    for tracked in plan.tracked:
        _print_chains(tracked, console)


def _print_tracked(table: RuleTable, console: Console, *, enforced: bool) -> None:
    for tracked in () if enforced else table.tracked:
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


def _print_chains(plan: TrackedPlan, console: Console) -> None:
    """What is enforced after conntrack and what that closes; or what Calico would enforce."""
    endpoint = f"{plan.interface}: HostEndpoint {plan.table.endpoint}"
    heading, enforced = f"{endpoint}, normal policy enforced ({plan.backend})", "enforced"
    if not plan.enforced:
        heading = f"{endpoint}, normal policy not enforced here (tracked: model); what Calico would do"
        enforced = "Calico would enforce"
    console.print(line(heading, style="bold"), soft_wrap=True)
    for sentence in plan.table.unsupported:
        console.print(line(f"  not all of it is known: {sentence}", style="yellow"), soft_wrap=True)
    for chain in plan.table.chains:
        if not plan.enforced and not (chain.tiers or chain.profiles or chain.end is Action.DENY):
            continue
        console.print(line(f"  {enforced} at {_where(chain)}: {_size(chain)}; {_closes(chain)}"), soft_wrap=True)


def _where(chain: TrackedChain) -> str:
    return f"{chain.hook.stage} ({chain.hook.value})"


def _size(chain: TrackedChain) -> str:
    parts = [(len(chain.tiers), "tier"), (sum(len(tier.entries) for tier in chain.tiers), "entry")]
    parts += [(len(chain.profiles), "profile")] if chain.profiles else []
    return ", ".join(f"{count} {noun if count == 1 else _plural(noun)}" for count, noun in parts)


def _plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def _closes(chain: TrackedChain) -> str:
    """What becomes of new connections that no entry decides on; ESTABLISHED ones pass."""
    denying = [tier.name for tier in chain.tiers if tier.default is Action.DENY]
    if chain.end is not Action.DENY and not denying:
        return "what no entry denies stays open"
    failsafes = ", ".join(dict.fromkeys(map(_failsafe, chain.failsafes)))
    besides = f" and failsafes {failsafes}" if failsafes else ""
    return f"closes everything but what an entry allows{besides}"


def _failsafe(failsafe: Failsafe) -> str:
    name = _PROTOCOLS.get(failsafe.protocol, str(failsafe.protocol))
    net = f" of {failsafe.net}" if failsafe.net is not None and failsafe.net.prefixlen else ""
    return f"{name}/{failsafe.port}{net}"


def _chains_as_dict(plan: TrackedPlan) -> dict[str, Any]:
    return {
        "interface": plan.interface,
        "endpoint": plan.table.endpoint,
        "enforced": plan.enforced,
        "backend": str(plan.backend),
        "chains": [
            {
                "hook": chain.hook.value,
                "stage": str(chain.hook.stage),
                "tiers": [
                    {
                        "tier": tier.name,
                        "entries": [entry.name for entry in tier.entries],
                        "default": str(tier.default),
                    }
                    for tier in chain.tiers
                ],
                "profiles": [profile.name for profile in chain.profiles],
                "failsafes": list(dict.fromkeys(map(_failsafe, chain.failsafes))),
                "closes": _closes(chain),
            }
            for chain in plan.table.chains
        ],
    }


def _tracked_as_dicts(table: RuleTable) -> list[dict[str, Any]]:
    return [{"policy": item.name, "hooks": list(item.hooks), "source": str(item.position)} for item in table.tracked]


def _not_enforced(tracked: TrackedPolicy) -> str:
    where = ", ".join(tracked.hooks)
    return f"{tracked.name} is tracked policy: Calico enforces it at {where}; not enforced (--tracked model)"


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
        "switch_on": _switch_on_as_dict(applied.switch_on),
        "plan": plan_as_dict(applied.plan),
    }


def _switch_on_as_dict(switched: SwitchOn | None) -> dict[str, Any] | None:
    """The first switch-on of policy after conntrack; None where this is none."""
    if switched is None:
        return None
    return {
        "refused": list(switched.refused),
        "cut": [_lost_as_dict(item) for item in switched.cut],
        "waiting": [_lost_as_dict(item) for item in switched.waiting],
        "kept": [_lost_as_dict(item) for item in switched.kept],
    }


def _lost_as_dict(lost: Lost) -> dict[str, Any]:
    return {
        "local": {"address": str(lost.socket.local), "port": lost.socket.local_port},
        "remote": {"address": str(lost.socket.remote), "port": lost.socket.remote_port},
        "served": lost.socket.served,
        "interface": lost.interface,
        "received_denied_by": lost.received or None,
        "sent_denied_by": lost.sent or None,
    }


def _print_switch_on(switched: SwitchOn, console: Console, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for reason in switched.refused:
        console.print(line(f"{would}refused: {reason}"), soft_wrap=True)
    if switched.refused:
        return
    for lost in switched.cut:
        console.print(line(f"{would}cut: {lost}"), soft_wrap=True)
    for lost in switched.waiting:
        console.print(line(f"{would}held up: {lost}"), soft_wrap=True)
    for lost in switched.kept:
        console.print(line(f"kept while conntrack has it: {lost}"), soft_wrap=True)
    known = "established connections that conntrack knows go on, also where normal policy denies them"
    console.print(known, soft_wrap=True)


def print_applied(applied: Applied, console: Console, *, dry_run: bool) -> None:
    """The plan, then the changes."""
    print_plan(applied.plan, console)
    if applied.switch_on is not None:
        _print_switch_on(applied.switch_on, console, dry_run=dry_run)
    if not applied.changes:
        console.print("nothing to change: the kernel state is as desired", soft_wrap=True)
    for change in applied.changes:
        console.print(line(f"{'would change' if dry_run else 'changed'}: {change}"), soft_wrap=True)
