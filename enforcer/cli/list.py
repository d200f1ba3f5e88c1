"""``enforcer list``: the emergency acts, or where an address stands."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enforcer.cli.acts import distrust, place_of, policy_options, resources_of
from enforcer.cli.options import pin_root_option
from enforcer.cli.support import emit, output_option, verbose_option, warn
from enforcer.model.errors import EnforcerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from enforcer.emergency.act import Act
    from enforcer.emergency.listing import Standing

_NETS_SHOWN = 5


@click.command("list")
@click.argument("cidrs", nargs=-1, metavar="[CIDR]...")
@policy_options
@pin_root_option
@output_option
@verbose_option
def list(
    cidrs: tuple[str, ...],
    node: str,
    datastore: str,
    datastore_config: Path | None,
    emergency_dir: Path | None,
    files: tuple[Path, ...],
    pin_root: Path | None,
    output: str,
) -> None:
    """Show the emergency acts: what they deny, for how much longer, since when, by whom and why.

    With an address: each set that contains it, where that set is written, and which entry decides on its packets; as
    root on a host that enforces, also how many packets that entry has dropped here.

    \b
    Example:
      enforcer list --policy /etc/enforcer
      enforcer list 203.0.113.9 --datastore etcd -o json
    """
    from enforcer.cli.acts_input import networks
    from enforcer.emergency.listing import acts_in, standings

    resources = resources_of(place_of(datastore, files, datastore_config, emergency_dir), node)
    now_s = time.time()
    if cidrs:
        nets, notes = networks(cidrs, None)
        for note in notes:
            warn(note)
        found = [*standings(resources, nets)]
        drops = _drops(pin_root)
        data: dict[str, Any] = {
            "schema": "enforcer/standing/v1",
            "addresses": [_standing(item, now_s, drops) for item in found],
        }
        emit(data, output, lambda console: _print_standings(data["addresses"], console))
        return
    acts = acts_in(resources)
    problem = distrust(resources) if any(act.until_s is not None for act in acts) else ""
    data = {"schema": "enforcer/acts/v1", "clock": problem or None, "acts": [_act(act, now_s) for act in acts]}
    emit(data, output, lambda console: _print_acts(data, console))


def _act(act: Act, now_s: float) -> dict[str, Any]:
    from enforcer.emergency.times import written

    return {
        "object": act.name,
        "act": act.id,
        "kind": "exempt" if str(act.kind) == "exempt" else "deny",
        "set": act.beside,
        "nets": [str(net) for net in act.nets],
        "until": None if act.until_s is None else written(act.until_s),
        "left_s": None if act.until_s is None else int(act.until_s - now_s),
        "since": written(act.created_s) if act.created_s else None,
        "by": act.by,
        "reason": act.reason,
        "history": [
            {
                "at": written(deed.at_s),
                "by": deed.by,
                "until": None if deed.until_s is None else written(deed.until_s),
                "reason": deed.reason,
            }
            for deed in act.deeds
        ],
    }


def _standing(item: Standing, now_s: float, drops: Mapping[str, int] | None) -> dict[str, Any]:
    return {
        "cidr": str(item.network),
        "denied_by": [*item.denied_by],
        "passed_by": [*item.passed_by],
        "dropped_packets": None if drops is None else {name: drops.get(name, 0) for name in item.denied_by},
        "sets": [
            {
                "name": held.name,
                "where": held.where,
                "whole": held.whole,
                "act": _act(held.act, now_s) if held.act else None,
            }
            for held in item.holdings
        ],
    }


def _drops(pin_root: Path | None) -> Mapping[str, int] | None:
    """How many packets each entry has matched on this host, at any stage; None where that cannot be read."""
    from enforcer.cli.driver import enforcer_of
    from enforcer.cli.support import require_privilege

    found: Counter[str] = Counter()
    try:
        require_privilege("reading counters", xdp=False)
        for count in enforcer_of("", pin_root).counters():
            found[count.entry] += count.packets
    except (EnforcerError, OSError):
        return None
    return found


def _print_acts(data: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    from enforcer.cli.console import line
    from enforcer.emergency.times import left

    if data["clock"]:
        console.print(line(f"what is left may be wrong: {data['clock']}"), soft_wrap=True)
    if not data["acts"]:
        console.print("no emergency acts")
        return
    names = ("cidr", "what", "beside", "left", "since", "by", "reason", "object")
    table = Table(*names, box=None, pad_edge=False, header_style="dim")
    for act in data["acts"]:
        shown, more = act["nets"][:_NETS_SHOWN], len(act["nets"]) - _NETS_SHOWN
        last = "for ever" if act["left_s"] is None else left(act["left_s"])
        nets = [*shown, *([f"and {more} more"] if more > 0 else [])]
        for at, net in enumerate(nets):
            rest = (act["kind"], act["set"], last, act["since"] or "", act["by"], act["reason"], act["object"])
            table.add_row(*(line(cell) for cell in (net, *(rest if at == 0 else [""] * len(rest)))))
    console.print(table)


def _print_standings(found: Any, console: Console) -> None:
    from enforcer.cli.console import line

    for item in found:
        console.print(line(f"{item['cidr']}: {_verdict(item)}", style="bold"), soft_wrap=True)
        for held in item["sets"]:
            console.print(line(f"  {_held(held)}"), soft_wrap=True)


def _verdict(item: dict[str, Any]) -> str:
    passes = f"; {', '.join(item['passed_by'])} lets some pass first" if item["passed_by"] else ""
    if not item["denied_by"]:
        if any(not held["whole"] for held in item["sets"]):
            return "not denied as a whole" + passes
        return "not denied" + passes.replace("some pass", "it pass")
    drops = item["dropped_packets"]
    counts = [f"{name} ({drops[name]:,} packets here)" if drops else name for name in item["denied_by"]]
    return f"denied by {', '.join(counts)}{passes}"


def _held(held: dict[str, Any]) -> str:
    from enforcer.emergency.times import left

    part = "in" if held["whole"] else "partly in"
    act = held["act"]
    if act is None:
        return f"{part} {held['name']} ({held['where']})"
    end = "for ever" if act["left_s"] is None else f"{left(act['left_s'])} left"
    why = f": {act['reason']}" if act["reason"] else ""
    return f"{part} {held['name']}, {act['kind']}, {end}, since {act['since']} by {act['by']}{why}"
