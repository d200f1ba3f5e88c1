"""``dossim plan``: per interface and stage the entries enforced there, and why not earlier."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dossim.cli.options import EXISTING, PolicyCommand, policy_option, rate_option, unknown_node
from enforcer.cli.console import console_for, line
from enforcer.cli.options import mode_option, netdev_ingress_option, raw_backend_option, tracked_option
from enforcer.cli.support import echo, echo_json, require_nonempty, verbose_option
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.errors import UnsupportedRuleError, UsageError

if TYPE_CHECKING:
    from dossim.exhaustion.table import Table
    from enforcer.model.facts import HostFacts
    from enforcer.planning.plan import Plan
    from enforcer.policy.resources import Resources

FORMATS = ("text", "json", "mermaid", "dot")
ASSUMED = "note: without --host, interfaces are assumed to have native and generic XDP and no offload"


@click.command(cls=PolicyCommand)
@policy_option
@click.option(
    "--host",
    "facts_file",
    type=EXISTING,
    metavar="FACTS",
    help="Facts of the real host: the output of 'enforcer probe -o yaml'.",
)
@click.option(
    "--node",
    callback=require_nonempty,
    help="The node. Default: the one in FACTS, else the only one with HostEndpoints.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Output format.")
@rate_option
@mode_option
@raw_backend_option
@netdev_ingress_option
@tracked_option
@verbose_option
def plan(
    policy: tuple[Path, ...],
    facts_file: Path | None,
    node: str | None,
    form: str,
    rate: int | None,
    mode: str,
    raw_backend: str,
    netdev_ingress: bool,
    tracked: str,
) -> None:
    """Show which stage of each interface enforces which entries, the reason for every fallback, and what would
    fill the connection tracking table.

    The formats mermaid and dot draw the packet pipeline with the entries at their stages.

    \b
    Example:
      enforcer probe -o yaml > jasper.yaml        (on the host, as root)
      dossim plan -p policies/ --host jasper.yaml
    """
    from dossim.cli.facts import read_facts
    from dossim.exhaustion.table import assumed_table, table_of
    from enforcer.policy.load import load

    resources = load(policy)
    if facts_file is None:
        echo(ASSUMED, err=True)
        facts = _assumed_facts(resources, node)
    else:
        facts = read_facts(facts_file)
    if node is not None:
        unknown = unknown_node(resources, node)
    else:
        unknown = "" if facts_file is None else unknown_node(resources, facts.node, f"{facts_file}: node {facts.node}")
        unknown += "; see --node" if unknown else ""
    if unknown:
        echo(f"note: {unknown}", err=True)
    for note in resources.notes:
        echo(f"note: {note}", err=True)
    for item in resources.felix_unknown(node or facts.node):
        echo(
            f"note: {item.position}: FelixConfiguration {item.name} is not applied: no Node resource has the labels "
            f"of node {node or facts.node}, which its nodeSelector needs",
            err=True,
        )
    table = assumed_table() if facts_file is None else table_of(facts.conntrack)
    choice = TrackedChoice(tracked)
    where = node or facts.node
    made = plan_of(resources, facts, where, mode, raw_backend, netdev=netdev_ingress, tracked=choice)
    print_as(form, made, table, rate)


def plan_of(
    resources: Resources,
    facts: HostFacts,
    node: str,
    mode: str,
    raw: str = "auto",
    *,
    netdev: bool = False,
    tracked: TrackedChoice = TrackedChoice.MODEL,
) -> Plan:
    """The plan of all interfaces in the facts. Raises UnsupportedRuleError for rules that cannot be enforced; those of
    tracked policy only if it is to be enforced.
    """
    from dataclasses import replace

    from enforcer.planning.plan import make_plan
    from enforcer.policy.compile import Compiler

    compiler = Compiler()
    places = [(item.name, item.addresses) for item in facts.interfaces]
    tables = [compiler.compile(resources, node=node, interface=name, addresses=own) for name, own in places]
    later = [compiler.compile_tracked(resources, node=node, interface=name, addresses=own) for name, own in places]
    known = [table for table in later if table is not None]
    unsupported = dict.fromkeys(sentence for table in known for sentence in table.unsupported)
    if unsupported and tracked is TrackedChoice.ENFORCE:
        raise UnsupportedRuleError("\n".join(unsupported))
    return make_plan(
        tables,
        replace(facts, node=node),
        felix=resources.felix_for(node),
        choice=ModeChoice(mode),
        raw=RawChoice(raw),
        netdev=netdev,
        tracked=known,
        tracked_choice=tracked,
    )


def print_as(form: str, plan: Plan, table: Table | str, rate: int | None = None) -> None:
    """Print a plan, and what fills the connection tracking table, in one of FORMATS."""
    from dossim.exhaustion import words
    from enforcer.cli.plan_view import plan_as_dict, print_plan

    if form == "text":
        print_plan(plan, console := console_for(sys.stdout))
        for text in words.plan_lines(table, rate):
            console.print(line(text), soft_wrap=True)
    elif form == "json":
        echo_json(plan_as_dict(plan) | {"conntrack": words.plan_as_dict(table, rate)})
    else:
        from dossim.cli.drawing import as_dot, as_mermaid

        echo(as_mermaid(plan) if form == "mermaid" else as_dot(plan), nl=False)


def _assumed_facts(resources: Resources, node: str | None) -> HostFacts:
    """Facts for every interface that a HostEndpoint of the node names, with the features of common network cards."""
    from dossim.drill.situation import ANY_INTERFACE
    from enforcer.model.facts import HostFacts, InterfaceFacts, Probe
    from enforcer.model.vocabulary import Answer, Backend, Mode

    node = node or _only_node(resources)
    named = {item.interface_name for item in resources.host_endpoints if item.node == node} - {"", ANY_INTERFACE}
    addresses = {address for item in resources.host_endpoints if item.node == node for address in item.expected_ips}
    modes = {
        Mode.OFFLOAD: Probe(Answer.NO, "assumed, as few NICs support it; 'enforcer probe' tells"),
        Mode.NATIVE: Probe(Answer.YES),
        Mode.GENERIC: Probe(Answer.YES),
    }
    interfaces = tuple(
        InterfaceFacts(name, addresses=tuple(sorted(addresses, key=str)), modes=modes)
        for name in sorted(named) or ["eth0"]
    )
    return HostFacts(node, interfaces=interfaces, backends={Backend.IPTABLES: Probe(Answer.YES)})


def _only_node(resources: Resources) -> str:
    nodes = sorted({item.node for item in resources.host_endpoints})
    if len(nodes) > 1:
        raise UsageError(
            f"the policy has HostEndpoints of {len(nodes)} nodes ({', '.join(nodes)}); choose one with --node"
        )
    return nodes[0] if nodes else os.uname().nodename
