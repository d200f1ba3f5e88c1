"""Whether one rule, or one failsafe, matches one packet as raw sees it.

The conditions of a rule are evaluated in netfilter's order, because a packet too short for a condition is dropped at
once ("hotdrop"), but only if evaluation reaches that condition:

1. addresses written as one net, then the protocol (``ip_tables.c: ip_packet_match``, ``ip6_tables.c:
   ip6_packet_match``: an IPv6 packet with truncated extension headers has no protocol);
2. selectors and lists of nets (``xt_set``);
3. port numbers (``xt_multiport.c``: four bytes must be there), then named ports (``xt_set``, ``hash:ip,port``), then
   ICMP type and code (``xt_icmp``, ``xt_icmp6``: eight bytes). A later fragment has neither ports nor type, and
   matches no rule with a port number; it has no named port either, so "not that named port" holds for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from dossim.packet.fields import ICMP, ICMP_HEADER, ICMPV6, PORT_PROTOCOLS, SCTP, TCP, UDP, Transport
from dossim.pipeline.match_key import MatchKey
from dossim.pipeline.selection import Selection
from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.nets import IPAddress, IPNetwork
from enforcer.model.vocabulary import Direction, Word
from enforcer.policy.resources import (
    EntityRule,
    Failsafe,
    IcmpMatch,
    NamedPort,
    Port,
    PortRange,
    Rule,
    fields_of_sides,
    match_fields,
)

FAMILY_OF_PROTOCOL = {ICMP: 4, ICMPV6: 6}
NAMED_PORT_HEADER = {TCP: 20, UDP: 8, SCTP: 12}  # bytes of the header that ipset requires


class Answer(Word):
    YES = "yes"
    NO = "no"
    HOTDROP = "hotdrop"


Condition = Callable[[Rule, MatchKey, Selection], Answer]


def rule_matches(rule: Rule, key: MatchKey, selection: Selection) -> Answer:
    """YES if all conditions of the rule hold, else the answer of the first that does not."""
    for condition in _CONDITIONS:
        answer = condition(rule, key, selection)
        if answer is not Answer.YES:
            return answer
    return Answer.YES


def is_of_family(rule: Rule, version: int) -> bool:
    """A rule's family is its ``ipVersion``, or that of its nets (``FilterRuleToIPVersion``), or that of the ICMP types
    it matches on.
    """
    if rule.ip_version not in (None, version):
        return False
    for side in (rule.source, rule.destination):
        for nets in (side.nets, side.not_nets):
            if nets and not _of_family(nets, version):
                return False
    return not (_asks(rule.icmp) or _asks(rule.not_icmp)) or FAMILY_OF_PROTOCOL.get(rule.protocol or 0) == version


def can_match(rule: Rule, version: int) -> bool:
    """Whether any packet of a family can match. If none can, netfilter has no rule for it, so it hotdrops nothing
    either.
    """
    contradicts = rule.protocol is not None and rule.protocol == rule.not_protocol
    if contradicts or not is_of_family(rule, version):
        return False
    excluded = (*rule.source.not_nets, *rule.destination.not_nets)
    return all(net.prefixlen for net in _of_family(excluded, version))


def failsafe_matches(failsafe: Failsafe, key: MatchKey, *, direction: Direction, answers: bool) -> Answer:
    """A failsafe of the packet's direction matches the destination port; one of the other direction the source port of
    its ``answers``. The net is that of the remote side in both cases.
    """
    remote = key.source if direction is Direction.INGRESS else key.destination
    if failsafe.net is not None and remote not in failsafe.net:
        return Answer.NO
    if key.transport is None:
        return Answer.HOTDROP
    if key.transport.protocol != failsafe.protocol:
        return Answer.NO
    return _port(key.transport, 0 if answers else 1, lambda port: port == failsafe.port)


# -- conditions, in order ----------------------------------------------------------------------------------------------


def _can_match(rule: Rule, key: MatchKey, selection: Selection) -> Answer:
    return _answer(can_match(rule, key.version))


def _single_nets(rule: Rule, key: MatchKey, selection: Selection) -> Answer:
    """What a rule matches on without a set: one net of each side, or one negated net."""
    return _answer(_single_net(rule.source, key.source) and _single_net(rule.destination, key.destination))


def _protocol(rule: Rule, key: MatchKey, selection: Selection) -> Answer:
    if rule.protocol is None and rule.not_protocol is None:
        return Answer.YES
    if key.transport is None:
        return Answer.HOTDROP
    found = key.transport.protocol
    return _answer(rule.protocol in (None, found) and rule.not_protocol != found)


def _addresses(rule: Rule, key: MatchKey, selection: Selection) -> Answer:
    sides = ((rule.source, key.source), (rule.destination, key.destination))
    return _answer(all(_in_nets(entity, address) and selection.holds(entity, address) for entity, address in sides))


def _ports(rule: Rule, key: MatchKey, selection: Selection) -> Answer:
    """Whether both sides' ports match; if the rule matches on port numbers they must be readable."""
    sides = (rule.source, rule.destination)
    if any(_ranges(entity.ports) or _ranges(entity.not_ports) for entity in sides):
        if key.transport is None:
            return Answer.HOTDROP
        readable = _port(key.transport, 0, lambda port: True)
        if readable is not Answer.YES:
            return readable
    return _answer(all(_port_wanted(rule, side, key, selection) for side in (0, 1)))


def _icmp(rule: Rule, key: MatchKey, selection: Selection) -> Answer:
    wanted = [(icmp, negated) for icmp, negated in ((rule.icmp, False), (rule.not_icmp, True)) if _asks(icmp)]
    if not wanted:
        return Answer.YES
    transport = key.transport
    if transport is None or transport.fragment_offset:
        return Answer.NO
    if len(transport.buf) < ICMP_HEADER:
        return Answer.HOTDROP
    found = transport.buf[0], transport.buf[1]
    return _answer(all(_is_icmp(icmp, *found) is not negated for icmp, negated in wanted if icmp))


# In order, each with the rule fields that it evaluates. A rule that sets any other field is not explained.
_CONDITIONS: Mapping[Condition, Collection[str]] = {
    _can_match: {"ip_version"},
    _single_nets: fields_of_sides("nets", "not_nets"),
    _protocol: {"protocol", "not_protocol"},
    _addresses: fields_of_sides("nets", "not_nets", "selector", "not_selector", "namespace_selector"),
    _ports: fields_of_sides("ports", "not_ports"),
    _icmp: {"icmp", "not_icmp"},
}
_EVALUATED = frozenset[str]().union(*_CONDITIONS.values())


# -- their parts -------------------------------------------------------------------------------------------------------


def _answer(holds: bool) -> Answer:
    return Answer.YES if holds else Answer.NO


def _of_family(nets: Iterable[IPNetwork], version: int) -> list[IPNetwork]:
    return [net for net in nets if net.version == version]


def _single_net(entity: EntityRule, address: IPAddress) -> bool:
    if not entity.nets and not entity.not_nets:
        return True
    nets, not_nets = _of_family(entity.nets, address.version), _of_family(entity.not_nets, address.version)
    if len(nets) == 1:
        return address in nets[0]
    return len(not_nets) != 1 or address not in not_nets[0]


def _in_nets(entity: EntityRule, address: IPAddress) -> bool:
    return (not entity.nets or _in_any(address, entity.nets)) and not _in_any(address, entity.not_nets)


def _in_any(address: IPAddress, nets: Sequence[IPNetwork]) -> bool:
    return any(address in net for net in nets)  # no address is in a net of the other family


def _port(transport: Transport, side: int, wanted: Callable[[int], bool]) -> Answer:
    """Match the source (0) or destination (1) port."""
    if transport.protocol not in PORT_PROTOCOLS or transport.fragment_offset:
        return Answer.NO
    if transport.ports is None:
        return Answer.HOTDROP
    return _answer(wanted(transport.ports[side]))


def _port_wanted(rule: Rule, side: int, key: MatchKey, selection: Selection) -> bool:
    """Whether one side's port is in ``ports``, by number or by name, and not in ``notPorts``."""
    entity, address = ((rule.source, key.source), (rule.destination, key.destination))[side]

    def is_among(ports: Sequence[Port]) -> bool:
        ranges = _ranges(ports)
        # Read ports only if a range needs them: the capture may have cut them.
        found = key.transport.ports if ranges and key.transport is not None else None
        if found is not None and any(found[side] in item for item in ranges):
            return True
        named = [item.name for item in ports if isinstance(item, NamedPort)]
        return any(_is_named(rule, entity, name, key, address, side, selection) for name in named)

    return (not entity.ports or is_among(entity.ports)) and not is_among(entity.not_ports)


def _is_named(
    rule: Rule, entity: EntityRule, name: str, key: MatchKey, address: IPAddress, side: int, selection: Selection
) -> bool:
    """Whether one side is the named port of an endpoint, of the rule's protocol or, without one, of any
    (``felix/calc/rule_scanner.go``). The whole transport header must be there (``ip_set_getport.c``).
    """
    found = key.transport
    if found is None or found.protocol not in NAMED_PORT_HEADER or found.fragment_offset:
        return False
    if rule.protocol not in (None, found.protocol) or len(found.buf) < NAMED_PORT_HEADER[found.protocol]:
        return False
    numbers = selection.ports_named(entity, name, found.protocol, address)
    # Read ports only if an endpoint names one: the capture may have cut them.
    return bool(numbers) and found.ports is not None and found.ports[side] in numbers


def _ranges(ports: Sequence[Port]) -> list[PortRange]:
    return [item for item in ports if isinstance(item, PortRange)]


def _asks(icmp: IcmpMatch | None) -> bool:
    return icmp is not None and icmp.type is not None


def _is_icmp(icmp: IcmpMatch, found_type: int, found_code: int) -> bool:
    return icmp.type == found_type and icmp.code in (None, found_code)


def require_expressible(name: str, rule: Rule, kind: str = "untracked") -> None:
    """Raises UnsupportedRuleError for a rule that sets a field that no condition evaluates: one that is not found in a
    single packet (services, service accounts, HTTP), or one that is unknown here. ``kind``: untracked or tracked.
    """
    others = sorted(match_fields(rule) - _EVALUATED)
    if others:
        raise UnsupportedRuleError(
            f"{rule.position}: {name}: {kind} policy with {', '.join(others)} cannot be explained; "
            "use addresses and ports"
        )
