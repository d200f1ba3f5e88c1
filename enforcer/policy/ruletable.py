"""RuleTable: what one interface enforces, after selectors are resolved. The contract between compiler and backends.

The compiler guarantees: entries are in evaluation order (tier, policy order, name, rule index). The conditions of an
entry are ordered: protocol, then for each side sets, nets and ports, then ICMP type, with the positive one of a kind
first; there is at most one for each kind, side and negation. Every set in a condition is a key of ``sets``, every named
port a key of ``port_sets``. Every entry has the policy, rule and position it came from. Tables are immutable: a new
desired state is a new table.

Evaluation (reference: Calico raw table, ``felix/rules/endpoints.go:422-781``), for one packet:

1. A failsafe matches: the table does not apply (the packet continues, tracked).
2. Entries in order; the first that matches decides. LOG continues with the next entry. PASS skips the other entries
   of the same tier. ALLOW accepts untracked. DENY drops.
3. Nothing matched: the packet continues, tracked.
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
    """The addresses that a selector selects. ``id``: Calico's selector UID (``s:...``)."""

    id: str
    selector: str  # canonical text
    nets: Nets
    members: tuple[str, ...] = ()  # resources that contributed, e.g. "gns/dos-mitigation"


@dataclass(frozen=True)
class PortSet:
    """The members of a named port: (address, port) pairs of one protocol, on one side of a packet.

    The pairs are those of HostEndpoints that have a port of this name and protocol and that the rule's own selector
    selects. A rule without a protocol has one such set for each protocol with ports. ``id``: Calico's
    (``felix/calc/rule_scanner.go``: ``n:...``). The semantics are those of an ipset of type ``hash:ip,port``: a packet
    too short for its TCP (20 bytes), UDP (8) or SCTP (12) header, or a later fragment, has no port and is in no set, so
    a negated match holds for it.
    """

    id: str
    name: str
    protocol: int
    members: tuple[tuple[IPAddress, int], ...]


@dataclass(frozen=True)
class Entry:
    """One line of a RuleTable. ``name`` identifies it in all results: ``gnp/dos-mitigation ingress[0]``.

    ``families``: the IP versions it is for; empty if it can match nothing. Consumers ignore it in other families. In
    its families, a packet matches if all ``conditions`` hold.
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
    """A policy that selects the endpoint and acts after conntrack; what it compiles to is in a TrackedTable.

    ``hooks``: where Calico would enforce it: ``mangle PREROUTING`` for preDNAT, else ``filter INPUT`` and ``filter
    OUTPUT``, with applyOnForward also ``filter FORWARD`` (``felix/calc/event_sequencer.go``).
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
    """The untracked entries of one interface. ``endpoint``: the governing HostEndpoint; None if there is none."""

    interface: str
    endpoint: str | None = None
    ingress: tuple[Entry, ...] = ()
    egress: tuple[Entry, ...] = ()
    failsafe_inbound: tuple[Failsafe, ...] = ()
    failsafe_outbound: tuple[Failsafe, ...] = ()
    sets: Mapping[str, IpSet] = field(default_factory=dict)
    port_sets: Mapping[str, PortSet] = field(default_factory=dict)
    tracked: tuple[TrackedPolicy, ...] = ()
