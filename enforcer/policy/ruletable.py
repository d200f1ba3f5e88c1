"""RuleTable: what one interface enforces, after selectors are resolved. The contract between compiler and backends.

The compiler promises: entries are in evaluation order (tier, policy order, name, rule index). An entry's conditions are
protocol, then for each side sets, nets and ports, then ICMP type, the positive one of a kind first; of a kind, side and
negation there is one at most. Every set that one names is a key of ``sets``, every named port a key of ``port_sets``.
Every entry names the policy, rule and position it came from. Nobody changes a table: a new desired state is a new one.

Evaluation (reference: Calico raw table, ``felix/rules/endpoints.go:422-781``), for one packet:

1. A failsafe matches -> the table does not apply (the packet goes on, tracked).
2. Entries in order; the first that matches decides. LOG goes on with the next entry. PASS skips the other entries
   of the same tier. ALLOW accepts untracked. DENY drops.
3. Nothing matched: the packet goes on, tracked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from enforcer.model.errors import Position
from enforcer.model.nets import IPAddress, Nets
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy.conditions import FAMILIES, Conditions
from enforcer.policy.resources import NOWHERE, Failsafe


@dataclass(frozen=True)
class IpSet:
    """The addresses a selector stands for. ``id`` is Calico's selector UID (``s:...``)."""

    id: str
    selector: str  # canonical text
    nets: Nets
    members: tuple[str, ...] = ()  # resources that contributed, e.g. "gns/dos-mitigation"


@dataclass(frozen=True)
class PortSet:
    """What a named port stands for: the (address, port) pairs of one protocol, at one side of a packet.

    The pairs are those of HostEndpoints that have a port of this name and protocol and that the rule's own selector
    selects. A rule without protocol names such a set for each protocol that has ports. ``id`` is Calico's
    (``felix/calc/rule_scanner.go``: ``n:...``). ipset matches them as
    ``hash:ip,port`` does: a packet too short for its TCP (20 bytes), UDP (8) or SCTP (12) header, or a later fragment,
    has no port and is in no set, so that a negated match holds for it.
    """

    id: str
    name: str
    protocol: int
    members: tuple[tuple[IPAddress, int], ...]


@dataclass(frozen=True)
class Entry:
    """One line of a RuleTable. ``name`` is what results print: ``gnp/dos-mitigation ingress[0]``.

    ``families`` are the IP versions it is for, none where it can match nothing; consumers leave it out in all others.
    In those it is for, a packet matches when all ``conditions`` hold.
    """

    name: str
    action: Action
    tier: str = "default"
    policy: str = ""
    direction: Direction = Direction.INGRESS
    index: int = 0
    families: tuple[int, ...] = FAMILIES
    conditions: Conditions = ()
    position: Position = NOWHERE


@dataclass(frozen=True)
class TrackedPolicy:
    """A policy that selects the endpoint and acts after conntrack: read and checked, neither enforced nor predicted.

    ``hooks`` are where Calico would enforce it, in kernel terms: ``mangle PREROUTING`` for preDNAT, else ``filter
    INPUT`` and ``filter OUTPUT``, with applyOnForward ``filter FORWARD`` too (``felix/calc/event_sequencer.go``).
    """

    name: str
    hooks: tuple[str, ...]
    position: Position = NOWHERE


class NamedSets(Protocol):
    """Where the sets are that conditions of entries name: a table of entries."""

    @property
    def sets(self) -> Mapping[str, IpSet]: ...

    @property
    def port_sets(self) -> Mapping[str, PortSet]: ...


@dataclass(frozen=True)
class RuleTable:
    """The untracked entries of one interface. ``endpoint`` is the governing HostEndpoint, None if there is none."""

    interface: str
    endpoint: str | None = None
    ingress: tuple[Entry, ...] = ()
    egress: tuple[Entry, ...] = ()
    failsafe_inbound: tuple[Failsafe, ...] = ()
    failsafe_outbound: tuple[Failsafe, ...] = ()
    sets: Mapping[str, IpSet] = field(default_factory=dict)
    port_sets: Mapping[str, PortSet] = field(default_factory=dict)
    tracked: tuple[TrackedPolicy, ...] = ()
