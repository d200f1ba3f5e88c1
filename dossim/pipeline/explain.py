"""explain: one packet's path through the pipeline, hop by hop. The reference semantics of the project.

It evaluates the *resources* and never the compiled RuleTable, so that a bug of the compiler cannot hide. The packets of
a capture are walked together, because a fragment shares its datagram's fate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from dossim.model.disposition import OPEN_FATES, Disposition, Fate
from dossim.model.host import Host
from dossim.packet.cut import CutError, captured_length, why_not_sendable
from dossim.packet.fields import IP, Packet
from dossim.packet.parse import parse
from dossim.pipeline.cut import cut_at, possible_datagrams, why_open
from dossim.pipeline.following import Following
from dossim.pipeline.graph import START, pipeline_graph
from dossim.pipeline.policy import Policy
from dossim.pipeline.policy import Verdict as Untracked
from dossim.pipeline.reassembly import Open, Perhaps, Reassembly, Whole, reassemble
from dossim.pipeline.stages import Check, Context, Node, PacketState, Step, ended
from dossim.pipeline.tracked import TrackedPolicy
from enforcer.model.errors import Position
from enforcer.model.vocabulary import Backend, Direction, Mode, Stage
from enforcer.policy.resources import Resources


class Hop(NamedTuple):  # like Step
    """A node the packet reached: what was examined there and what was found; ``entry`` and ``position`` if a rule
    decided.

    ``note`` states why an earlier stage that could have decided did not. ``is_open``: the result is why nobody knows
    it. The last hop is the packet's fate.
    """

    stage: Node
    looked_at: str
    result: str
    entry: str | None = None
    position: Position | None = None
    note: str = ""
    is_open: bool = False


@dataclass(frozen=True)
class Trace:
    """The whole path. Consecutive hops are edges of the graph, except the last one of a packet whose end is open."""

    hops: tuple[Hop, ...]
    disposition: Disposition
    is_sent: bool = False  # it left the host that sent it

    def with_reason(self, reason: str) -> Trace:
        """The same with another reason of what is open: of the end, if that is undetermined, and of hops."""
        hops = tuple(hop._replace(result=reason) if hop.is_open else hop for hop in self.hops)
        if self.disposition.fate is not Fate.UNDETERMINED:
            return replace(self, hops=hops)
        end = replace(self.disposition, reason=reason)
        *way, last, _ = hops
        return Trace((*way, last._replace(result=reason), Hop(Fate.UNDETERMINED, "", str(end))), end)

    def open_where_other(self, other: Trace, first: Stage, reason: str) -> Trace:
        """This trace, or an undetermined one if the other trace ends differently: undetermined from the earlier of the
        two stages, or from ``first`` if neither has a stage.
        """
        if self.disposition.ends == other.disposition.ends:
            return self
        order = list(Stage)
        stages = [found.disposition.stage for found in (self, other) if found.disposition.stage is not None]
        stage = min(stages, key=order.index, default=first)
        end = Disposition(Fate.UNDETERMINED, stage, reason=reason)
        way = [hop for hop in self.hops if isinstance(hop.stage, Stage) and order.index(hop.stage) < order.index(stage)]
        last = Hop(stage, "the packet as it stands and as it may have been", reason)
        return Trace((*way, last, Hop(Fate.UNDETERMINED, "", str(end))), end)


class Explainer:
    """Explains packets that arrive at ``host.interface``. ``mode`` is how XDP is attached there, None when it is not;
    ``raw_backend`` the backend of raw; ``netdev`` whether netdev ingress drops if there is no XDP. ``tracked``: tracked
    policy decides too, with what conntrack says of each packet; else conntrack, mangle and filter pass everything.
    Raises UnsupportedRuleError for rules that match on what a packet does not show.
    """

    def __init__(
        self,
        resources: Resources,
        host: Host,
        *,
        mode: Mode | None,
        raw_backend: Backend = Backend.IPTABLES,
        netdev: bool = False,
        tracked: bool = False,
    ) -> None:
        addresses = [address.ip for address in host.addresses]
        policy = Policy.of(resources, node=host.node, interface=host.interface, addresses=addresses)
        after = TrackedPolicy.of(resources, host) if tracked else None
        governed = after if after is not None and after.governs else None
        self._world = Context(policy, host, mode, raw_backend, netdev, governed)
        if governed is not None:
            of = partial(Policy.of, resources, node=host.node, direction=Direction.EGRESS)
            self._outside = of(interface=host.interface, addresses=addresses)
            self._inside = of(interface=host.inside, addresses=())
        graph = pipeline_graph()
        self._checks: dict[Node, Check] = dict(graph.nodes(data="check"))
        self._edges = frozenset(graph.edges)

    def explain(self, frame: bytes) -> Trace:
        """One frame that arrives alone."""
        return self.explain_capture([frame])[0]

    def explain_packet_of(self, frames: Sequence[bytes], number: int) -> Trace:
        """The frame with this number (from 0) of a capture whose frames all arrive."""
        return self.explain_capture(frames)[number]

    def explain_capture(self, frames: Sequence[bytes], times: Sequence[int] | None = None) -> list[Trace]:
        """All frames, in order of arrival: each is walked to defragmentation, then all are reassembled and go on, a
        datagram at the arrival of its last fragment. ``times``: when each arrives, in ns; without, all at one instant.
        """
        walked = [self._received(frame) for frame in frames]
        arrived = {n: steps[-1].state for n, steps in enumerate(walked) if steps[-1].to is Stage.DEFRAG}
        fates = reassemble(_arrivals(frames, walked))
        onward = _Onward(self._walk, self._following())
        # The fragments of a datagram share one path from here on; only their notes differ.
        together: dict[tuple[int, str], list[Step]] = {}
        for number in sorted(range(len(frames)), key=lambda number: _arrival(number, fates.get(number))):
            state = arrived.get(number)
            if state is None:
                onward.lost(walked[number][-1])
                continue
            fate = fates[number]
            # A datagram is received as its first fragment was: for this host or for a group.
            head = arrived[fate.head] if isinstance(fate, Whole) else state
            key = (id(fate), state.passed) if isinstance(fate, Whole) else (-1 - number, "")
            if key not in together:
                at_ns = 0 if times is None else times[_arrival(number, fate)]
                together[key] = onward.go(replace(head, passed=state.passed, reassembly=fate), key[0], at_ns)
            walked[number] += together[key]
        return [_trace(steps) for steps in walked]

    def _following(self) -> Following | None:
        if self._world.tracked is None:
            return None
        walk = partial(self._walk, stop=None)
        return Following(
            self._world,
            walk,
            sends_outside=lambda key: self._outside.decide(key).verdict is Untracked.GO_ON,
            sends_inside=lambda key: self._inside.decide(key).verdict is Untracked.GO_ON,
        )

    def _received(self, frame: bytes) -> list[Step]:
        """A frame's path to defragmentation."""
        why = why_not_sendable(frame, len(frame))
        if why:
            return [Step(Fate.NOT_SENDABLE, PacketState(Packet(frame)), "the frame", why)]
        try:
            state = PacketState(parse(frame))
        except CutError:
            state = PacketState(Packet(frame))
            why = cut_at(captured_length(frame), len(frame), "its Ethernet header is incomplete")
            return [Step(Fate.UNDETERMINED, state, "the frame", why)]
        return self._walk(state, START, Stage.DEFRAG)

    def _walk(self, state: PacketState, node: Node, stop: Stage | None) -> list[Step]:
        """Step by step, to a fate or as far as ``stop``."""
        steps: list[Step] = []
        while not isinstance(node, Fate):
            step = self._step(state, node)
            known = step.to in OPEN_FATES or (node, step.to) in self._edges
            assert known, f"{node} leads to {step.to}, which is no edge of the graph"
            steps.append(step)
            state, node = step.state, step.to
            if node is stop:
                break
        return steps

    def _step(self, state: PacketState, stage: Stage) -> Step:
        try:
            return self._checks[stage](state, self._world)
        except CutError:
            return Step(Fate.UNDETERMINED, state, "the captured bytes", why_open(stage, state))


class _Onward:
    """Takes packets from defragmentation to their ends; with tracked policy, in the order in which they are given."""

    def __init__(self, walk: Callable[[PacketState, Node, Stage | None], list[Step]], following: Following | None):
        self._walk = walk
        self._following = following
        self._followed: dict[int, list[Step]] = {}

    def go(self, state: PacketState, datagram: int, at_ns: int) -> list[Step]:
        """``datagram`` is the same for all fragments of one: conntrack sees it once."""
        if self._following is None:
            return self._walk(state, Stage.DEFRAG, None)
        steps = self._walk(state, Stage.DEFRAG, Stage.CONNTRACK)
        last = steps[-1]
        if last.to is not Stage.CONNTRACK:
            self.lost(last)
            return steps
        if datagram not in self._followed:
            self._followed[datagram] = self._following.follow(last.state, at_ns)
        return steps + self._followed[datagram]

    def lost(self, last: Step) -> None:
        """The last step of a packet that ended before conntrack."""
        if self._following is not None and last.to is Fate.UNDETERMINED:
            self._following.may_have_passed(last.state.ip or last.state.packet.ip)


def _arrival(number: int, fate: Reassembly | None) -> int:
    """Whose arrival takes a packet to conntrack: its own, or that of the last fragment of its datagram, or perhaps that
    of one of which nobody knows.
    """
    if isinstance(fate, Open) and fate.since is not None:
        return fate.since
    return fate.parts[-1] if isinstance(fate, Whole) else number


def _arrivals(frames: Sequence[bytes], walked: Sequence[Sequence[Step]]) -> Iterator[tuple[int, IP | Perhaps]]:
    """The packets that reach defragmentation, and those that may."""
    for number, steps in enumerate(walked):
        last = steps[-1]
        if last.to is Stage.DEFRAG and last.state.ip is not None:
            yield number, last.state.ip
        elif last.to is Fate.UNDETERMINED:
            prefix = possible_datagrams(frames[number])
            if prefix is not None:
                yield number, Perhaps(prefix)


def _trace(steps: Sequence[Step]) -> Trace:
    hops: list[Hop] = []
    node: Node = START
    for step in steps:
        hops.append(Hop(node, step.looked_at, step.result, step.entry, step.position, step.note, step.is_open))
        node = step.to
    before = hops[-1].stage
    disposition = ended(before, steps[-1])
    return Trace((*hops, Hop(node, "", str(disposition))), disposition)
