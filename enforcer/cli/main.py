"""The ``enforcer`` command: a thin layer over Enforcer and Agent. Acts in the network namespace where it is started."""

from __future__ import annotations

import click

import enforcer
from enforcer.cli.support import LazyGroup, verbose_option

COMMANDS = (
    *("probe", "apply", "confirm", "run", "status", "counters", "detach"),
    *("deny", "allow", "list", "prune"),
    *("feed", "export"),
)


@click.group(
    cls=LazyGroup,
    modules=[f"enforcer.cli.{name}" for name in COMMANDS],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(enforcer.__version__, prog_name="enforcer")
@verbose_option
def main() -> None:
    """Enforce Calico's untracked policy (doNotTrack) at the earliest stage that each interface of this host supports.

    Acts in the network namespace it is started in. Exit codes: 0 success, 1 refused, 2 bad usage or policy, 3
    this host or the datastore lacks something, 4 a bug.

    \b
    Example:
      enforcer probe                        what does each interface support?
      enforcer apply -f policy/ --dry-run   what would be enforced at which stage, and why not earlier?
      enforcer apply -f policy/             enforce it
      enforcer deny 203.0.113.9 --for 30m   in an emergency: deny an address for half an hour
      enforcer feed sync -f feeds.yaml      published address lists (DROP, CrowdSec, ...) as network sets
    """
