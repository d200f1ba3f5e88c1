"""``enforcer apply``: applies the policy to the kernel once."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.cli.driver import enforcer_of, require_no_agent
from enforcer.cli.options import (
    files_option,
    mode_option,
    netdev_ingress_option,
    node_option,
    pin_root_option,
    raw_backend_option,
    toolchain_option,
)
from enforcer.cli.support import NonEmptyPath, emit, output_option, require_privilege, verbose_option, warn
from enforcer.model.choices import ModeChoice


@click.command()
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
        require_no_agent("it replaces what is applied here by its own policy", force=force)
    driver = enforcer_of(node, pin_root, mode, toolchain, raw_backend, netdev=netdev_ingress)
    applied = driver.apply(resources, dry_run=dry_run)
    for warning in applied.warnings:
        warn(warning)
    data = applied_as_dict(applied, dry_run=dry_run)
    emit(data, output, lambda console: print_applied(applied, console, dry_run=dry_run))
