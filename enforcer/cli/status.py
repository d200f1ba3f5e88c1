"""``enforcer status``: what is enforced now."""

from __future__ import annotations

from pathlib import Path

import click

from enforcer.cli.driver import enforcer_of
from enforcer.cli.options import (
    pin_root_option,
)
from enforcer.cli.support import emit, output_option, require_privilege, verbose_option


@click.command()
@pin_root_option
@output_option
@verbose_option
def status(pin_root: Path | None, output: str) -> None:
    """Show for each interface what is enforced now, at which stage, how full its sets are, and what was dropped.

    Reads the kernel: who applied the policy, and when, does not matter. Also shows whether an agent runs, and whether
    normal policy waits for 'enforcer confirm', until when, and what happens then. Of a running agent it also shows the
    datastore that it follows: whether it answers, which revision is taken, which objects are faulty or at an older
    version.

    \b
    Example:
      enforcer status -o yaml
    """
    from enforcer.agent.lock import running_agent
    from enforcer.agent.status_socket import ask_agent
    from enforcer.cli.status_view import print_status, status_as_dict
    from enforcer.enforcement.confirmation import trial_here

    require_privilege("reading BPF maps and the raw table", xdp=False)
    found, agent, trial = enforcer_of("", pin_root).status(), running_agent(), trial_here()
    said = ask_agent() if agent else None
    emit(
        status_as_dict(found, agent, trial, said),
        output,
        lambda console: print_status(found, console, agent, trial, said),
    )
