"""explain: one packet's path through the pipeline, hop by hop. The reference semantics of the project.

It evaluates the *resources* and never the compiled RuleTable, so that a bug of the compiler cannot hide. The packets of
a capture are walked together, because a fragment shares its datagram's fate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dossim.model.disposition import OPEN_FATES, Disposition, Fate
from dossim.model.host import Host
from dossim.packet.cut import CutError, captured_length, why_not_sendable
from dossim.packet.fields import IP, Packet
from dossim.packet.parse import parse
from dossim.pipeline.cut import cut_at, possible_datagrams, why_open
from dossim.pipeline.graph import START, pipeline_graph
from dossim.pipeline.policy import Policy
from dossim.pipeline.reassembly import Perhaps, Whole, reassemble
from dossim.pipeline.stages import Check, Context, Node, PacketState, Step
from enforcer.model.errors import Position
from enforcer.model.vocabulary import Backend, Mode, Stage
from enforcer.policy.resources import Resources


@dataclass(frozen=True)
class Hop:
    """A node the packet reached: what was examined there and what was found; ``entry`` and ``position`` if a rule
    decided.

    ``note`` states why an earlier stage that could have decided did not. The last hop is the packet's fate.
    """

    stage: Node
    looked_at: str
    result: str
    entry: str | None = None
    position: Position | None = None
    note: str = ""


@dataclass(frozen=True)
class Trace:
    """The whole path. Consecutive hops are edges of the graph, except the last one of a packet whose end is open."""

    hops: tuple[Hop, ...]
    disposition: Disposition
    is_sent: bool = False  # it left the host that sent it

    def with_reason(self, reason: str) -> Trace:
        """If undetermined, the same with another reason; else unchanged."""
        if self.disposition.fate is not Fate.UNDETERMINED:
            return self
        end = replace(self.disposition, reason=reason)
        *way, last, _ = self.hops
        return Trace((*way, replace(last, result=reason), Hop(Fate.UNDETERMINED, "", str(end))), end)

    def open_where_other(self, other: Trace, first: Stage, reason: str) -> Trace:
        """This trace, or an undetermined one if the other trace ends differently: undetermined from the earlier of the
        two stages, or from ``first`` if neither has a stage.
        """
        if self.disposition.agrees(other.disposition):
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
    ``raw_backend`` the backend of raw; ``netdev`` whether netdev ingress drops if there is no XDP. Raises
    UnsupportedRuleError for rules that untracked policy cannot have.
    """

    def __init__(
        self,
        resources: Resources,
        host: Host,
        *,
        mode: Mode | None,
        raw_backend: Backend = Backend.IPTABLES,
        netdev: bool = False,
    ) -> None:
        addresses = [address.ip for address in host.addresses]
        policy = Policy.of(resources, node=host.node, interface=host.interface, addresses=addresses)
        self._world = Context(policy, host, mode, raw_backend, netdev)
        graph = pipeline_graph()
        self._checks: dict[Node, Check] = dict(graph.nodes(data="check"))
        self._edges = frozenset(graph.edges)

    def explain(self, frame: bytes) -> Trace:
        """One frame that arrives alone."""
        return self.explain_capture([frame])[0]

    def explain_packet_of(self, frames: Sequence[bytes], number: int) -> Trace:
        """The frame with this number (from 0) of a capture whose frames all arrive."""
        return self.explain_capture(frames)[number]

    def explain_capture(self, frames: Sequence[bytes]) -> list[Trace]:
        """All frames, in order of arrival: each is walked to defragmentation, then all are reassembled and go on."""
        walked = [self._received(frame) for frame in frames]
        arrived = {n: steps[-1].state for n, steps in enumerate(walked) if steps[-1].to is Stage.DEFRAG}
        fates = reassemble(_arrivals(frames, walked))
        # The fragments of a datagram share one path from here on; only their notes differ.
        together: dict[tuple[int, str], list[Step]] = {}
        for number, state in arrived.items():
            fate = fates[number]
            # A datagram is received as its first fragment was: for this host or for a group.
            head = arrived[fate.head] if isinstance(fate, Whole) else state
            key = (id(fate), state.passed) if isinstance(fate, Whole) else (-1 - number, "")
            if key not in together:
                together[key] = list(self._walk(replace(head, passed=state.passed, reassembly=fate), Stage.DEFRAG))
            walked[number] += together[key]
        return [_trace(steps) for steps in walked]

    def _received(self, frame: bytes) -> list[Step]:
        """A frame's path to defragmentation."""
        why = why_not_sendable(frame, len(frame))
        if why:
            return [Step(Fate.NOT_SENDABLE, PacketState(Packet(frame)), "the frame", why)]
        try:
            state = PacketState(parse(frame))
        except CutError:
            state = PacketState(Packet(frame))
            why = cut_at(captured_length(frame), len(frame), "its Ethernet header is not whole")
            return [Step(Fate.UNDETERMINED, state, "the frame", why)]
        return list(self._walk(state, START))

    def _walk(self, state: PacketState, node: Node) -> Iterator[Step]:
        """Step by step, to a fate or to defragmentation."""
        while not isinstance(node, Fate):
            step = self._step(state, node)
            known = step.to in OPEN_FATES or (node, step.to) in self._edges
            assert known, f"{node} leads to {step.to}, which is no edge of the graph"
            yield step
            state, node = step.state, step.to
            if node is Stage.DEFRAG:
                return

    def _step(self, state: PacketState, stage: Stage) -> Step:
        try:
            return self._checks[stage](state, self._world)
        except CutError:
            return Step(Fate.UNDETERMINED, state, "the captured bytes", why_open(stage, state))


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
        hops.append(Hop(node, step.looked_at, step.result, step.entry, step.position, step.note))
        node = step.to
    last = steps[-1]
    assert isinstance(node, Fate), "every walk ends in a fate"
    disposition = _disposition(node, hops[-1].stage, last)
    return Trace((*hops, Hop(node, "", str(disposition))), disposition)


def _disposition(fate: Fate, stage: Node, last: Step) -> Disposition:
    assert isinstance(stage, Stage), "every walk ends after a stage"
    if fate is Fate.UNDETERMINED:
        return Disposition(fate, stage, reason=last.result)
    if fate is not Fate.DROPPED:
        return Disposition(fate, reason=last.result)
    return Disposition(fate, stage, last.entry, last.entry or last.result)
