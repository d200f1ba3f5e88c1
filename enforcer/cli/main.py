"""The ``enforcer`` command: a thin edge around Enforcer and Agent. Acts in the network namespace it is started in."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

import enforcer
from enforcer.cli.support import (
    CommandGroup,
    PathGiven,
    emit,
    line,
    output_option,
    require_privilege,
    said,
    verbose_option,
    warn,
)
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Toolchain

if TYPE_CHECKING:
    from enforcer.enforcement.apply import Enforcer

Command = TypeVar("Command", bound=Callable[..., Any])

DATASTORES = ("files",)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(enforcer.__version__, prog_name="enforcer")
@verbose_option
def main() -> None:
    """Enforce Calico's untracked policy (doNotTrack) at the earliest point each interface of this host supports.

    Acts in the network namespace it is started in. Exit codes: 0 done, 2 bad usage or policy, 3 this host lacks
    something, 4 a bug.

    \b
    Example:
      enforcer probe                        what could each interface do?
      enforcer apply -f policy/ --dry-run   what would be enforced where, and why not earlier?
      enforcer apply -f policy/             do it
    """


def node_option(command: Command) -> Command:
    return click.option(
        "--node",
        default=lambda: os.uname().nodename,
        show_default="the host name",
        callback=said,
        help="The node whose HostEndpoints are ours.",
    )(command)


def mode_option(command: Command) -> Command:
    return click.option(
        "--mode",
        type=click.Choice([str(choice) for choice in ModeChoice]),
        default=str(ModeChoice.AUTO),
        show_default=True,
        help="XDP mode: the earliest there is, one by name (an error where it is not possible), or raw for none.",
    )(command)


def raw_backend_option(command: Command) -> Command:
    return click.option(
        "--raw-backend",
        type=click.Choice([str(choice) for choice in RawChoice]),
        default=str(RawChoice.AUTO),
        show_default=True,
        help="Where the raw part is: as the FelixConfiguration says, else where the host's own rules are; or "
        "one by name.",
    )(command)


def netdev_ingress_option(command: Command) -> Command:
    return click.option(
        "--netdev-ingress",
        is_flag=True,
        help="Where there is no XDP, drop right behind the driver all the same, in nf_tables (an error without it).",
    )(command)


def toolchain_option(command: Command) -> Command:
    return click.option(
        "--toolchain",
        type=click.Choice([str(toolchain) for toolchain in Toolchain]),
        default=str(Toolchain.LIBBPF),
        show_default=True,
        help="The XDP program: compiled ahead of time and loaded with libbpf, or compiled on this host by bcc.",
    )(command)


def pin_root_option(command: Command) -> Command:
    return click.option(
        "--pin-root",
        type=PathGiven(path_type=Path),
        envvar="ENFORCER_PIN_ROOT",
        default=None,
        help="Directory of the BPF file system to pin in; each network namespace has its own by default.",
    )(command)


def files_option(*, help_text: str, must_exist: bool = True) -> Callable[[Command], Command]:
    kind = PathGiven(exists=must_exist, path_type=Path)
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
    """Ask what interfaces support: yes, no, or cannot tell, and why. All of them when none is named.

    An interface without an XDP program gets one for a moment, which passes every packet.

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
@files_option(help_text="A file or directory of resources; may be repeated, and more may follow as arguments.")
@click.argument("more", nargs=-1, type=PathGiven(exists=True, path_type=Path), metavar="[PATH]...")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--force", is_flag=True, help="Even where an agent runs, which puts its own policy back.")
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
    """Put the desired state into the kernel, once. Doing it again changes nothing.

    Where an agent runs ('enforcer run'), it keeps the kernel as its own policy says: this is refused then (exit code
    2), unless with --dry-run.

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
        _beside_agent("what is applied here is replaced by its policy", force=force)
    driver = _enforcer(node, pin_root, mode, toolchain, raw_backend, netdev=netdev_ingress)
    applied = driver.apply(resources, dry_run=dry_run)
    for warning in applied.warnings:
        warn(warning)
    data = applied_as_dict(applied, dry_run=dry_run)
    emit(data, output, lambda console: print_applied(applied, console, dry_run=dry_run))


@main.command()
@files_option(help_text="A directory (or file) of resources to watch; may be repeated.", must_exist=False)
@click.option("--datastore", type=click.Choice(DATASTORES), default="files", show_default=True, help="Where policy is.")
@click.option(
    "--state-dir",
    type=PathGiven(file_okay=False, path_type=Path),
    help="Where the last good policy is kept for a restart; default: $STATE_DIRECTORY, else /var/lib/enforcer.",
)
@click.option("--detach-on-exit", is_flag=True, help="Remove the policy from the kernel when stopped.")
@mode_option
@raw_backend_option
@netdev_ingress_option
@toolchain_option
@node_option
@pin_root_option
@click.option("-v", "--verbose", is_flag=True, help="Log every single change, and show details of errors.")
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
    """Keep the kernel as the datastore says: watch, apply, resync. Logs to stderr.

    An object that is wrong never replaces one that is right, not even over a restart. What somebody else takes away is
    put back within seconds, and said. SIGHUP reads everything again; SIGTERM stops, and leaves the policy in the
    kernel, so that a restart opens no hole. A second agent in the same network namespace is refused (exit code 3).

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
        is_there(state_dir)  # an error now is better than none for whoever asks for this one
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
    """Show per interface what is enforced now, at which stage, how full it is, and what it dropped.

    Reads the kernel: it does not matter who applied the policy, or when. Says whether an agent runs.

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
@click.option("--per-cpu", is_flag=True, help="Show which CPUs counted how many packets.")
@verbose_option
def counters(pin_root: Path | None, output: str, per_cpu: bool) -> None:
    """Show the packets and bytes each entry matched, at each stage it is enforced at.

    They are kept across changes of policy and restarts. XDP counts on each CPU by itself; JSON and YAML always
    say how much on which.

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
@click.option("--force", is_flag=True, help="Even where an agent runs, which puts everything back.")
@pin_root_option
@output_option
@verbose_option
def detach(interfaces: tuple[str, ...], force: bool, pin_root: Path | None, output: str) -> None:
    """Remove what is ours from these interfaces, or from all; and nothing else.

    Where an agent runs ('enforcer run'), it would put everything back: this is refused then (exit code 2). Stop the
    agent first.

    \b
    Example:
      enforcer detach eth1
    """
    require_privilege("removing policy", xdp=False)
    _beside_agent("what is removed here is put back", force=force)
    removed = _enforcer("", pin_root).detach(interfaces or None)
    emit({"schema": "enforcer/detach/v1", "removed": list(removed)}, output, lambda console: _say(removed, console))


def _beside_agent(consequence: str, *, force: bool) -> None:
    """Raises UsageError where an agent runs, which would undo what is asked for; with ``force`` warns of it."""
    from enforcer.agent.lock import running_agent

    agent = running_agent()
    if agent is None:
        return
    message = f"{agent} runs in this network namespace: {consequence} within seconds"
    if not force:
        raise UsageError(f"{message}; stop it first ('systemctl stop enforcer', or SIGTERM), or say --force")
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


def _say(removed: Sequence[str], console: Console) -> None:
    for each in removed or ("nothing of ours was there",):
        console.print(line(each), soft_wrap=True)
