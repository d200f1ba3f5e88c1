"""``enforcer allow``: takes addresses out of emergency acts, and says where else they are denied."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enforcer.cli.acts import REFUSED, GuardError, audit, place_of, policy_options, prune_by_the_way, resources_of
from enforcer.cli.support import emit, output_option, verbose_option, warn
from enforcer.model.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from enforcer.datastore.writer import Writer
    from enforcer.emergency.act import Act
    from enforcer.emergency.allow import AllowPlan
    from enforcer.emergency.commit import Done
    from enforcer.model.nets import IPNetwork
    from enforcer.policy.resources import Resources

_PIECES_SHOWN, _SENTENCES_SHOWN = 32, 20
_SPLIT_MAX = 2000  # CIDRs: each may leave 24 of a network, of IPv6 128, and all of them are one object


@click.command()
@click.argument("cidrs", nargs=-1, metavar="[CIDR]...")
@click.option("-f", "--file", "cidr_file", metavar="FILE", help="A file with one CIDR on each line; - is stdin.")
@click.option("--split", is_flag=True, help="Replace a wider network of an act with what remains of it.")
@click.option(
    "--exempt", is_flag=True, help="If a list denies it, add an exception beside the policy's list of exceptions."
)
@click.option("--reason", default="", help="Why; stored with the exception and in the log.")
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@click.option("--wait", is_flag=True, help="Wait until the agent on this host enforces it, for at most a minute.")
@policy_options
@output_option
@verbose_option
def allow(
    cidrs: tuple[str, ...],
    cidr_file: str | None,
    split: bool,
    exempt: bool,
    reason: str,
    dry_run: bool,
    wait: bool,
    node: str,
    datastore: str,
    datastore_config: Path | None,
    emergency_dir: Path | None,
    files: tuple[Path, ...],
    output: str,
) -> int:
    """Remove addresses, and all networks within them, from emergency acts. Changes only emergency objects.

    If an act denies a wider network, only --split replaces it with what remains of it. If a list also denies the
    address, the command says where, and exits with 1: the address is still denied. --exempt then adds an exception, if
    the policy has a list of exceptions.

    Exit codes: 0 no longer denied; 1 still denied; 2 bad usage; 3 the datastore does not answer, or denies access.

    \b
    Example:
      enforcer allow 203.0.113.9 --policy /etc/enforcer
      enforcer allow 203.0.113.9 --datastore etcd --split --wait
    """
    from enforcer.cli.acts_input import author, networks
    from enforcer.datastore.open import open_writer
    from enforcer.emergency.allow import allow_plan
    from enforcer.emergency.deny import CIDRS_MAX

    nets, notes = networks(cidrs, cidr_file)
    if len(nets) > (most := _SPLIT_MAX if split or exempt else CIDRS_MAX):
        raise UsageError(
            f"{len(nets):,} CIDRs; at most {most:,}{' with --split or --exempt' if split or exempt else ''}"
        )
    place = place_of(datastore, files, datastore_config, emergency_dir)
    resources = resources_of(place, node)
    plan = allow_plan(resources, nets, split=split)
    for note in notes:
        warn(note)
    exception = _exception(resources, plan, reason, author()) if exempt and plan.elsewhere else []
    done: list[Done] = []
    if not dry_run:
        with open_writer(place) as writer:
            done = _lift(writer, plan, nets, author(), reason, split=split)
            if exception:
                from enforcer.emergency.commit import put

                done += [put(writer, act) for act in exception]
                audit("emergency exception", exception, by=author(), reason=reason)
            prune_by_the_way(writer, resources)
    if split:
        plan = replace(plan, wider=())
    if exception:
        plan = replace(plan, elsewhere=())
    rest = _still_denied(plan)
    result = _as_dict(plan, exception, done, rest, dry_run=dry_run)
    emit(result, output, lambda console: _print(result, console))
    if rest:
        more = len(rest) - _SENTENCES_SHOWN
        raise GuardError("\n".join([*rest[:_SENTENCES_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]))
    return 0 if not wait or dry_run else _waited(done)


def _lift(
    writer: Writer, plan: AllowPlan, nets: Sequence[IPNetwork], who: str, reason: str, *, split: bool
) -> list[Done]:
    from enforcer.emergency.allow import lifted
    from enforcer.emergency.commit import Outcome, edit

    done = []
    for act in plan.changed:
        item = edit(writer, act.name, lambda held: lifted(held, nets, split=split))
        done.append(item)
        if item.act and item.outcome in (Outcome.CHANGED, Outcome.DELETED):
            audit("emergency allow", [item.act], by=who, reason=reason, outcome=item.outcome)
    return done


def _exception(resources: Resources, plan: AllowPlan, reason: str, who: str) -> list[Act]:
    """The acts that exempt what lists deny. Raises UsageError, and GuardError for what is too wide, or where the policy
    has no list of exceptions.
    """
    from enforcer.emergency.act import Deed, Kind, acts_of
    from enforcer.emergency.beside import exemption_list
    from enforcer.emergency.effect import tables_of
    from enforcer.emergency.protection import WIDEST

    nets = list(dict.fromkeys(item.network for item in plan.elsewhere))
    if wide := [f"{net} is wider than /{WIDEST[net.version]}" for net in nets if net.prefixlen < WIDEST[net.version]]:
        raise GuardError("\n".join((*wide, "so wide an exception would undo the policy; nothing was written")))
    tables, _ = tables_of(resources)
    beside = exemption_list(resources, tables)
    if beside is None:
        entries = ", ".join(dict.fromkeys(item.entry for item in plan.elsewhere))
        raise GuardError(
            f"untracked policy has no list of exceptions: before {entries}, add a rule {{action: Allow, source: "
            "{selector: \"allow == 'exceptions'\"}} and a GlobalNetworkSet with the label allow: exceptions"
        )
    deed = Deed(int(time.time()), who, reason, None)
    return acts_of(nets, beside=beside.name, labels=beside.labels, deed=deed, kind=Kind.EXEMPT)


def _still_denied(plan: AllowPlan) -> list[str]:
    """A sentence for each thing that denies still."""
    found = []
    for item in plan.wider:
        pieces = [str(piece) for piece in item.pieces[:_PIECES_SHOWN]]
        more = f" and {len(item.pieces) - _PIECES_SHOWN} more" if len(item.pieces) > _PIECES_SHOWN else ""
        found.append(
            f"still denied: {item.act} has {item.network}, which is wider; --split replaces it with "
            f"{len(item.pieces)} CIDRs: {', '.join(pieces)}{more}"
        )
    for where in plan.elsewhere:
        how = f"add it to 'protected' of feeds.yaml, feed {where.feed}" if where.feed else "take it out of that list"
        found.append(
            f"still denied: {where.network} is in {where.holder} ({where.where}), which {where.entry} denies; {how}, "
            "or use --exempt"
        )
    return found


def _waited(done: list[Done]) -> int:
    from enforcer.cli.acts_wait import wait_for
    from enforcer.emergency.commit import Outcome

    gone = [item.name for item in done if item.outcome is Outcome.DELETED]
    if problem := wait_for([item.act for item in done if item.act and item.name not in gone], gone):
        warn(f"changed, but not known to be enforced on this host: {problem}")
        return REFUSED
    return 0


def _as_dict(
    plan: AllowPlan, exception: list[Act], done: list[Done], rest: list[str], *, dry_run: bool
) -> dict[str, Any]:
    outcomes = {item.name: str(item.outcome) for item in done}
    names = dict.fromkeys((*(act.name for act in (*plan.changed, *exception)), *outcomes))
    return {
        "schema": "enforcer/allow/v1",
        "dry_run": dry_run,
        "objects": [{"name": name, "outcome": outcomes.get(name)} for name in names],
        "denied_by": [
            *({"cidr": str(item.network), "object": item.act, "where": None} for item in plan.wider),
            *(
                {"cidr": str(item.network), "object": item.holder, "where": item.where, "entry": item.entry}
                for item in plan.elsewhere
            ),
        ],
        "still_denied": rest,
    }


def _print(result: dict[str, Any], console: Console) -> None:
    from enforcer.cli.console import line

    for item in result["objects"]:
        would = "would be created" if item["name"].startswith("enforcer-exempt-") else "would be changed"
        console.print(line(f"{item['name']}: {item['outcome'] or would}"), soft_wrap=True)
    if not (result["objects"] or result["denied_by"]):
        console.print("no emergency act has it, and no list denies it")
    elif not (result["dry_run"] or result["still_denied"]):
        console.print("no emergency act and no list denies it any more")
