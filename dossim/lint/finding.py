"""What lint finds, and the rules by which it does. Pure.

A rule's ``id`` is stable: people write it into the settings of their CI.
"""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.model.errors import Position
from enforcer.model.vocabulary import Word


class Level(Word):
    """Worst first. Errors and warnings are for somebody to mend; a note is for somebody to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for the worst."""
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


@dataclass(frozen=True)
class Rule:
    """``level`` is the usual one; a finding may have another. ``remedy`` says what would be right."""

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
        "Give the set the labels that a rule's selector asks for, or remove it.",
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
        "Nothing, if it was prepared for an attack to come; then only CIDRs have to be added.",
    ),
    Rule(
        RuleId.OVERLAPPING,
        Level.NOTE,
        "A set lists CIDRs that others of the set, or of a set beside it, cover.",
        "Remove the covered CIDRs: they take room in the kernel's sets and change nothing.",
    ),
    Rule(
        RuleId.OWN_ADDRESS,
        Level.ERROR,
        "A deny list holds an address of a host of ours, or a net that failsafes trust.",
        "Take the address out of the list, or allow it in an earlier entry.",
    ),
    Rule(
        RuleId.FAILSAFE,
        Level.WARNING,
        "Failsafe ports let in what an entry denies.",
        "Take the port out of failsafeInboundHostPorts or failsafeOutboundHostPorts of the FelixConfiguration.",
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
        "Order entries that deny by source alone first; XDP decides those, up to the first other one.",
    ),
    Rule(
        RuleId.PASS,
        Level.NOTE,
        "A Pass entry skips nothing: no later entry of its tier could match the packet.",
        "Remove the entry, or put it before those it is to skip.",
    ),
    Rule(
        RuleId.TIER_MISSING,
        Level.WARNING,
        "A policy belongs to a tier that no Tier resource defines.",
        "Add the Tier resource, with the order it is meant to have.",
    ),
    Rule(
        RuleId.NEIGHBOURS,
        Level.WARNING,
        "A Deny takes the packets of IPv6 neighbour discovery.",
        "Allow the ICMPv6 types 133 to 136 in an earlier entry.",
    ),
    Rule(
        RuleId.DUPLICATE,
        Level.WARNING,
        "A list of type set holds an item twice: Kubernetes refuses the whole object, Calico's own API takes it.",
        "Remove the second one.",
    ),
    Rule(
        RuleId.PORT_BY_NUMBER,
        Level.ERROR,
        "A HostEndpoint's port has its protocol by number: Felix takes the whole HostEndpoint for missing.",
        "Write TCP, UDP or SCTP.",
    ),
    Rule(
        RuleId.MAPPED_NET,
        Level.WARNING,
        "An IPv4-mapped CIDR (::ffff:0:0/96, in lists of IPv6 bogons) is an IPv4 net to Calico.",
        "Write the IPv4 net if it is meant, else leave it out: no rule of Calico's can match on such IPv6 packets.",
    ),
    Rule(
        RuleId.FEED,
        Level.WARNING,
        "A file is an address list and no resource: it enforces nothing.",
        "Write its CIDRs into spec.nets of a GlobalNetworkSet that a rule selects, or keep the file elsewhere.",
    ),
    Rule(
        RuleId.FELIX,
        Level.WARNING,
        "A FelixConfiguration is not applied to a node it may be meant for, or to any.",
        "Name it default or node.NODE, give it a nodeSelector, or add the Node resources with their labels.",
    ),
    Rule(
        RuleId.PASSED,
        Level.NOTE,
        "A field or kind that is not known here, or is Calico Enterprise's, is passed.",
        "Nothing, if nothing here was meant to depend on it.",
    ),
)


@dataclass(frozen=True)
class Related:
    """Another place that a finding is about."""

    position: Position
    message: str


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a policy."""

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
