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

    Reads the kernel: who applied the policy, and when, does not matter. If an agent runs, it also shows what the agent
    says: its datastore, whether everything is enforced, faults, and the objects that keep an older version. Also
    whether normal policy waits for 'enforcer confirm', until when, and what happens then.

    \b
    Example:
      enforcer status -o yaml
    """
    from enforcer.agent.lock import running_agent
    from enforcer.cli.agent_view import AgentStatus
    from enforcer.cli.status_view import print_status, status_as_dict
    from enforcer.enforcement.confirmation import trial_here
    from enforcer.model.errors import HostError
    from enforcer.monitor.status_socket import ask

    require_privilege("reading BPF maps and the raw table", xdp=False)
    found, record, trial = enforcer_of("", pin_root).status(), running_agent(), trial_here()
    agent = None
    if record is not None:
        try:
            agent = AgentStatus(record, ask())
        except HostError as error:  # it is starting, hangs, or is of another version: the kernel answers all the same
            agent = AgentStatus(record, None, str(error))
    emit(status_as_dict(found, agent, trial), output, lambda console: print_status(found, console, agent, trial))
