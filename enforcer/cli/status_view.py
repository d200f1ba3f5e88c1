"""Status and counters as tables and as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from enforcer.cli.agent_view import AgentStatus, agent_as_dict, agent_lines
from enforcer.cli.console import line
from enforcer.enforcement.confirmation import TrialState
from enforcer.model.counted import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from enforcer.backends.base import EntryCount
    from enforcer.enforcement.confirmation import Trial
    from enforcer.enforcement.status import InterfaceStatus

NO_AGENT = "no agent runs: changes by other programs are not repaired"
NOTHING = "nothing is enforced in this network namespace"


def status_as_dict(
    statuses: Sequence[InterfaceStatus], agent: AgentStatus | None = None, trial: Trial | None = None
) -> dict[str, Any]:
    """The status as JSON data. ``agent``: the one that runs in this network namespace; ``trial``: normal policy that
    waits for a confirmation there, or had none.
    """
    return {
        "schema": "enforcer/status/v1",
        "agent": agent_as_dict(agent) if agent else None,
        "datastore": agent.report["datastore"] if agent and agent.report else None,
        "trial": _trial_as_dict(trial) if trial else None,
        "interfaces": [_interface_as_dict(item) for item in statuses],
    }


def _trial_as_dict(trial: Trial) -> dict[str, Any]:
    return {
        "state": str(trial.state),
        "until": trial.until,
        "left_s": round(max(trial.left_s, 0.0), 1),
        "pid": trial.pid or None,
    }


def trial_line(trial: Trial, agent: AgentStatus | None) -> str:
    """Until when normal policy is on trial, and what happens then."""
    if trial.state is TrialState.ROLLED_BACK:
        return (
            "normal policy was not confirmed in time and was rolled back; no agent switches it on again before "
            "'enforcer apply --tracked enforce' has, or the host boots"
        )
    confirm = "unless 'enforcer confirm' is run"
    if trial.state is TrialState.PENDING:
        when = f"until {trial.until} ({max(trial.left_s, 0):.0f} s)"
        return f"normal policy is on trial {when}: then it is rolled back by pid {trial.pid}, {confirm}"
    over = f"was on trial until {trial.until}" if trial.left_s <= 0 else f"is on trial until {trial.until}"
    killed = f"the process that was to roll it back ({trial.pid or 'unknown pid'}) was killed, and nothing else does"
    by = "the agent" if agent else "'enforcer apply' or an agent"
    return f"normal policy {over}, but {killed}: it STAYS enforced until {by} rolls it back, {confirm}"


def counters_as_dict(counts: Sequence[EntryCount]) -> dict[str, Any]:
    """The counters as JSON data."""
    return {"schema": "enforcer/counters/v1", "counters": [_count_as_dict(count) for count in counts]}


def print_status(
    statuses: Sequence[InterfaceStatus],
    console: Console,
    agent: AgentStatus | None = None,
    trial: Trial | None = None,
) -> None:
    """What the agent says and what is on trial, then for each interface a line, how full its sets are, and its
    counters.
    """
    for text in agent_lines(agent) if agent else (NO_AGENT,):
        console.print(line(text), soft_wrap=True)
    if trial:
        style = "red bold" if trial.state is TrialState.KILLED else "yellow bold"
        console.print(line(trial_line(trial, agent), style=style), soft_wrap=True)
    if not statuses:
        console.print(NOTHING)
    for item in statuses:
        console.print(line(_heading(item), style="bold"), soft_wrap=True)
        for fill in item.fills:
            limit = "" if fill.limit is None else f" of {fill.limit:,}"
            console.print(line(f"  {fill.stage}: {fill.holder}: {fill.used:,}{limit}"), soft_wrap=True)
        print_counters(item.counts, console)


def _heading(item: InterfaceStatus) -> str:
    """The actual state, not the desired one: rules with an interface name have no effect without that interface."""
    entries = counted(len(item.entries), "entry", "entries")
    raw = f"raw through {item.raw_backend}" if item.raw_backend else "raw"
    if item.stage is None:
        return f"{item.interface}: no such interface, nothing is enforced ({raw} is ready for it), {entries}"
    if item.mode and item.attached_to and item.attached_to != item.interface:
        return (
            f"{item.interface}: renamed to {item.attached_to}; enforced there at {item.stage} (XDP {item.mode}), "
            f"not in raw, {entries}"
        )
    how = f"XDP {item.mode}, then {raw}" if item.mode else f"no XDP, {raw}"
    if item.mode and not item.raw_backend:
        how = f"XDP {item.mode}, nothing in raw"
    if item.netdev and not item.mode:
        how = f"no XDP, but nftables, then {raw}"
    return f"{item.interface}: enforced at {item.stage} ({how}), {entries}"


def print_counters(counts: Sequence[EntryCount], console: Console, *, per_cpu: bool = False) -> None:
    """One table of all counters; with ``per_cpu``, also the packets of each CPU that counted any."""
    if not counts:
        console.print(NOTHING)
        return
    table = Table("interface", "entry", "stage", box=None, pad_edge=False, header_style="dim")
    table.add_column("packets", justify="right")
    table.add_column("bytes", justify="right")
    if per_cpu:
        table.add_column("packets by CPU, since the last change of policy")
    for count in counts:
        cells = [count.interface, count.entry, count.stage, count.packets, count.bytes]
        if per_cpu:
            cells.append(
                ", ".join(f"{cpu}: {packets}" for cpu, (packets, _) in enumerate(count.cpus) if packets) or "-"
            )
        table.add_row(*(line(str(cell)) for cell in cells))
    console.print(table)


def _interface_as_dict(item: InterfaceStatus) -> dict[str, Any]:
    return {
        "interface": item.interface,
        "mode": item.mode and str(item.mode),
        "stage": item.stage and str(item.stage),
        "present": item.present,
        "attached_to": item.attached_to or None,
        "raw_backend": item.raw_backend and str(item.raw_backend),
        "entries": list(item.entries),
        "capacity": [
            {"holder": fill.holder, "stage": str(fill.stage), "used": fill.used, "limit": fill.limit}
            for fill in item.fills
        ],
        "counters": [_count_as_dict(count) for count in item.counts],
    }


def _count_as_dict(count: EntryCount) -> dict[str, Any]:
    return {
        "interface": count.interface,
        "entry": count.entry,
        "stage": str(count.stage),
        "packets": count.packets,
        "bytes": count.bytes,
        "cpus": [{"packets": packets, "bytes": size} for packets, size in count.cpus],
    }
