"""What conntrack says of one packet, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dossim.pipeline.conntrack.states import Coin, CtDirection, CtState, Reason, Remark

if TYPE_CHECKING:  # predict needs sentences, not the model
    from dossim.pipeline.conntrack.entry import Entry, Seen
    from dossim.pipeline.conntrack.flow import Flow, World


@dataclass(frozen=True)
class Outcome:
    """One possible answer. ``protocol_state`` is the entry's after the packet (``SYN_SENT``), "" without one;
    ``timeout_s`` the entry's life from now on. ``detail``: numbers and names, for people.
    """

    state: CtState
    reason: Reason
    remark: Remark | None = None
    detail: str = ""
    direction: CtDirection | None = None
    protocol_state: str = ""
    timeout_s: int | None = None
    assured: bool = False

    @property
    def key(self) -> tuple[CtState, Reason, Remark | None]:
        """What makes two answers different: numbers that depend on the host's ISN do not."""
        return self.state, self.reason, self.remark


@dataclass(frozen=True)
class Branch:
    """The packet in one of the possible worlds. ``pending`` is the entry it would make, once confirmed."""

    world: World
    outcome: Outcome
    pending: Entry | None = None


@dataclass(frozen=True)
class Verdict:
    """``outcomes`` has one answer, or several that cannot be told apart beforehand; then ``coin`` says why.

    ``flow`` and ``branches`` are for :class:`~dossim.pipeline.conntrack.table.Conntrack` alone.
    """

    outcomes: tuple[Outcome, ...]
    coin: Coin | None = None
    seen: Seen | None = field(default=None, repr=False, compare=False)
    flow: Flow | None = field(default=None, repr=False, compare=False)
    branches: tuple[Branch, ...] = field(default=(), repr=False, compare=False)

    @property
    def states(self) -> frozenset[CtState]:
        return frozenset(outcome.state for outcome in self.outcomes)

    @property
    def state(self) -> CtState | None:
        """The state; None where several are possible."""
        first, *others = self.states
        return None if others else first
