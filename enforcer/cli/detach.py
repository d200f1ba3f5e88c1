"""``enforcer detach``: removes everything of the enforcer from the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from enforcer.cli.driver import enforcer_of, require_no_agent
from enforcer.cli.options import (
    pin_root_option,
)
from enforcer.cli.support import emit, output_option, require_privilege, verbose_option

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console


@click.command()
@click.argument("interfaces", nargs=-1, metavar="[IFACE]...")
@click.option("--force", is_flag=True, help="Detach even where an agent runs. The agent restores everything.")
@pin_root_option
@output_option
@verbose_option
def detach(interfaces: tuple[str, ...], force: bool, pin_root: Path | None, output: str) -> None:
    """Remove everything that the enforcer created for these interfaces, or for all, and nothing else.

    Refused where an agent ('enforcer run') runs, as the agent would restore everything (exit code 2). Stop the agent
    first.

    \b
    Example:
      enforcer detach eth1
    """
    from enforcer.enforcement.confirmation import Confirmation

    require_privilege("removing policy", xdp=False)
    require_no_agent("it restores what is removed here", force=force)
    removed = enforcer_of("", pin_root).detach(interfaces or None)
    if not interfaces:
        Confirmation().forget()
    emit(
        {"schema": "enforcer/detach/v1", "removed": list(removed)},
        output,
        lambda console: _print_removed(removed, console),
    )


def _print_removed(removed: Sequence[str], console: Console) -> None:
    from enforcer.cli.console import line

    for each in removed or ("nothing to remove",):
        console.print(line(each), soft_wrap=True)
