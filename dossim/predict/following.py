"""Prediction with policy after conntrack: the capture is predicted once for each state that a packet may have, then the
packets are followed through conntrack in the order of their arrival, and each ends as predicted for its state. Where
no policy depends on states, the one prediction stands for all of them, and only the states are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.columns import Bool
from dossim.packet.cut import CutError, frame_on_wire
from dossim.packet.fields import Packet
from dossim.packet.parse import parse
from dossim.pipeline import ip_input, route
from dossim.pipeline.following import Following, Sends
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.reassembly import Whole
from dossim.pipeline.stages import Context, Node, PacketState, Step, Tracking, ended
from dossim.predict.after import STATES
from dossim.predict.flows import Flows
from dossim.predict.lone import lone_packets
from dossim.predict.odd import flows_of_key
from dossim.predict.prediction import FATE_CODE, FATES, NO_ENTRY, NO_STAGE, STAGE_CODE, STAGES, Draft, End
from dossim.predict.rules import decide
from enforcer.model.vocabulary import CtState, Direction, Stage
from enforcer.planning.plan import InterfacePlan
from enforcer.policy.ruletable import Entry, RuleTable

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Arrived:
    """The packets that get to conntrack: the ordinary ones, and the others."""

    ordinary: Sequence[Flows]
    odd: Mapping[int, PacketState]


@dataclass(frozen=True)
class Followed:
    """Several ends are possible for the packets in ``sets``; ``by_state`` as of the prediction."""

    draft: Draft
    sets: Mapping[int, Disposition]
    by_state: Mapping[int, Mapping[CtState, End]]


def follow(
    capture: Capture,
    drafts: Mapping[CtState, Draft],
    arrived: Arrived,
    plan: InterfacePlan,
    host: Host,
    inside: RuleTable,
    entries: Sequence[Entry],
    times: Times | None = None,
) -> Followed:
    """The prediction of a capture. ``drafts``: the prediction for each state. ``inside``: raw of the inside interface;
    ``entries``: those that the drafts index; ``times``: when each packet arrives, in ns; without, all arrive at one
    instant.
    """
    return _Follower(capture, drafts, arrived, plan, host, inside, entries, times).follow()


@dataclass
class _Follower:
    capture: Capture
    drafts: Mapping[CtState, Draft]
    arrived: Arrived
    plan: InterfacePlan
    host: Host
    inside: RuleTable
    entries: Sequence[Entry]
    times: Times | None
    sets: dict[int, Disposition] = field(default_factory=dict)
    by_state: dict[int, Mapping[CtState, End]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._context = Context.without_policy(self.host)
        self._first = self.drafts[STATES[0]]
        self._number = 0
        self._following = Following(
            self._context, self._walk, sends_outside=self._sends(self.plan.table), sends_inside=self._sends(self.inside)
        )

    @staticmethod
    def _sends(table: RuleTable) -> Sends:
        def sends(key: MatchKey) -> bool:
            found = decide(flows_of_key(key), table, Direction.EGRESS)
            blocked = (found.denied_by >= 0) | (found.allowed_by >= 0) | found.hotdropped
            return not bool(blocked[0])

        return sends

    def follow(self) -> Followed:
        draft = self._first.copied()
        followed = np.zeros(len(self.capture), np.bool_)
        for flows in self.arrived.ordinary:
            followed[flows.number] = True
        is_open = self._open_before()
        new = self.drafts[CtState.NEW]
        # An entry is confirmed after the last hook.
        leaves_entry = ~((new.fate == FATE_CODE[Fate.DROPPED]) & (new.stage < STAGE_CODE[Stage.SOCKET]))
        lone = () if is_open.any() else lone_packets(self.arrived.ordinary, self.arrived.odd.values(), leaves_entry)
        for found in lone:
            draft.take_all(self.drafts[found.state], found.rows)
            draft.tracks(found.rows, [found.state], "by its header alone")
            followed[found.rows] = False
        for number, state, parts in self._arrivals(followed, is_open):
            self._number = number
            self._walked: list[Tracking] = []
            if state is None:
                self._following.may_have_passed(self._parsed(number).packet.ip)
                continue
            at_ns = 0 if self.times is None else int(self.times[parts[-1]])
            self._end(draft, parts, self._following.follow(state, at_ns))
        return Followed(draft, self.sets, self.by_state)

    def _arrivals(self, ordinary: Bool, is_open: Bool) -> Iterator[tuple[int, PacketState | None, Sequence[int]]]:
        """The packets that get to conntrack, in the order in which they do: number, state, and all packets that share
        the fate. No state: it is unknown whether the packet gets there. ``ordinary``: the ordinary packets that are to
        be followed; ``is_open``: those that may get there.
        """
        odd = self.arrived.odd
        of_datagram = {
            number: state.reassembly.parts if isinstance(state.reassembly, Whole) else (number,)
            for number, state in odd.items()
        }
        last_part = {parts[-1]: number for number, parts in of_datagram.items()}
        concerned = ordinary | is_open
        concerned[list(last_part)] = True
        for row in np.flatnonzero(concerned).tolist():
            if ordinary[row]:
                untracked = bool(self._first.untracked[row])
                yield row, replace(self._trimmed(row), untracked=untracked, marked=untracked), (row,)
            elif row in last_part:
                number = last_part[row]
                yield number, odd[number], of_datagram[number]
            else:
                yield row, None, (row,)

    def _open_before(self) -> Bool:
        """bool[N]: the packet may have got to conntrack, and nobody knows."""
        early = self._first.stage < STAGE_CODE[Stage.CONNTRACK]
        return np.asarray(early & (self._first.fate == FATE_CODE[Fate.UNDETERMINED]), np.bool_)

    def _parsed(self, row: int) -> PacketState:
        frame = frame_on_wire(self.capture, row)
        try:
            return PacketState(parse(frame))
        except CutError:  # not even its Ethernet header is whole
            return PacketState(Packet(frame))

    def _trimmed(self, row: int) -> PacketState:
        """The packet as the hooks see it."""
        return ip_input.check(self._parsed(row), self._context).state

    def _walk(self, state: PacketState, node: Node) -> list[Step]:
        """The end that is predicted for the packet in its state, as the steps that lead there."""
        assert state.tracking is not None, "the follower sets it"
        self._walked.append(state.tracking)
        draft = self.drafts[_as_predicted(state.tracking.state)]
        fate = FATES[draft.fate[self._number]]
        code = int(draft.stage[self._number])
        reason = draft.reason_of(self._number)
        stage = Stage.SOCKET if code == NO_STAGE else STAGES[code]
        if fate is Fate.FORWARDED:
            stage = Stage.EGRESS
        routed = self._routed(state)
        note = str(_as_predicted(state.tracking.state))
        index = int(draft.entry[self._number])
        entry = None if index == NO_ENTRY else self.entries[index].name
        return [Step(stage, routed, "", ""), Step(fate, routed, "", reason, entry=entry, note=note)]

    def _routed(self, state: PacketState) -> PacketState:
        try:
            return route.check(state, self._context).state
        except CutError:
            return state

    def _end(self, draft: Draft, parts: Sequence[int], steps: Sequence[Step]) -> None:
        last = steps[-1]
        node = steps[-2].to if len(steps) > 1 else Stage.CONNTRACK
        for part in parts:
            if last.note:
                draft.take(self.drafts[CtState(last.note)], part)
            else:  # the ways part where the first of them ends
                first = min(int(self.drafts[_as_predicted(each.state)].stage[self._number]) for each in self._walked)
                draft.leave_open(part, STAGES[first], last.result)
            if last.others:
                self.sets[part] = ended(node, last)
            if len(self._walked) > 1:
                states = [tracking.state for tracking in self._walked]
                ends = {state: self.drafts[_as_predicted(state)].end_of(part) for state in states}
                self.by_state[part] = ends
            draft.tracks(part, _possible(self._walked), self._walked[0].why)


def _possible(walked: Sequence[Tracking]) -> set[CtState]:
    """The states that a packet may have. Of a packet that was cut, ESTABLISHED stands for RELATED as well."""
    states = {tracking.state for tracking in walked}
    is_cut = any(tracking.is_open for tracking in walked)
    return states | ({CtState.RELATED} if is_cut and CtState.ESTABLISHED in states else set())


def _as_predicted(state: CtState) -> CtState:
    return CtState.ESTABLISHED if state is CtState.RELATED else state
