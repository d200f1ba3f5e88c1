"""``enforcer deny``: denies addresses at once, on all hosts that follow the datastore, for some time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enforcer.cli.acts import (
    REFUSED,
    GuardError,
    audit,
    distrust,
    place_of,
    policy_options,
    prune_by_the_way,
    resources_of,
)
from enforcer.cli.support import emit, output_option, verbose_option, warn
from enforcer.model.counted import counted
from enforcer.model.errors import EnforcerError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from enforcer.datastore.writer import Writer
    from enforcer.emergency.commit import Done
    from enforcer.emergency.deny import DenyPlan


@click.command()
@click.argument("cidrs", nargs=-1, metavar="[CIDR]...")
@click.option("-f", "--file", "cidr_file", metavar="FILE", help="A file with one CIDR on each line; - is stdin.")
@click.option("--set", "beside", metavar="NAME", help="The deny list whose labels the act gets. Default: the only one.")
@click.option("--for", "duration", metavar="DURATION", help="How long, such as 30m, 4h or 2d. Default: 4h.")
@click.option("--until", metavar="TIME", help="Until then, such as 2026-11-28T23:10Z.")
@click.option("--permanent", is_flag=True, help="Until 'enforcer allow'.")
@click.option("--reason", default="", help="Why; stored with the act.")
@click.option("--shorten", is_flag=True, help="Let an act with the same CIDRs end earlier.")
@click.option("--force", is_flag=True, help="Deny even what is protected or has no effect; never 0.0.0.0/0.")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--wait", is_flag=True, help="Wait until the agent on this host enforces it, for at most a minute.")
@policy_options
@output_option
@verbose_option
def deny(
    cidrs: tuple[str, ...],
    cidr_file: str | None,
    beside: str | None,
    duration: str | None,
    until: str | None,
    permanent: bool,
    reason: str,
    shorten: bool,
    force: bool,
    dry_run: bool,
    wait: bool,
    node: str,
    datastore: str,
    datastore_config: Path | None,
    emergency_dir: Path | None,
    files: tuple[Path, ...],
    output: str,
) -> int:
    """Deny addresses at once and for a limited time, on every host whose agent follows the datastore.

    Writes a small GlobalNetworkSet with the labels of a deny list, so that each policy that selects the list also
    selects the set. Denying the same CIDRs again extends the act; only --shorten ends it earlier. The policy is
    compiled first: addresses that it would not drop are refused, and so are those that hosts need (gateways,
    resolvers, the datastore, your SSH session, ...). 'enforcer allow' takes them back.

    Exit codes: 1 refused, or not everything was written; 2 bad usage; 3 the datastore does not answer, or denies
    access.

    \b
    Example:
      enforcer deny 203.0.113.9 --policy /etc/enforcer --reason "SYN flood"
      enforcer deny 203.0.113.0/24 2001:db8::/48 --datastore etcd --for 30m --wait
      enforcer deny -f attackers.txt --set dos-mitigation --until 2026-11-28T23:10Z --datastore kubernetes --dry-run
    """
    from enforcer.cli.acts_input import author, end_s, facts_of, networks
    from enforcer.datastore.open import open_writer
    from enforcer.emergency.act import Deed
    from enforcer.emergency.deny import CIDRS_MAX, Wanted, deny_plan

    if beside == "":
        raise UsageError("--set: expected the name of a GlobalNetworkSet, found ''")
    now_s = time.time()
    nets, notes = networks(cidrs, cidr_file)
    if len(nets) > CIDRS_MAX:
        raise UsageError(
            f"{len(nets):,} CIDRs; at most {CIDRS_MAX:,} in one act: put a longer list into network sets of its own"
        )
    who = Deed(int(now_s), author(), reason, end_s(duration, until, permanent, now_s))
    place = place_of(datastore, files, datastore_config, emergency_dir)
    resources = resources_of(place, node)
    wanted = Wanted(nets, who, beside or "", insists=force, shortens=shorten)
    plan = deny_plan(resources, wanted, facts_of(place))
    for note in (*notes, *(() if plan.refused else plan.notes)):
        warn(note)
    if plan.refused:
        raise GuardError("\n".join((*plan.refused, "nothing was written" + _how(plan, force))))
    if plan.acts and who.until_s is not None and (problem := distrust(resources)):
        warn(f"{problem}; the end is as wrong as the clock: {_end(who.until_s)}")
    done: list[Done] = []
    failed = ""
    if not dry_run:
        with open_writer(place) as writer:
            done, failed = _written(writer, plan, shorten=shorten)
            prune_by_the_way(writer, resources)
    result = _as_dict(plan, done, who.until_s, dry_run=dry_run, failed=failed)
    emit(result, output, lambda console: _print(result, console))
    if failed:
        raise GuardError(failed)
    return 0 if not wait or dry_run else _waited([item.act for item in done if item.act])


def _how(plan: DenyPlan, force: bool) -> str:
    return "" if force or plan.final else "; --force writes it anyway"


def _written(writer: Writer, plan: DenyPlan, *, shorten: bool) -> tuple[list[Done], str]:
    """What was written, and why the rest was not. Raises what the first write raises."""
    from enforcer.emergency.commit import Outcome, put

    done: list[Done] = []
    for act in plan.acts:
        try:
            done.append(put(writer, act, shorten=shorten))
        except EnforcerError as error:
            if not done:
                raise
            return done, f"{error}: {_unwritten(plan, done)}"
        except KeyboardInterrupt:
            if done:
                warn(f"{_unwritten(plan, done)}, or take the rest back with 'enforcer allow'")
            raise
        item = done[-1]
        if item.outcome is not Outcome.UNCHANGED and item.act:
            audit("emergency deny", [item.act], by=act.by, reason=act.reason, outcome=item.outcome)
    return done, ""


def _unwritten(plan: DenyPlan, done: list[Done]) -> str:
    return f"{len(plan.acts) - len(done)} of {len(plan.acts)} objects were not written; run it again"


def _waited(acts: list[Any]) -> int:
    from enforcer.cli.acts_wait import wait_for

    if problem := wait_for(acts):
        warn(f"written, but not known to be enforced on this host: {problem}")
        return REFUSED
    return 0


def _as_dict(plan: DenyPlan, done: list[Done], until_s: int | None, *, dry_run: bool, failed: str) -> dict[str, Any]:
    from enforcer.emergency.act import object_of

    outcomes = {item.name: item for item in done}
    return {
        "schema": "enforcer/deny/v1",
        "dry_run": dry_run,
        "set": plan.beside.name,
        "until": None if until_s is None else _end(until_s),
        "objects": [
            {
                "name": act.name,
                "act": act.id,
                "outcome": str(outcomes[act.name].outcome) if act.name in outcomes else None,
                "cidrs": len(act.nets),
                "until": _until(outcomes[act.name].act if act.name in outcomes else act),
                **({"object": object_of(act)} if dry_run else {}),
            }
            for act in plan.acts
        ],
        "covered": [{"cidr": str(net), "by": by} for net, by in (plan.covered or {}).items()],
        "problem": failed or None,
    }


def _until(act: Any) -> str | None:
    return None if act is None or act.until_s is None else _end(act.until_s)


def _end(until_s: int) -> str:
    from enforcer.emergency.times import written

    return written(until_s)


_COVERED_SHOWN = 20


def _print(result: dict[str, Any], console: Console) -> None:
    from enforcer.cli.console import line

    covered = result["covered"]
    for item in covered[:_COVERED_SHOWN]:
        console.print(line(f"{item['cidr']}: already denied by {item['by']}"), soft_wrap=True)
    if len(covered) > _COVERED_SHOWN:
        console.print(line(f"and {len(covered) - _COVERED_SHOWN} more CIDRs that are denied already"), soft_wrap=True)
    words = {
        "created": "denied",
        "changed": "now denied",  # extended, or with --shorten ended earlier
        "unchanged": "already denied",
        None: "would be denied" if result["dry_run"] else "NOT written",
    }
    for item in result["objects"]:
        end = "for ever" if item["until"] is None else f"until {item['until']}"
        text = (
            f"{words[item['outcome']]} {end}: {counted(item['cidrs'], 'CIDR')} beside {result['set']} ({item['name']})"
        )
        console.print(line(text), soft_wrap=True)
