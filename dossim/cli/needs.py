"""Commands that need packages of the extra ``sim``, which an installation may lack."""

from __future__ import annotations

from typing import Any

import click

from dossim.model.errors import SimulatorError, is_of_simulator
from enforcer.cli.support import LazyGroup
from enforcer.system.signals import unwinding


class SimulatorGroup(LazyGroup):
    """A group that reports a missing package of the simulator in one line, and whose commands leave nothing behind when
    a signal ends them.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Raises SimulatorError where a command imports a package of the simulator that is not installed."""
        try:
            with unwinding():
                return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if not is_of_simulator(error):
                raise
            raise SimulatorError(f"'{ctx.info_name} {ctx.invoked_subcommand}'", error) from error
