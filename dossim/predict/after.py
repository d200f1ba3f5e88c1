"""The policy after conntrack on columns: what it does to packets that all have one state. It reads the compiled tables.

Which state a packet has depends on the packets before it, so that a capture is predicted once for each state
(:mod:`dossim.predict.following`). Evaluation and names: :mod:`enforcer.policy.tracked`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dossim.packet.columns import Bool
from dossim.packet.fields import ICMPV6
from dossim.predict.flows import Flows
from dossim.predict.prediction import NO_ENTRY, Draft
from dossim.predict.rules import accept_failsafes, match_entry
from enforcer.model.vocabulary import Action, CtState, Direction, Stage
from enforcer.policy.ruletable import Entry
from enforcer.policy.tracked import Hook, TierChain, TrackedChain, TrackedTable

I32 = npt.NDArray[np.int32]

# ICMPv6 that the enforcer accepts before normal policy, because conntrack does not track it: MLD, neighbour discovery.
DISCOVERY_TYPES = (130, 131, 132, 133, 134, 135, 136, 143)
# The states that policy treats differently. RELATED is treated as ESTABLISHED.
STATES = (CtState.NEW, CtState.ESTABLISHED, CtState.INVALID, CtState.UNTRACKED)
_KNOWN = (CtState.ESTABLISHED, CtState.RELATED)


@dataclass(frozen=True)
class Tables:
    """The policy after conntrack of the host's two interfaces; None where no HostEndpoint governs one."""

    outside: TrackedTable | None = None
    inside: TrackedTable | None = None

    @property
    def governs(self) -> bool:
        return self.outside is not None or self.inside is not None

    def entries(self) -> tuple[Entry, ...]:
        """Everything that can drop, as entries: those of the tables, and one for each default; each name once."""
        found: dict[str, Entry] = {}
        for table in filter(None, (self.outside, self.inside)):
            for chain in table.chains:
                known = {entry.name: entry for entry in chain.entries()}
                direction = chain.hook.direction
                for name in chain.names():
                    found.setdefault(name, known.get(name) or Entry(name, Action.DENY, "", direction=direction))
        return tuple(found.values())

    def stages(self) -> dict[str, tuple[Stage, ...]]:
        """The stages at which each of them can drop a received packet. What acts only on what the host sends has none
        and is omitted.
        """
        found: dict[str, set[Stage]] = {}
        for table in filter(None, (self.outside, self.inside)):
            for chain in table.chains:
                if chain.hook is not Hook.OUTPUT:
                    for name in chain.names():
                        found.setdefault(name, set()).add(chain.hook.stage)
        return {name: tuple(stage for stage in Stage if stage in stages) for name, stages in found.items()}


@dataclass
class Fates:
    """What chains do to each flow. ``denied_by`` indexes the prediction's entries, -1 for none. ``marked``: the accept
    mark is set; ``accepted``: nothing more of the table is evaluated.
    """

    denied_by: I32
    marked: Bool
    accepted: Bool
    hotdropped: Bool
    open: Bool

    @classmethod
    def none(cls, flows: Flows) -> Fates:
        no = [np.zeros(len(flows), np.bool_) for _ in range(3)]
        return cls(np.full(len(flows), NO_ENTRY, np.int32), flows.marked.copy(), *no)

    @property
    def goes_on(self) -> Bool:
        return np.asarray((self.denied_by == NO_ENTRY) & ~self.hotdropped & ~self.open, np.bool_)

    def put(self, flows: Flows, stage: Stage, draft: Draft) -> Flows:
        """Drop what is denied at this stage in the draft; the flows that go on."""
        denied = self.denied_by != NO_ENTRY
        draft.drop(flows.number[denied], stage, "", self.denied_by[denied])
        draft.drop(flows.number[self.hotdropped], stage, "too short for a rule that matches on ports or ICMP type")
        draft.leave_open(flows.number[self.open], stage, "cut by the capture: what a rule matches on")
        return replace(flows, marked=self.marked).take(self.goes_on)


@dataclass(frozen=True)
class AfterConntrack:
    """``index`` has the number of each entry by name."""

    tables: Tables
    state: CtState
    index: Mapping[str, int]

    def mangle(self, flows: Flows, draft: Draft) -> Flows:
        """mangle PREROUTING of what is received outside."""
        found = self._evaluate(flows, self.tables.outside, Hook.PRE_DNAT, Fates.none(flows), ~flows.marked)
        return found.put(flows, Stage.MANGLE, draft)

    def input(self, flows: Flows, draft: Draft) -> Flows:
        """filter INPUT."""
        asked = ~flows.marked
        if flows.version == 6 and self.state is CtState.UNTRACKED:
            asked &= ~((flows.protocol == ICMPV6) & np.isin(flows.icmp_type, DISCOVERY_TYPES))
        found = self._evaluate(flows, self.tables.outside, Hook.INPUT, Fates.none(flows), asked)
        return found.put(flows, Stage.FILTER_INPUT, draft)

    def forward(self, flows: Flows, inside: Bool, draft: Draft) -> Flows:
        """filter FORWARD: the chain of the interface a flow came in by, then that of the one it leaves by.

        ``inside``: which flows leave by the inside interface.
        """
        found = self._evaluate(flows, self.tables.outside, Hook.FORWARD_IN, Fates.none(flows), ~flows.marked)
        for table, leaves in ((self.tables.outside, ~inside), (self.tables.inside, inside)):
            found = self._evaluate(flows, table, Hook.FORWARD_OUT, found, leaves & found.goes_on & ~found.accepted)
        return found.put(flows, Stage.FILTER_FORWARD, draft)

    def _evaluate(self, flows: Flows, table: TrackedTable | None, hook: Hook, found: Fates, undecided: Bool) -> Fates:
        """Evaluate the chain of a hook, if there is one, for the undecided flows."""
        chain = table.at(hook) if table else None
        return found if table is None or chain is None else self._chain(flows, chain, table, found, undecided)

    def _chain(self, flows: Flows, chain: TrackedChain, table: TrackedTable, found: Fates, undecided: Bool) -> Fates:
        undecided = undecided.copy()
        if self.state in _KNOWN:
            return replace(found, accepted=found.accepted | undecided)
        if self.state is CtState.INVALID and chain.denies_invalid:
            found.denied_by[undecided] = self.index[chain.invalid]
            return found
        remote = flows.destination if chain.hook is Hook.OUTPUT else flows.source
        before = undecided.copy()
        accept_failsafes(flows, chain.failsafes, flows.dport, remote, undecided, found.hotdropped, found.open)
        found.accepted |= before & ~undecided & ~found.hotdropped & ~found.open
        for tier in (*chain.tiers, *chain.profiles):
            self._tier(flows, tier, chain.hook.direction, table, found, undecided)
        if chain.end is Action.DENY:
            found.denied_by[undecided] = self.index[chain.no_profile]
        return found

    def _tier(
        self,
        flows: Flows,
        tier: TierChain,
        direction: Direction,
        table: TrackedTable,
        found: Fates,
        undecided: Bool,
    ) -> None:
        """Evaluate a tier, and take the flows that it decides out of ``undecided``."""
        passed = np.zeros(len(flows), np.bool_)
        for entry in tier.entries:
            candidates = undecided & ~passed
            if not candidates.any():
                continue
            matched, short, cut = match_entry(flows, entry, table, candidates)
            found.hotdropped |= short
            found.open |= cut
            undecided &= ~(short | cut)
            match entry.action:
                case Action.PASS:
                    passed |= matched
                case Action.DENY:
                    undecided &= ~matched
                    found.denied_by[matched] = self.index[entry.name]
                case Action.ALLOW:
                    undecided &= ~matched
                    found.marked |= matched
                case Action.LOG:
                    pass
        if tier.default is Action.DENY:
            rest = undecided & ~passed
            found.denied_by[rest] = self.index[tier.end(direction)]
            undecided &= passed
