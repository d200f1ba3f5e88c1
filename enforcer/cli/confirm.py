"""``enforcer confirm``: what was applied on trial stays."""

from __future__ import annotations

import click

from enforcer.cli.support import echo, require_privilege, verbose_option

NOTHING = 1  # the exit code


@click.command()
@verbose_option
def confirm() -> int:
    """Keep the normal policy that is enforced on trial.

    'enforcer apply --confirm-within' puts it on trial, and so does 'enforcer run' with that option. Run this over a
    new connection to the host: if you can open one, the policy does not lock you out. Exit code 1: nothing waits for a
    confirmation, or it came too late.

    \b
    Example:
      enforcer confirm          while 'enforcer apply --tracked enforce --confirm-within 60s' waits in another terminal
    """
    from enforcer.enforcement.confirmation import Confirmation

    require_privilege("confirming policy", xdp=False)
    confirmation = Confirmation()
    if confirmation.confirm():
        echo("confirmed: normal policy stays enforced")
        return 0
    if confirmation.was_rolled_back():
        echo("too late: normal policy was rolled back; apply it again", err=True)
    else:
        echo("nothing waits for a confirmation in this network namespace", err=True)
    return NOTHING
