"""The values of a legacy table (rules, chains, sets), and their text in ``iptables-save``. Pure.

A :class:`Rule` contains everything that the kernel compares and does, so equal rules are equivalent in the kernel. The
table determines the family of a rule: ``IcmpType`` means ICMP in an IPv4 table, ICMPv6 in an IPv6 table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from enforcer.backends.netfilter.settings import UNITS
from enforcer.model.nets import IPAddress, IPNetwork, Nets
from enforcer.model.vocabulary import CtState, Side, Word
from enforcer.policy.resources import PortRange

FAMILIES = (4, 6)


class TableName(Word):
    """The legacy tables that can contain our chains."""

    RAW = "raw"
    MANGLE = "mangle"
    FILTER = "filter"


@dataclass(frozen=True)
class TableId:
    """A table of one family."""

    version: int
    name: TableName

    def __str__(self) -> str:
        return f"{self.name} IPv{self.version}"


TABLES = tuple(TableId(version, name) for version in FAMILIES for name in TableName)

# The protocol names that iptables-save prints; it prints any other protocol as a number.
PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp", 136: "udplite"}


class Verdict(Word):
    ACCEPT = "ACCEPT"
    DROP = "DROP"
    RETURN = "RETURN"


@dataclass(frozen=True)
class Jump:
    """``goto``: the end of ``chain`` returns to the caller of this rule's chain."""

    chain: str
    goto: bool = False


@dataclass(frozen=True)
class SetMark:
    """Sets the bits of ``mask`` to those of ``value``; the other bits stay."""

    value: int
    mask: int


@dataclass(frozen=True)
class NoTrack:
    pass


@dataclass(frozen=True)
class Log:
    """``prefix``: at most 29 bytes of UTF-8. ``level`` 5 is notice."""

    prefix: str
    level: int = 5


Target = Verdict | Jump | SetMark | NoTrack | Log


@dataclass(frozen=True)
class SetMatch:
    """The address of one side is (not) in an ipset; with ``port``, the address together with protocol and port.

    A packet whose port cannot be read is in no set with ports, so an inverted match holds for it.
    """

    set_name: str
    side: Side
    inverted: bool = False
    port: bool = False


@dataclass(frozen=True)
class MarkMatch:
    """The bits of ``mask`` in the packet's mark equal ``value``."""

    value: int
    mask: int


@dataclass(frozen=True)
class PortsMatch:
    """The port of one side is (not) in one of the ranges. At most :data:`PORT_SLOTS` slots: a range takes two, a single
    port one.
    """

    side: Side
    ports: tuple[PortRange, ...]
    inverted: bool = False


@dataclass(frozen=True)
class IcmpType:
    type: int
    code: int | None = None
    inverted: bool = False


@dataclass(frozen=True)
class Comment:
    """At most :data:`COMMENT_LENGTH` bytes of UTF-8."""

    text: str


@dataclass(frozen=True)
class Limit:
    """Matches one packet in each ``period`` (1/10,000 s) on average, up to ``burst`` at once (``xt_limit.c``)."""

    period: int
    burst: int


@dataclass(frozen=True)
class CtStates:
    """Conntrack's state of the packet is one of these."""

    states: frozenset[CtState]


Match = SetMatch | MarkMatch | PortsMatch | IcmpType | CtStates | Limit | Comment


DEFAULT_BURST = 5
# In the order of iptables-save (libxt_conntrack.c).
_STATES_SHOWN = (CtState.INVALID, CtState.NEW, CtState.RELATED, CtState.ESTABLISHED, CtState.UNTRACKED)

PORT_SLOTS = 15  # XT_MULTI_PORTS
COMMENT_LENGTH = 255  # XT_MAX_COMMENT_LEN less the NUL


@dataclass(frozen=True)
class Rule:
    """One rule of a table. A match that is absent or None is not evaluated."""

    target: Target
    in_interface: str = ""
    out_interface: str = ""
    source: IPNetwork | None = None
    not_source: bool = False
    destination: IPNetwork | None = None
    not_destination: bool = False
    protocol: int | None = None
    not_protocol: bool = False
    matches: tuple[Match, ...] = ()

    @property
    def comment(self) -> str:
        """All comments of the rule, joined. A text too long for one comment is split over several."""
        return "".join(match.text for match in self.matches if isinstance(match, Comment))


@dataclass(frozen=True)
class OpaqueRule:
    """A rule that no :class:`Rule` can express, so another program wrote it. Equal only to the same bytes."""

    blob: bytes
    target: str


@dataclass(frozen=True)
class Chain:
    name: str
    rules: tuple[Rule | OpaqueRule, ...]


class SetType(Word):
    NET = "hash:net"
    IP_PORT = "hash:ip,port"


@dataclass(frozen=True)
class PortMember:
    """A member of a set of type hash:ip,port."""

    address: IPAddress
    protocol: int
    port: int


@dataclass(frozen=True)
class SetSpec:
    """An ipset that must hold exactly the prefixes in ``nets`` of one family, or the pairs in ``ports`` of that family.

    ``lenient``: a match lets a packet pass (Allow, Pass). A set of a Deny entry is not lenient. No set is both, so the
    order in which members can be added and deleted without a gap is known. ``origin``: how errors name the set, by its
    selector or named ports.
    """

    name: str
    version: int
    nets: Nets = field(default_factory=Nets)
    lenient: bool = False
    type: SetType = SetType.NET
    ports: tuple[PortMember, ...] = ()
    origin: str = ""

    def __len__(self) -> int:
        if self.type is SetType.IP_PORT:
            return sum(item.address.version == self.version for item in self.ports)
        return len(self.nets.net4) if self.version == 4 else len(self.nets.net6)


def save_line(chain: str, rule: Rule, version: int) -> str:
    """The rule as ``iptables-save`` of its family prints it."""
    words = ["-A", chain]
    words += _header_words(rule)
    for match in rule.matches:
        words += _match_words(match, version)
    words += _target_words(rule.target)
    return " ".join(words)


def _header_words(rule: Rule) -> list[str]:
    protocol = "" if rule.protocol is None else PROTOCOL_NAMES.get(rule.protocol, str(rule.protocol))
    fields = (
        ("-s", str(rule.source or ""), rule.not_source),
        ("-d", str(rule.destination or ""), rule.not_destination),
        ("-i", rule.in_interface, False),
        ("-o", rule.out_interface, False),
        ("-p", protocol, rule.not_protocol),
    )
    return [word for option, value, inverted in fields if value for word in _option(option, value, inverted)]


def _option(option: str, value: str, inverted: bool) -> list[str]:
    return ["!", option, value] if inverted else [option, value]


def _match_words(match: Match, version: int) -> list[str]:
    match match:
        case SetMatch(name, side, inverted, port):
            sides = f"{side},{side}" if port else str(side)
            return ["-m", "set", *_option("--match-set", f"{name} {sides}", inverted)]
        case MarkMatch(mark, mask):
            return ["-m", "mark", "--mark", f"0x{mark:x}/0x{mask:x}"]
        case PortsMatch(side, ports, inverted):
            option = "--sports" if side is Side.SOURCE else "--dports"
            return ["-m", "multiport", *_option(option, ",".join(port_text(item) for item in ports), inverted)]
        case IcmpType(icmp_type, code, inverted):
            value = str(icmp_type) if code is None else f"{icmp_type}/{code}"
            name, option = ("icmp", "--icmp-type") if version == 4 else ("icmp6", "--icmpv6-type")
            return ["-m", name, *_option(option, value, inverted)]
        case CtStates(states):
            shown_states = ",".join(state for state in _STATES_SHOWN if state in states)
            return ["-m", "conntrack", "--ctstate", shown_states]
        case Limit(period, burst):
            shown = [] if burst == DEFAULT_BURST else ["--limit-burst", str(burst)]
            return ["-m", "limit", "--limit", _rate_text(period), *shown]
        case Comment(text):
            return ["-m", "comment", "--comment", _quoted(text)]


def _rate_text(period: int) -> str:
    """A rate as iptables prints it, in the largest suitable unit (``libxt_limit.c: print_rate``)."""
    shown = UNITS[0]
    for unit in UNITS[1:]:
        if period > unit.period or unit.period // period < unit.period % period:
            break
        shown = unit
    return f"{shown.period // period}/{shown.name}"


def _target_words(target: Target) -> list[str]:
    match target:
        case Verdict():
            return ["-j", str(target)]
        case Jump(chain, goto):
            return ["-g" if goto else "-j", chain]
        case SetMark(value, mask):
            return ["-j", "MARK", "--set-xmark", f"0x{value:x}/0x{mask:x}"]
        case NoTrack():
            return ["-j", "CT", "--notrack"]
        case Log(prefix, level):
            return ["-j", "LOG", "--log-prefix", _quoted(prefix), "--log-level", str(level)]


def port_text(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}:{ports.last}"


def _quoted(text: str) -> str:
    escaped = "".join(f"\\{char}" if char in "\"'\\" else char for char in text)
    return f'"{escaped}"' if escaped != text or not all(char.isalnum() or char in "_-" for char in text) else text
