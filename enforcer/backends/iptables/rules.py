"""Values of a legacy table: rules, chains, sets, and the text ``iptables-save`` has for them. Pure.

A :class:`Rule` says everything the kernel compares and does, so that two equal rules are one rule to the kernel.
Families are told apart by the table a rule is in: ``IcmpType`` means ICMP in the IPv4 table, ICMPv6 in the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from enforcer.backends.netfilter.settings import UNITS
from enforcer.model.nets import IPAddress, IPNetwork, Nets
from enforcer.model.vocabulary import CtState, Side, Word
from enforcer.policy.resources import PortRange

FAMILIES = (4, 6)


class TableName(Word):
    """The legacy tables something of ours can be in."""

    RAW = "raw"
    MANGLE = "mangle"
    FILTER = "filter"


@dataclass(frozen=True)
class TableId:
    """One family's table of a name."""

    version: int
    name: TableName

    def __str__(self) -> str:
        return f"{self.name} IPv{self.version}"


TABLES = tuple(TableId(version, name) for version in FAMILIES for name in TableName)

# Names iptables-save has for protocol numbers; any other number is printed as it is.
PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp", 136: "udplite"}


class Verdict(Word):
    ACCEPT = "ACCEPT"
    DROP = "DROP"
    RETURN = "RETURN"


@dataclass(frozen=True)
class Jump:
    """``goto``: the end of ``chain`` returns to the caller of the chain this rule is in."""

    chain: str
    goto: bool = False


@dataclass(frozen=True)
class SetMark:
    """Bits of ``mask`` become those of ``value``; the others stay."""

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
    """The address of one side is (not) in an ipset; with ``port``, the address with protocol and port.

    A packet whose port cannot be read is in no set with ports, so that an inverted match holds for it.
    """

    set_name: str
    side: Side
    inverted: bool = False
    port: bool = False


@dataclass(frozen=True)
class MarkMatch:
    """The packet's mark, as far as ``mask`` goes, is ``value``."""

    value: int
    mask: int


@dataclass(frozen=True)
class PortsMatch:
    """The port of one side is (not) in one of the ranges: at most :data:`PORT_SLOTS` slots, two for a real range."""

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
    """One packet a ``period`` (ten thousandths of a second) on average matches, ``burst`` at once (``xt_limit.c``)."""

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
    """One rule of a table. A match that is absent or None is not looked at."""

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
        """All comments of the rule, joined: a text too long for one comment is spread over several."""
        return "".join(match.text for match in self.matches if isinstance(match, Comment))


@dataclass(frozen=True)
class OpaqueRule:
    """A rule that no :class:`Rule` can express: another program wrote it. Equal only to itself."""

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
    """An ipset that must hold exactly the prefixes ``nets`` has of one family, or those ``ports`` of the family.

    ``lenient``: matching it lets a packet go (Allow, Pass); a set of a Deny entry is not. No set is both, so that it is
    known in which order members may come and go without letting a packet slip through. ``origin`` is what errors call
    it: the selector or the named ports it stands for.
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
    """As iptables prints a rate: in the largest unit that comes out even, or nearly (``libxt_limit.c: print_rate``)."""
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
