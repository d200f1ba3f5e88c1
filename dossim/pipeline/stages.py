"""The types of the pipeline graph: PacketState in, Step out.

A node is a Stage or a Fate. A check is a pure function of one packet and its context. It returns the packet's next node
and, for people, what it examined and what it found. It never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from dossim.model.disposition import Disposition, Fate
from dossim.model.host import Host
from dossim.packet.fields import IP, LinkType, Packet
from dossim.pipeline.policy import Policy
from dossim.pipeline.reassembly import Reassembly
from dossim.pipeline.tracked import TrackedPolicy
from dossim.pipeline.xdp_held import Held, held_rules
from enforcer.model.errors import Position
from enforcer.model.vocabulary import Backend, CtState, Mode, Stage, Word
from enforcer.policy.resources import Rule

Node = Stage | Fate


class Destination(Word):
    """How routing classifies a destination address (``rt_type``)."""

    LOCAL = "an own address"
    ANYCAST = "an own anycast address"
    BROADCAST = "a broadcast address"
    MULTICAST = "a group this host has joined"


@dataclass(frozen=True)
class Context:
    """What all packets of a capture share. ``mode`` None: no XDP program on the interface. ``netdev``: netdev ingress
    drops instead. ``tracked`` None: tracked policy takes no part.
    """

    policy: Policy
    host: Host
    mode: Mode | None
    raw_backend: Backend = Backend.IPTABLES
    netdev: bool = False
    tracked: TrackedPolicy | None = None

    @cached_property
    def held(self) -> Held:
        """The rules that the XDP program holds; netdev ingress holds those of a driver's program."""
        if self.mode is None:
            return held_rules(self.policy, Mode.NATIVE) if self.netdev else Held(())
        return held_rules(self.policy, self.mode)

    @classmethod
    def without_policy(cls, host: Host) -> Context:
        """A host without policy, for checks that need no more (header checks, routing, transport)."""
        return cls(Policy.none(), host, None)


@dataclass(frozen=True)
class Tracking:
    """What conntrack says of a packet, and why: ``NEW: no entry``. ``is_open``: one of several that it may say, because
    the capture lacks what decides.
    """

    state: CtState
    why: str
    is_open: bool = False


@dataclass(frozen=True)
class PacketState:
    """One packet at a stage: what was received, and what the previous stages found.

    ``ip`` is the packet as the network layer has it now: trimmed to its own length, then reassembled. ``passed`` states
    why an earlier stage that could have dropped it did not. ``untracked``: an Allow has taken it out of connection
    tracking and marked it as accepted. ``marked``: an Allow of untracked or preDNAT policy has. ``tracking`` is set
    where tracked policy takes part.
    """

    packet: Packet
    ip: IP | None = None
    link_type: LinkType = LinkType.HOST
    reassembly: Reassembly | None = None
    destination: Destination | None = None
    passed: str = ""
    untracked: bool = False
    marked: bool = False
    tracking: Tracking | None = None


class Step(NamedTuple):  # of which a packet has ten: built five times as fast as a frozen dataclass
    """The result of a node. ``entry`` is set if policy decided, ``rule`` if a rule of it did; ``note`` has more
    information. ``others``: how else the packet may end, for a reason that is ``depends``. ``is_open``: the result is
    why nobody knows it.
    """

    to: Node
    state: PacketState
    looked_at: str
    result: str
    entry: str | None = None
    rule: Rule | None = None
    note: str = ""
    others: tuple[Disposition, ...] = ()
    depends: str = ""
    is_open: bool = False

    @property
    def position(self) -> Position | None:
        return None if self.rule is None else self.rule.position


def ended(node: Node, last: Step) -> Disposition:
    """The disposition of a packet whose last step was made at ``node``."""
    assert isinstance(last.to, Fate), "every walk ends in a fate"
    assert isinstance(node, Stage), "every walk ends after a stage"
    if last.to is Fate.UNDETERMINED:
        return Disposition(last.to, node, reason=last.result)
    if last.to is not Fate.DROPPED:
        return Disposition(last.to, reason=last.result, others=last.others, depends=last.depends)
    reason = last.entry or last.result
    return Disposition(last.to, node, last.entry, reason, last.others, last.depends)


Check = Callable[[PacketState, Context], Step]


@dataclass(frozen=True)
class Edge:
    """An edge from one node to another; ``condition`` describes when it is taken."""

    source: Node
    target: Node
    condition: str = field(compare=False)
