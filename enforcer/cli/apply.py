"""``enforcer apply``: applies the policy to the kernel once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer.cli.driver import enforcer_of, require_no_agent
from enforcer.cli.options import (
    confirm_within_option,
    cut_established_option,
    files_option,
    mode_option,
    netdev_ingress_option,
    node_option,
    pin_root_option,
    raw_backend_option,
    require_enforce,
    toolchain_option,
    tracked_option,
)
from enforcer.cli.support import INSTEAD, NonEmptyPath, emit, output_option, require_privilege, verbose_option, warn
from enforcer.model.choices import ModeChoice, TrackedChoice

if TYPE_CHECKING:
    from enforcer.enforcement.apply import Applied, Enforcer
    from enforcer.enforcement.confirmation import Confirmation
    from enforcer.policy.resources import Resources


@click.command()
@files_option(help_text="A file or directory of resources. May be repeated; arguments add more.")
@click.argument("more", nargs=-1, type=NonEmptyPath(exists=True, path_type=Path), metavar="[PATH]...")
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@click.option("--force", is_flag=True, help="Apply even where an agent runs. The agent restores its own policy.")
@mode_option
@raw_backend_option
@netdev_ingress_option
@tracked_option
@cut_established_option
@confirm_within_option
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
    tracked: str,
    cut_established: bool,
    confirm_within: float | None,
    toolchain: str,
    node: str,
    pin_root: Path | None,
    output: str,
) -> int:
    """Apply the policy to the kernel, once. A second run changes nothing.

    Refused where an agent ('enforcer run') runs, as the agent would restore its own policy (exit code 2). --dry-run
    works there too.

    With --tracked enforce, normal policy is enforced as well: a HostEndpoint without such policy then closes the host
    in both directions, except for failsafes. The first switch-on is refused where it could lock you out (exit code 3).
    --confirm-within waits for 'enforcer confirm' and rolls back without it (exit code 1), also when the connection
    that this runs in is cut.

    \b
    Example:
      enforcer apply -f policy/ --dry-run
      enforcer apply -f endpoints.yaml deny-list.yaml --mode native --node jasper
      enforcer apply -f policy/ --tracked enforce --confirm-within 60s
    """
    from enforcer.cli.plan_view import applied_as_dict, print_applied
    from enforcer.cli.trial import apply_on_trial
    from enforcer.enforcement.confirmation import Confirmation
    from enforcer.policy.load import load

    require_enforce(confirm_within, tracked)
    resources = load([*files, *more])
    require_privilege("enforcing policy", xdp=mode != ModeChoice.RAW, instead=INSTEAD)
    if not dry_run:
        require_no_agent("it replaces what is applied here with its own policy", force=force)
    driver = enforcer_of(
        node,
        pin_root,
        mode,
        toolchain,
        raw_backend,
        netdev=netdev_ingress,
        tracked=tracked,
        cut_established=cut_established,
    )

    def show(applied: Applied) -> None:
        for warning in applied.warnings:
            warn(warning)
        data = applied_as_dict(applied, dry_run=dry_run)
        emit(data, output, lambda console: print_applied(applied, console, dry_run=dry_run))

    if dry_run:
        show(driver.apply(resources, dry_run=True))
        return 0
    confirmation = Confirmation()
    confirmation.require_free()
    if confirmation.until_s() is not None:
        _roll_back_earlier(driver, resources, confirmation)
    if confirm_within is not None:
        return apply_on_trial(driver, resources, confirmation, confirm_within, show)
    show(driver.apply(resources))
    if tracked == TrackedChoice.ENFORCE:
        confirmation.forget()  # that it was rolled back once keeps an agent from enforcing it
    return 0


def _roll_back_earlier(driver: Enforcer, resources: Resources, confirmation: Confirmation) -> None:
    """What another command put on trial, which was killed before it could roll back."""
    if confirmation.claim():
        wanted, driver.tracked = driver.tracked, TrackedChoice.MODEL
        driver.apply(resources)
        driver.tracked = wanted
        warn("normal policy of an earlier 'enforcer apply --confirm-within' was not confirmed: rolled back first")
