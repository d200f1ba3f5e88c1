"""Lint's findings and rules. Pure.

A rule's ``id`` is stable: users write it into their CI configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.model.errors import Position
from enforcer.model.vocabulary import Word


class Level(Word):
    """Worst first. Errors and warnings should be fixed; a note is information."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for the worst level."""
        return list(Level).index(self)


class RuleId(Word):
    SHADOWED = "shadowed-entry"
    UNREACHABLE = "unreachable-entry"
    UNUSED_SET = "unused-set"
    SELECTS_NOTHING = "selector-matches-nothing"
    EMPTY_SET = "empty-set"
    OVERLAPPING = "overlapping-cidrs"
    OWN_ADDRESS = "own-address-denied"
    FAILSAFE = "failsafe-bypasses-deny"
    ALLOWED_EARLIER = "allowed-earlier"
    NOT_EARLY = "not-early"
    PASS = "pass-without-effect"
    TIER_MISSING = "tier-missing"
    NEIGHBOURS = "neighbour-discovery-denied"
    DUPLICATE = "duplicate-nets"
    PORT_BY_NUMBER = "host-endpoint-port-by-number"
    MAPPED_NET = "mapped-net"
    FEED = "feed-not-enforced"
    FELIX = "felix-configuration-not-applied"
    PASSED = "passed-unread"
    CLOSED = "host-closed"
    SSH = "ssh-closed"
    LOOPBACK = "loopback-policed"
    OUTLIVES = "established-outlives-deny"
    REJECT = "reject-drops"


@dataclass(frozen=True)
class Rule:
    """``level`` is the default level; a finding may have another. ``remedy`` states the fix."""

    id: RuleId
    level: Level
    summary: str
    remedy: str


RULES: tuple[Rule, ...] = (
    Rule(
        RuleId.SHADOWED,
        Level.WARNING,
        "Earlier entries decide every packet this entry matches.",
        "Remove the entry, or order it before those that take its packets.",
    ),
    Rule(
        RuleId.UNREACHABLE,
        Level.WARNING,
        "No packet can match this entry.",
        "Remove the entry, or the condition that contradicts the others.",
    ),
    Rule(
        RuleId.UNUSED_SET,
        Level.WARNING,
        "No rule's selector selects this network set.",
        "Give the set the labels that a rule's selector matches, or remove it.",
    ),
    Rule(
        RuleId.SELECTS_NOTHING,
        Level.WARNING,
        "A selector selects nothing that was given.",
        "Compare the selector with the labels of HostEndpoints and network sets ('dossim selector' evaluates one).",
    ),
    Rule(
        RuleId.EMPTY_SET,
        Level.NOTE,
        "A network set that a rule selects holds no CIDR.",
        "None, if it is prepared for a future attack: then only CIDRs have to be added.",
    ),
    Rule(
        RuleId.OVERLAPPING,
        Level.NOTE,
        "A set lists CIDRs that other CIDRs of it, or of another set in the same rule, cover.",
        "Remove the covered CIDRs: they use memory in the kernel's sets and have no effect.",
    ),
    Rule(
        RuleId.OWN_ADDRESS,
        Level.ERROR,
        "A deny list contains an address of our own hosts, or a net of a failsafe.",
        "Remove the address from the list, or allow it in an earlier entry.",
    ),
    Rule(
        RuleId.FAILSAFE,
        Level.WARNING,
        "Failsafe ports let in what an entry denies.",
        "Remove the port from failsafeInboundHostPorts or failsafeOutboundHostPorts of the FelixConfiguration.",
    ),
    Rule(
        RuleId.ALLOWED_EARLIER,
        Level.NOTE,
        "An earlier untracked Allow lets through what a policy denies.",
        "Narrow the Allow, or put the Deny before it.",
    ),
    Rule(
        RuleId.NOT_EARLY,
        Level.NOTE,
        "XDP does not enforce this entry; the raw table does.",
        "Order entries that deny by source alone first; XDP decides those, up to the first other entry.",
    ),
    Rule(
        RuleId.PASS,
        Level.NOTE,
        "A Pass entry skips nothing: no later entry of its tier could match the packet.",
        "Remove the entry, or order it before the entries it should skip.",
    ),
    Rule(
        RuleId.TIER_MISSING,
        Level.WARNING,
        "A policy belongs to a tier that no Tier resource defines.",
        "Add the Tier resource, with the intended order.",
    ),
    Rule(
        RuleId.NEIGHBOURS,
        Level.WARNING,
        "A Deny drops the packets of IPv6 neighbour discovery.",
        "Allow the ICMPv6 types 133 to 136 in an earlier entry.",
    ),
    Rule(
        RuleId.DUPLICATE,
        Level.WARNING,
        "A list of type set has a duplicate: Kubernetes rejects the whole object, Calico's own API accepts it.",
        "Remove the duplicate.",
    ),
    Rule(
        RuleId.PORT_BY_NUMBER,
        Level.ERROR,
        "A HostEndpoint's port has its protocol by number: Felix ignores the whole HostEndpoint.",
        "Write TCP, UDP or SCTP.",
    ),
    Rule(
        RuleId.MAPPED_NET,
        Level.WARNING,
        "Calico treats an IPv4-mapped CIDR (::ffff:0:0/96, in lists of IPv6 bogons) as an IPv4 net.",
        "Write the IPv4 net if intended, else remove it: no Calico rule can match on such IPv6 packets.",
    ),
    Rule(
        RuleId.FEED,
        Level.WARNING,
        "A file is an address list, not a resource: it enforces nothing.",
        "Import it with 'enforcer feed sync', or write its CIDRs into a GlobalNetworkSet that a rule selects.",
    ),
    Rule(
        RuleId.FELIX,
        Level.WARNING,
        "A FelixConfiguration does not apply to any node, or not to a node it may be meant for.",
        "Name it default or node.NODE, give it a nodeSelector, or add the Node resources with their labels.",
    ),
    Rule(
        RuleId.PASSED,
        Level.NOTE,
        "An unknown field or kind, or one of Calico Enterprise, is ignored.",
        "None, if nothing here should depend on it.",
    ),
    Rule(
        RuleId.CLOSED,
        Level.WARNING,
        "No policy and no profile of a HostEndpoint allows anything: normal policy closes the host.",
        "Allow what the host needs, in a normal policy or in a profile of the HostEndpoint.",
    ),
    Rule(
        RuleId.SSH,
        Level.ERROR,
        "Neither a failsafe nor policy lets in SSH.",
        "Add TCP 22 to failsafeInboundHostPorts, or allow it in a normal policy.",
    ),
    Rule(
        RuleId.LOOPBACK,
        Level.ERROR,
        "Normal policy of a '*' HostEndpoint does not allow the host's connections to itself.",
        "Allow 127.0.0.0/8 and ::1 in both directions, or add lo to interfaceExclude of the FelixConfiguration.",
    ),
    Rule(
        RuleId.OUTLIVES,
        Level.NOTE,
        "A deny list of tracked policy does not stop connections that are already established.",
        "Set doNotTrack: true and applyOnForward: true, if the list is meant to stop an attack.",
    ),
    Rule(
        RuleId.REJECT,
        Level.WARNING,
        "The configured Reject is not carried out: tracked policy drops.",
        "Set Drop, or expect clients to wait instead of being refused.",
    ),
)


@dataclass(frozen=True)
class Related:
    """Another place that a finding refers to."""

    position: Position
    message: str


@dataclass(frozen=True)
class Finding:
    """One problem of a policy, or one piece of information about it."""

    rule: RuleId
    level: Level
    position: Position
    message: str
    related: tuple[Related, ...] = ()

    def __str__(self) -> str:
        return f"{self.position}: {self.level}: {self.message} [{self.rule}]"


def some(items: list[str], most: int = 3) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
