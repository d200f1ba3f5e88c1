"""What every backend promises: the whole desired state in, by difference; counts out; and a clean leave.

A driver acts in the network namespace of the calling thread and touches only what is its own. It keeps no state in the
process: a new process (after a crash, after an upgrade) finds everything in the kernel again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from enforcer.model.vocabulary import Stage
from enforcer.planning.plan import Plan


@dataclass(frozen=True)
class EntryCount:
    """How many packets and bytes one entry has matched at one stage of one interface since it is enforced there.

    ``cpus``: (packets, bytes) of each processor, by number, since the program at work was loaded; none at stages that
    do not count by processor.
    """

    interface: str
    entry: str
    stage: Stage
    packets: int
    bytes: int
    cpus: tuple[tuple[int, int], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ApplyResult:
    """``changes`` are sentences for people, none when nothing had to change.

    ``refused`` says for an interface why the kernel, or a foreign program already there, did not let it be; all the
    other interfaces are enforced as planned. ``foreign``: those where it was the program, which says nothing of what
    the interface can.
    """

    changes: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    foreign: frozenset[str] = frozenset()


class BackendDriver(Protocol):
    def apply(self, plan: Plan, *, dry_run: bool = False) -> ApplyResult:
        """Make the kernel enforce exactly this plan. Applying it again changes nothing.

        A packet that the old and the new plan both drop is dropped at every moment in between. With ``dry_run`` the
        same sentences are returned, and nothing is changed.
        """

    def counters(self) -> tuple[EntryCount, ...]:
        """A count for each entry enforced, in evaluation order per interface."""

    def detach(self, interfaces: Sequence[str] | None = None) -> tuple[str, ...]:
        """Remove what is ours from these interfaces (None: from everywhere), and say what was removed."""
