"""``enforcer prune``: deletes the emergency acts that have ended."""

from __future__ import annotations

import time
from pathlib import Path

import click

from enforcer.cli.acts import GuardError, distrust, ended_of, place_of, policy_options, pruned, resources_of
from enforcer.cli.support import emit, output_option, verbose_option


@click.command()
@click.option("--force", is_flag=True, help="Delete even if this host's clock is not known to be right.")
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and delete nothing.")
@policy_options
@output_option
@verbose_option
def prune(
    force: bool,
    dry_run: bool,
    node: str,
    datastore: str,
    datastore_config: Path | None,
    emergency_dir: Path | None,
    files: tuple[Path, ...],
    output: str,
) -> None:
    """Delete emergency acts that ended more than ten minutes ago.

    An agent stops enforcing an act at its end by itself; Felix does so only when the act is deleted. 'enforcer deny'
    and 'enforcer allow' also prune. Where Felix enforces, run this from a timer on one host.

    \b
    Example:
      enforcer prune --datastore kubernetes
    """
    from enforcer.datastore.open import open_writer

    place = place_of(datastore, files, datastore_config, emergency_dir)
    resources = resources_of(place, node)
    ended = [act.name for act in ended_of(resources, time.time())]
    if ended and not dry_run:
        if (problem := distrust(resources)) and not force:
            raise GuardError(f"{problem}: it would decide which acts have ended; --force prunes anyway")
        with open_writer(place) as writer:
            ended = [item.name for item in pruned(writer, resources)]
    data = {"schema": "enforcer/prune/v1", "dry_run": dry_run, "deleted": ended}
    verb = "would be deleted" if dry_run else "deleted"
    emit(
        data,
        output,
        lambda console: console.print("\n".join(f"{verb}: {name}" for name in ended) or "nothing has ended"),
    )
