"""explain: one packet's way through the pipeline, hop by hop. The reference semantics of the project.

It evaluates the *resources*; the compiled RuleTable is never seen here, so that a bug of the compiler cannot hide.
Packets of a capture are walked together, because a fragment's fate is its datagram's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dossim.disposition import Disposition, Fate
from dossim.host import Host
from dossim.packet.parse import parse
from dossim.pipeline.graph import START, pipeline_graph
from dossim.pipeline.policy import Policy
from dossim.pipeline.reassembly import Whole, reassemble
from dossim.pipeline.stages import Check, Flight, Node, Step, World
from enforcer.errors import Position
from enforcer.policy.resources import Resources
from enforcer.words import Backend, Mode, Stage


@dataclass(frozen=True)
class Hop:
    """A node the packet came to: what was looked at there and what was found; ``entry`` and ``position`` when a rule
    decided.

    ``note`` says why a stage that could have decided earlier did not. The last hop is the packet's fate.
    """

    stage: Node
    looked_at: str
    result: str
    entry: str | None = None
    position: Position | None = None
    note: str = ""


@dataclass(frozen=True)
class Trace:
    """The whole way. Consecutive hops are edges of the graph."""

    hops: tuple[Hop, ...]
    disposition: Disposition


class Explainer:
    """Explains packets that arrive at ``host.interface``. ``mode`` is how XDP is attached there, None when it is not;
    ``raw_backend`` what holds the raw part; ``netdev`` whether netdev ingress drops where there is no XDP.

    Raises UnsupportedRuleError when made of rules that untracked policy cannot have.
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
        self._world = World(policy, host, mode, raw_backend, netdev)
        graph = pipeline_graph()
        self._checks: dict[Node, Check] = dict(graph.nodes(data="check"))
        self._edges = frozenset(graph.edges)

    def explain(self, frame: bytes) -> Trace:
        """One frame that arrives alone."""
        return self.explain_capture([frame])[0]

    def explain_packet_of(self, frames: Sequence[bytes], number: int) -> Trace:
        """The frame with this number (from 0) of a capture, all of which arrives."""
        return self.explain_capture(frames)[number]

    def explain_capture(self, frames: Sequence[bytes]) -> list[Trace]:
        """All frames, in order of arrival: as far as defragmentation, where those that got there meet, and on from
        there.
        """
        walked = [list(self._walk(Flight(parse(frame)), START)) for frame in frames]
        arrived = {n: steps[-1].flight for n, steps in enumerate(walked) if steps[-1].to is Stage.DEFRAG}
        fates = reassemble((number, flight.ip) for number, flight in arrived.items() if flight.ip is not None)
        for number, flight in arrived.items():
            fate = fates[number]
            # A datagram is received as its first part was: for this host or for a group.
            head = arrived[fate.head] if isinstance(fate, Whole) else flight
            walked[number] += self._walk(replace(head, passed=flight.passed, reassembly=fate), Stage.DEFRAG)
        return [_trace(steps) for steps in walked]

    def _walk(self, flight: Flight, node: Node) -> Iterator[Step]:
        """Step by step, to a fate or to the door of defragmentation."""
        while not isinstance(node, Fate):
            step = self._checks[node](flight, self._world)
            assert (node, step.to) in self._edges, f"{node} leads to {step.to}, which is no edge of the graph"
            yield step
            flight, node = step.flight, step.to
            if node is Stage.DEFRAG:
                return


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
    if fate is not Fate.DROPPED:
        return Disposition(fate, reason=last.result)
    assert isinstance(stage, Stage), "only stages drop"
    return Disposition(fate, stage, last.entry, last.entry or last.result)
