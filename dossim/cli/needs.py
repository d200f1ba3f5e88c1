"""What an installation may lack: the packages of ``dossim[sim]``, without which some commands cannot be had."""

from __future__ import annotations

from typing import Any

import click

from dossim.model.errors import SimulatorError, is_of_simulator
from enforcer.cli.support import LazyGroup


class SimulatorGroup(LazyGroup):
    """A group whose commands say in one line that they need the simulator, where it is not installed."""

    def invoke(self, ctx: click.Context) -> Any:
        """Raises SimulatorError for a package of the simulator that is not there."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if not is_of_simulator(error):
                raise
            raise SimulatorError(f"'{ctx.info_name} {ctx.invoked_subcommand}'") from error
