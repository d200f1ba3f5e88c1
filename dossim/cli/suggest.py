"""``dossim suggest``: which deny list fits into a budget. Needs no privilege."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dossim.cli.options import (
    CAPTURE,
    OUTPUT,
    STDOUT,
    HostOptions,
    PolicyCommand,
    capture_options,
    open_capture,
    output_file,
)
from dossim.cli.outputs import takes_stdout, write
from enforcer.cli.options import mode_option
from enforcer.cli.support import NonEmptyPath, echo, require_nonempty, verbose_option
from enforcer.model.counted import counted
from enforcer.model.errors import UsageError

if TYPE_CHECKING:
    from dossim.packet.capture import Reading
    from dossim.report.suggestion import SuggestionView
    from dossim.suggest.job import Done, Job
    from enforcer.model.nets import IPNetwork

_BUDGET = 1000
_BUDGET_MAX = 60_000  # a list of more is rather a feed; the engine holds some thousands more
_PERCENT = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?%")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")  # a label's value has 63 characters
NOTHING_HELPS = 1
PAGE = "dossim.report.suggestion_html"


def _share(ctx: click.Context, param: click.Parameter, text: str) -> float:
    found = _PERCENT.fullmatch(text.strip())
    value = float(found[1]) / 100 if found else 2.0
    if value > 1:
        raise click.BadParameter(f"{text!r}: expected a share of 0% to 100%, such as 0.1%", ctx, param)
    return value


def _label(ctx: click.Context, param: click.Parameter, text: str) -> str:
    if not _NAME.fullmatch(text):
        expected = "expected 1 to 32 lower case letters, digits and '-', beginning and ending with a letter or digit"
        raise click.BadParameter(f"{text!r}: {expected}", ctx, param)
    return text


@click.command(cls=PolicyCommand)
@click.argument("attack", type=CAPTURE)
@click.option(
    "--baseline",
    type=CAPTURE,
    metavar="CAPTURE",
    help="What the host received before the attack: what the list must not deny.",
)
@click.option(
    "--attack-filter",
    callback=require_nonempty,
    metavar="EXPR",
    help="Which packets of ATTACK are the attack: a tcpdump filter. Without --baseline, the others are the baseline.",
)
@click.option("--all-is-attack", is_flag=True, help="There is no baseline: all packets of ATTACK are the attack.")
@click.option(
    "--budget",
    type=click.IntRange(1, _BUDGET_MAX),
    default=_BUDGET,
    show_default=True,
    metavar="N",
    help="The largest number of networks and rules in the list.",
)
@click.option(
    "--max-collateral",
    "limit",
    callback=_share,
    default="0.1%",
    show_default=True,
    metavar="SHARE",
    help="The largest share of the baseline's packets that the list may deny.",
)
@click.option(
    "--protect", multiple=True, metavar="CIDR", help="A network that the list must not overlap. May be repeated."
)
@click.option("--only-sources", is_flag=True, help="Only networks, no rules with protocol and port.")
@click.option(
    "-p",
    "--policy",
    type=NonEmptyPath(exists=True, allow_dash=True, path_type=Path),
    multiple=True,
    metavar="PATH...",
    help="The current policy: its addresses are protected, and the list gets the labels of its deny list.",
)
@click.option("--node", callback=require_nonempty, help="The node, if the policy has HostEndpoints of several nodes.")
@click.option("--interface", callback=require_nonempty, help="The receiving interface.")
@click.option("--address", multiple=True, metavar="CIDR", help="An address of the host. May be repeated.")
@click.option(
    "--set", "beside", default="", metavar="NAME", help="The deny list whose labels to use, if the policy has several."
)
@click.option(
    "--name",
    callback=_label,
    default="suggested",
    show_default=True,
    help="Name of the resources that are written, or the prefix of their names.",
)
@capture_options
@mode_option
@click.option(
    "-o",
    "--output",
    "output_file",
    type=OUTPUT,
    metavar="FILE",
    help="Write the list as Calico resources; - is stdout.",
)
@output_file("json", "Write the result as JSON")
@output_file("html", "Write a page with the curve")
@verbose_option
def suggest(
    attack: Path,
    baseline: Path | None,
    attack_filter: str | None,
    all_is_attack: bool,
    budget: int,
    limit: float,
    protect: tuple[str, ...],
    only_sources: bool,
    policy: tuple[Path, ...],
    node: str | None,
    interface: str | None,
    address: tuple[str, ...],
    beside: str,
    name: str,
    reading: Reading,
    mode: str,
    output_file: str | None,
    json_file: str | None,
    html_file: str | None,
) -> int:
    """Suggest the deny list that blocks most of the attack in the capture ATTACK within a budget, and hardly any of a
    baseline. Exit code 1: no list helps, and none is written.

    \b
    Example:
      dossim suggest attack.pcap --baseline before.pcap -o gns.yaml
      dossim suggest attack.pcap --attack-filter 'udp src port 123' --budget 100 --html list.html
    """
    from dossim.packet.bpf_filter import matching
    from dossim.report.json import dumps
    from dossim.report.suggestion import as_dict
    from dossim.suggest.job import AlreadyDenied, Job, run
    from enforcer.cli.yaml_output import as_yaml
    from enforcer.policy.resources import Resources

    if html_file:  # needs the simulator: better said before anything is written
        import_module(PAGE)
    if str(attack) == str(baseline) == STDOUT:
        raise UsageError("the attack and the baseline cannot both come from stdin (-)")
    alone = takes_stdout([output_file, json_file, html_file], [attack, *filter(None, [baseline]), *policy])
    if baseline is None and not attack_filter and not all_is_attack:
        raise UsageError(
            "what is the attack? Give --baseline CAPTURE (what the host receives usually), --attack-filter EXPR (which "
            "packets are the attack), or --all-is-attack"
        )
    if all_is_attack and (baseline is not None or attack_filter):
        raise UsageError("--all-is-attack: with --baseline or --attack-filter it is known what is not attack")
    host = HostOptions(policy, node, interface, address, forward=False, listen=())
    capture = open_capture(attack, reading, host)
    usual = None if baseline is None else open_capture(baseline, reading, host)
    is_attack = matching(capture, attack_filter, "--attack-filter") if attack_filter else None
    resources = host.resources() if policy else Resources()
    job = Job(
        capture,
        is_attack,
        usual,
        host.situation(resources, capture=capture, mode=mode),
        budget,
        limit,
        name,
        beside,
        _nets(protect),
        only_sources,
    )
    try:
        done = run(job)
    except AlreadyDenied as found:
        echo(found, err=alone)
        return 0
    if output_file and done.documents:
        write(output_file, "---\n".join(as_yaml(item) for item in done.documents))
    view = _view(job, done, attack_filter, output_file)
    if json_file:
        write(json_file, dumps(as_dict(view)))
    if html_file:
        write(html_file, import_module(PAGE).suggestion_html(view, title=f"Which deny list against {capture.path}?"))
    if not alone:
        _print(view)
    elif not view.suggestion.helps:
        echo(view.verdict, err=True)
    return 0 if view.suggestion.helps else NOTHING_HELPS


def _view(job: Job, done: Done, expression: str | None, output: str | None) -> SuggestionView:
    from dossim.report.suggestion import SuggestionView

    found = done.suggestion
    which = f" that match {expression!r}" if expression else ""
    usual = "none: legitimate traffic is assumed to come evenly from all addresses"
    if found.baseline is not None:
        where = f"{job.baseline.path}: all" if job.baseline is not None else f"{job.attack.path}: the other"
        usual = f"{where} {counted(found.baseline.total)}"
    return SuggestionView(
        found,
        attack_text=f"{job.attack.path}: {counted(found.attack.total)}{which}",
        baseline_text=usual,
        about=done.about,
        protected=done.protected,
        written="" if output is None else _written(output, done),
        ends=done.ends,
    )


def _written(output: str, done: Done) -> str:
    if not done.documents:
        return f"nothing into {output}"
    names = ", ".join(f"{item['kind']} {item['metadata']['name']}" for item in done.documents)
    return f"{output}: {names}"


_STYLES = {"": "", "dim": "dim", "warn": "yellow", "good": "green bold"}


def _print(view: SuggestionView) -> None:
    from rich.table import Table

    from dossim.report.suggestion import lines, point_text
    from enforcer.cli.console import console_for, line

    console = console_for(sys.stdout)
    for text, meant in lines(view):
        console.print(line(text, _STYLES[meant]), soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("list", "size", "blocked", "collateral"):
        table.add_column(title, justify="left" if title == "list" else "right")
    for point in view.suggestion.curve:
        is_it = point.size == view.suggestion.here.size and view.suggestion.helps
        name = "sources, not suggested" if view.suggestion.forged else "suggested" if is_it else ""
        table.add_row(name, f"{point.size:,}", *point_text(point, view.suggestion))
    for length, point in view.suggestion.instead.items() if view.suggestion.helps else ():
        table.add_row(f"busiest /{length}", f"{point.size:,}", *point_text(point, view.suggestion))
    console.print(table)


def _nets(texts: Sequence[str]) -> tuple[IPNetwork, ...]:
    try:
        return tuple(ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise UsageError(f"--protect: {error}") from error
