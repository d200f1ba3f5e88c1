"""RuleTable: what one interface enforces, after selectors are resolved. The contract between compiler and backends.

The compiler promises: entries are in evaluation order (tier, policy order, name, rule index); every ``ip_set`` and
``not_ip_set`` of an entry is a key of ``sets``, every named port a key of ``port_sets``; every entry names the policy,
rule and position it came from. Nobody changes a table: a new desired state is a new table.

Evaluation (reference: Calico raw table, ``felix/rules/endpoints.go:422-781``), for one packet:

1. A failsafe matches -> the table does not apply (the packet goes on, tracked).
2. Entries in order; the first that matches decides. LOG goes on with the next entry. PASS skips the other entries
   of the same tier. ALLOW accepts untracked. DENY drops.
3. Nothing matched: the packet goes on, tracked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enforcer.model.errors import Position
from enforcer.model.nets import IPAddress, IPNetwork, Nets
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy.resources import NOWHERE, Failsafe, IcmpMatch, PortRange


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
    ``hash:ip,port`` does: a packet too short for its TCP (20 octets), UDP (8) or SCTP (12) header, or a later fragment,
    has no port and is in no set, so that a negated match holds for it.
    """

    id: str
    name: str
    protocol: int
    members: tuple[tuple[IPAddress, int], ...]


@dataclass(frozen=True)
class AddressMatch:
    """One side of a packet. Each field that is set must hold; an empty tuple or None is not looked at.

    A port matches when ``ports`` or ``named_ports`` hold it (either is enough), and neither ``not_ports`` nor
    ``not_named_ports`` do.
    """

    nets: tuple[IPNetwork, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    ip_set: str | None = None
    not_ip_set: str | None = None
    ports: tuple[PortRange, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    named_ports: tuple[str, ...] = ()
    not_named_ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One line of a RuleTable. ``name`` is what results print: ``gnp/dos-mitigation ingress[0]``."""

    name: str
    action: Action
    tier: str = "default"
    policy: str = ""
    direction: Direction = Direction.INGRESS
    index: int = 0
    ip_version: int | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: IcmpMatch | None = None
    not_icmp: IcmpMatch | None = None
    source: AddressMatch = AddressMatch()
    destination: AddressMatch = AddressMatch()
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
