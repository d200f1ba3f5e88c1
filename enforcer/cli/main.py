"""The ``enforcer`` command: a thin layer over Enforcer and Agent. Acts in the network namespace it is started in."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import enforcer
from enforcer.cli.support import (
    CommandGroup,
    NonEmptyPath,
    emit,
    output_option,
    require_nonempty,
    require_privilege,
    verbose_option,
    warn,
)
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Toolchain

if TYPE_CHECKING:
    from rich.console import Console

    from enforcer.enforcement.apply import Enforcer

Command = TypeVar("Command", bound=Callable[..., Any])

DATASTORES = ("files",)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(enforcer.__version__, prog_name="enforcer")
@verbose_option
def main() -> None:
    """Enforce Calico's untracked policy (doNotTrack) at the earliest stage that each interface of this host supports.

    Acts in the network namespace it is started in. Exit codes: 0 success, 2 bad usage or policy, 3 this host lacks
    something, 4 a bug.

    \b
    Example:
      enforcer probe                        what does each interface support?
      enforcer apply -f policy/ --dry-run   what would be enforced at which stage, and why not earlier?
      enforcer apply -f policy/             enforce it
    """


def node_option(command: Command) -> Command:
    return click.option(
        "--node",
        default=lambda: os.uname().nodename,
        show_default="the host name",
        callback=require_nonempty,
        help="The node whose HostEndpoints are enforced.",
    )(command)


def mode_option(command: Command) -> Command:
    return click.option(
        "--mode",
        type=click.Choice([str(choice) for choice in ModeChoice]),
        default=str(ModeChoice.AUTO),
        show_default=True,
        help="XDP mode: auto takes the earliest that works; a mode by name is an error where it does not work; "
        "raw means no XDP.",
    )(command)


def raw_backend_option(command: Command) -> Command:
    return click.option(
        "--raw-backend",
        type=click.Choice([str(choice) for choice in RawChoice]),
        default=str(RawChoice.AUTO),
        show_default=True,
        help="Backend for the raw table. auto: as the FelixConfiguration says, else where the host's own rules are.",
    )(command)


def netdev_ingress_option(command: Command) -> Command:
    return click.option(
        "--netdev-ingress",
        is_flag=True,
        help="On interfaces without XDP, drop at netdev ingress, right after the driver. Requires nf_tables.",
    )(command)


def toolchain_option(command: Command) -> Command:
    return click.option(
        "--toolchain",
        type=click.Choice([str(toolchain) for toolchain in Toolchain]),
        default=str(Toolchain.LIBBPF),
        show_default=True,
        help="libbpf loads the XDP program compiled ahead of time; bcc compiles it on this host.",
    )(command)


def pin_root_option(command: Command) -> Command:
    return click.option(
        "--pin-root",
        type=NonEmptyPath(path_type=Path),
        envvar="ENFORCER_PIN_ROOT",
        default=None,
        help="Directory of the BPF file system for pins. Default: one for each network namespace.",
    )(command)


def files_option(*, help_text: str, must_exist: bool = True) -> Callable[[Command], Command]:
    kind = NonEmptyPath(exists=must_exist, path_type=Path)
    return click.option(
        "-f", "--file", "files", type=kind, multiple=True, required=True, metavar="PATH", help=help_text
    )


@main.command()
@click.argument("interfaces", nargs=-1, metavar="[IFACE]...")
@node_option
@pin_root_option
@output_option
@verbose_option
def probe(interfaces: tuple[str, ...], node: str, pin_root: Path | None, output: str) -> None:
    """Probe what interfaces support: yes, no or cannot tell, and why. Without arguments, probe all interfaces.

    Briefly attaches an XDP program that passes every packet to each interface without one.

    \b
    Example:
      enforcer probe eth0 eth1 -o json
    """
    from enforcer.cli.facts_view import facts_as_dict, print_facts
    from enforcer.enforcement.probing import probe_named

    require_privilege("probing interfaces", xdp=True)
    facts = probe_named(node, interfaces, pin_root)
    emit(facts_as_dict(facts), output, lambda console: print_facts(facts, console))


@main.command()
@files_option(help_text="A file or directory of resources. May be repeated; arguments add more.")
@click.argument("more", nargs=-1, type=NonEmptyPath(exists=True, path_type=Path), metavar="[PATH]...")
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@click.option("--force", is_flag=True, help="Apply even where an agent runs. The agent restores its own policy.")
@mode_option
@raw_backend_option
@netdev_ingress_option
@toolchain_option
@node_option
@pin_root_option
@output_option
@verbose_option
def apply(
    files: tuple[Path, ...],
    more: tuple[Path, ...],
    dry_run: bool,
    force: bool,
    mode: str,
    raw_backend: str,
    netdev_ingress: bool,
    toolchain: str,
    node: str,
    pin_root: Path | None,
    output: str,
) -> None:
    """Apply the policy to the kernel, once. A second run changes nothing.

    Refused where an agent ('enforcer run') runs, as the agent would restore its own policy (exit code 2). --dry-run
    works there too.

    \b
    Example:
      enforcer apply -f policy/ --dry-run
      enforcer apply -f endpoints.yaml deny-list.yaml --mode native --node jasper
    """
    from enforcer.cli.plan_view import applied_as_dict, print_applied
    from enforcer.policy.load import load

    resources = load([*files, *more])
    require_privilege("enforcing policy", xdp=mode != ModeChoice.RAW)
    if not dry_run:
        _require_no_agent("it replaces what is applied here by its own policy", force=force)
    driver = _enforcer(node, pin_root, mode, toolchain, raw_backend, netdev=netdev_ingress)
    applied = driver.apply(resources, dry_run=dry_run)
    for warning in applied.warnings:
        warn(warning)
    data = applied_as_dict(applied, dry_run=dry_run)
    emit(data, output, lambda console: print_applied(applied, console, dry_run=dry_run))


@main.command()
@files_option(help_text="A directory or file of resources to watch. May be repeated.", must_exist=False)
@click.option(
    "--datastore", type=click.Choice(DATASTORES), default="files", show_default=True, help="Kind of datastore."
)
@click.option(
    "--state-dir",
    type=NonEmptyPath(file_okay=False, path_type=Path),
    help="Where to store the last good policy for a restart. Default: $STATE_DIRECTORY, else /var/lib/enforcer.",
)
@click.option("--detach-on-exit", is_flag=True, help="Remove the policy from the kernel on exit.")
@mode_option
@raw_backend_option
@netdev_ingress_option
@toolchain_option
@node_option
@pin_root_option
@click.option("-v", "--verbose", is_flag=True, help="Log every change, and show details of errors.")
def run(
    files: tuple[Path, ...],
    datastore: str,
    state_dir: Path | None,
    detach_on_exit: bool,
    mode: str,
    raw_backend: str,
    netdev_ingress: bool,
    toolchain: str,
    node: str,
    pin_root: Path | None,
    verbose: bool,
) -> None:
    """Run the agent: watch the datastore, apply changes, resync. Logs to stderr.

    A faulty object never replaces a good one, not even across a restart. What another program removes is restored
    within seconds, and logged. SIGHUP reads everything again. SIGTERM stops the agent and leaves the policy in the
    kernel, so that a restart leaves no gap. A second agent in the same network namespace is refused (exit code 3).

    \b
    Example:
      enforcer run -f /etc/enforcer --node jasper
    """
    from enforcer.agent.agent import Agent
    from enforcer.agent.lock import AgentRecord, agent_lock
    from enforcer.datastore.files import FileStore
    from enforcer.datastore.lastgood import state_directory
    from enforcer.system import log
    from enforcer.system.directories import is_there

    if state_dir is not None:
        is_there(state_dir)  # fail now rather than ignore an explicit option
    store = {"files": FileStore}[datastore](files, state=state_dir or state_directory())
    store.require_something()
    require_privilege("enforcing policy", xdp=mode != ModeChoice.RAW)
    log.setup(logging.DEBUG if verbose else logging.INFO)
    driver = _enforcer(node, pin_root, mode, toolchain, raw_backend, netdev=netdev_ingress)
    record = AgentRecord(os.getpid(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), node, store.describe())
    with agent_lock(record):
        Agent(store, driver, detach_on_exit=detach_on_exit).run()


@main.command()
@pin_root_option
@output_option
@verbose_option
def status(pin_root: Path | None, output: str) -> None:
    """Show for each interface what is enforced now, at which stage, how full its sets are, and what was dropped.

    Reads the kernel: who applied the policy, and when, does not matter. Also shows whether an agent runs.

    \b
    Example:
      enforcer status -o yaml
    """
    from enforcer.agent.lock import running_agent
    from enforcer.cli.status_view import print_status, status_as_dict

    require_privilege("reading BPF maps and the raw table", xdp=False)
    found, agent = _enforcer("", pin_root).status(), running_agent()
    emit(status_as_dict(found, agent), output, lambda console: print_status(found, console, agent))


@main.command()
@pin_root_option
@output_option
@click.option("--per-cpu", is_flag=True, help="Show the packets of each CPU.")
@verbose_option
def counters(pin_root: Path | None, output: str, per_cpu: bool) -> None:
    """Show the packets and bytes that each entry matched, at each stage where it is enforced.

    Counters survive policy changes and restarts. XDP counts for each CPU separately; JSON and YAML always list the
    CPUs.

    \b
    Example:
      enforcer counters --per-cpu
    """
    from enforcer.cli.status_view import counters_as_dict, print_counters

    require_privilege("reading BPF maps and the raw table", xdp=False)
    found = _enforcer("", pin_root).counters()
    emit(counters_as_dict(found), output, lambda console: print_counters(found, console, per_cpu=per_cpu))


@main.command()
@click.argument("interfaces", nargs=-1, metavar="[IFACE]...")
@click.option("--force", is_flag=True, help="Detach even where an agent runs. The agent restores everything.")
@pin_root_option
@output_option
@verbose_option
def detach(interfaces: tuple[str, ...], force: bool, pin_root: Path | None, output: str) -> None:
    """Remove everything the enforcer made from these interfaces, or from all, and nothing else.

    Refused where an agent ('enforcer run') runs, as the agent would restore everything (exit code 2). Stop the agent
    first.

    \b
    Example:
      enforcer detach eth1
    """
    require_privilege("removing policy", xdp=False)
    _require_no_agent("it restores what is removed here", force=force)
    removed = _enforcer("", pin_root).detach(interfaces or None)
    emit(
        {"schema": "enforcer/detach/v1", "removed": list(removed)},
        output,
        lambda console: _print_removed(removed, console),
    )


def _require_no_agent(consequence: str, *, force: bool) -> None:
    """Raises UsageError where an agent runs, which would undo the command; with ``force`` only warns."""
    from enforcer.agent.lock import running_agent

    agent = running_agent()
    if agent is None:
        return
    message = f"{agent} runs in this network namespace: {consequence} within seconds"
    if not force:
        raise UsageError(f"{message}; stop it first ('systemctl stop enforcer', or SIGTERM), or use --force")
    warn(message)


def _enforcer(
    node: str,
    pin_root: Path | None,
    mode: str = ModeChoice.AUTO,
    toolchain: str = Toolchain.LIBBPF,
    raw: str = RawChoice.AUTO,
    *,
    netdev: bool = False,
) -> Enforcer:
    from enforcer.enforcement.apply import Enforcer

    return Enforcer(
        node,
        pin_root=pin_root,
        choice=ModeChoice(mode),
        toolchain=Toolchain(toolchain),
        raw=RawChoice(raw),
        netdev=netdev,
    )


def _print_removed(removed: Sequence[str], console: Console) -> None:
    from enforcer.cli.console import line

    for each in removed or ("nothing to remove",):
        console.print(line(each), soft_wrap=True)
