"""The start of commands that act on the kernel: create an Enforcer from the options, refuse if an agent runs.

Commands import what they need when they run: ``--help`` needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enforcer.cli.support import warn
from enforcer.model.choices import ModeChoice, RawChoice, TrackedChoice
from enforcer.model.errors import UsageError
from enforcer.model.vocabulary import Toolchain

if TYPE_CHECKING:
    from pathlib import Path

    from enforcer.enforcement.apply import Enforcer


def require_no_agent(consequence: str, *, force: bool) -> None:
    """Raises UsageError if an agent runs, because it would undo the command; with ``force`` only warns."""
    from enforcer.agent.lock import running_agent

    agent = running_agent()
    if agent is None:
        return
    message = f"{agent} runs in this network namespace: {consequence} within seconds"
    if not force:
        raise UsageError(f"{message}; stop it first ('systemctl stop enforcer', or SIGTERM), or use --force")
    warn(message)


def enforcer_of(
    node: str,
    pin_root: Path | None,
    mode: str = ModeChoice.AUTO,
    toolchain: str = Toolchain.LIBBPF,
    raw: str = RawChoice.AUTO,
    *,
    netdev: bool = False,
    tracked: str = TrackedChoice.MODEL,
    cut_established: bool = False,
) -> Enforcer:
    from enforcer.enforcement.apply import Enforcer

    return Enforcer(
        node,
        pin_root=pin_root,
        choice=ModeChoice(mode),
        toolchain=Toolchain(toolchain),
        raw=RawChoice(raw),
        netdev=netdev,
        tracked=TrackedChoice(tracked),
        cut_established=cut_established,
    )
