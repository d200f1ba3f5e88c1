"""Whether one rule, or one failsafe, matches one packet as raw sees it.

The conditions of a rule are asked in the order netfilter asks them, because a packet too short for a question is
dropped there and then ("hotdrop"), and only if it gets as far as that question:

1. addresses written as one net, then the protocol (``ip_tables.c: ip_packet_match``, ``ip6_tables.c:
   ip6_packet_match``: an IPv6 packet whose extension headers break off has no protocol);
2. selectors and lists of nets (``xt_set``);
3. ports (``xt_multiport.c``: four octets must be there) and ICMP type and code (``xt_icmp``, ``xt_icmp6``: eight
   octets). A later fragment has neither, and matches no rule that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dossim.packet.fields import ICMP, ICMP_HEADER, ICMPV6, PORT_PROTOCOLS, Transport
from dossim.pipeline.selection import Selection
from enforcer.errors import UnsupportedRuleError
from enforcer.policy.resources import (
    EntityRule,
    Failsafe,
    IcmpMatch,
    IPAddress,
    IPNetwork,
    NamedPort,
    Port,
    PortRange,
    Rule,
)
from enforcer.policy.selector import parse
from enforcer.words import Word

FAMILY_OF_PROTOCOL = {ICMP: 4, ICMPV6: 6}


class Answer(Word):
    YES = "yes"
    NO = "no"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Seen:
    """What rules can look at. ``transport`` None: IPv6 extension headers that break off."""

    version: int
    source: IPAddress
    destination: IPAddress
    transport: Transport | None


Condition = Callable[[Rule, Seen, Selection], Answer]


def rule_matches(rule: Rule, seen: Seen, selection: Selection) -> Answer:
    """Whether all conditions of the rule hold; the first that does not hold answers."""
    answers = (condition(rule, seen, selection) for condition in _CONDITIONS)
    return next((answer for answer in answers if answer is not Answer.YES), Answer.YES)


def failsafe_matches(failsafe: Failsafe, seen: Seen, *, outbound: bool) -> Answer:
    """Inbound: by destination port; outbound: the answers, by source port. The net is the remote side's in both."""
    if failsafe.net is not None and seen.source not in failsafe.net:
        return Answer.NO
    if seen.transport is None:
        return Answer.UNREADABLE
    if seen.transport.protocol != failsafe.protocol:
        return Answer.NO
    return _port(seen.transport, 0 if outbound else 1, lambda port: port == failsafe.port)


# -- conditions, in order ----------------------------------------------------------------------------------------------


def _family(rule: Rule, seen: Seen, selection: Selection) -> Answer:
    """A rule is of the family that is written, or that its nets or its ICMP protocol are of
    (``FilterRuleToIPVersion``).
    """
    lists = [nets for side in (rule.source, rule.destination) for nets in (side.nets, side.not_nets) if nets]
    if rule.ip_version not in (None, seen.version):
        return Answer.NO
    if any(not _of_family(nets, seen.version) for nets in lists):
        return Answer.NO
    own = FAMILY_OF_PROTOCOL.get(rule.protocol or 0)
    return _answer(own in (None, seen.version))


def _single_nets(rule: Rule, seen: Seen, selection: Selection) -> Answer:
    """What a rule has room for besides its sets: one net of each side, or one negated net."""
    return _answer(_single_net(rule.source, seen.source) and _single_net(rule.destination, seen.destination))


def _protocol(rule: Rule, seen: Seen, selection: Selection) -> Answer:
    if rule.protocol is None and rule.not_protocol is None:
        return Answer.YES
    if seen.transport is None:
        return Answer.UNREADABLE
    found = seen.transport.protocol
    return _answer(rule.protocol in (None, found) and rule.not_protocol != found)


def _addresses(rule: Rule, seen: Seen, selection: Selection) -> Answer:
    sides = ((rule.source, seen.source), (rule.destination, seen.destination))
    return _answer(all(_in_nets(entity, address) and selection.holds(entity, address) for entity, address in sides))


def _ports(rule: Rule, seen: Seen, selection: Selection) -> Answer:
    for side, entity in enumerate((rule.source, rule.destination)):
        if not entity.ports and not entity.not_ports:
            continue
        if seen.transport is None:
            return Answer.UNREADABLE
        answer = _port(seen.transport, side, lambda port, entity=entity: _port_wanted(entity, port))  # type: ignore[misc]
        if answer is not Answer.YES:
            return answer
    return Answer.YES


def _icmp(rule: Rule, seen: Seen, selection: Selection) -> Answer:
    wanted = [(icmp, negated) for icmp, negated in ((rule.icmp, False), (rule.not_icmp, True)) if _asks(icmp)]
    if not wanted:
        return Answer.YES
    transport = seen.transport
    if transport is None or transport.fragment_offset:
        return Answer.NO
    if len(transport.octets) < ICMP_HEADER:
        return Answer.UNREADABLE
    found = transport.octets[0], transport.octets[1]
    return _answer(all(_is_icmp(icmp, *found) is not negated for icmp, negated in wanted if icmp))


_CONDITIONS: tuple[Condition, ...] = (_family, _single_nets, _protocol, _addresses, _ports, _icmp)


# -- their parts -------------------------------------------------------------------------------------------------------


def _answer(holds: bool) -> Answer:
    return Answer.YES if holds else Answer.NO


def _of_family(nets: Iterable[IPNetwork], version: int) -> list[IPNetwork]:
    return [net for net in nets if net.version == version]


def _single_net(entity: EntityRule, address: IPAddress) -> bool:
    nets, not_nets = _of_family(entity.nets, address.version), _of_family(entity.not_nets, address.version)
    if len(nets) == 1:
        return address in nets[0]
    return len(not_nets) != 1 or address not in not_nets[0]


def _in_nets(entity: EntityRule, address: IPAddress) -> bool:
    return (not entity.nets or _in_any(address, entity.nets)) and not _in_any(address, entity.not_nets)


def _in_any(address: IPAddress, nets: Sequence[IPNetwork]) -> bool:
    return any(address in net for net in nets)  # an address is in no net of the other family


def _port(transport: Transport, side: int, wanted: Callable[[int], bool]) -> Answer:
    """Ask for the source (0) or destination (1) port."""
    if transport.protocol not in PORT_PROTOCOLS or transport.fragment_offset:
        return Answer.NO
    if transport.ports is None:
        return Answer.UNREADABLE
    return _answer(wanted(transport.ports[side]))


def _port_wanted(entity: EntityRule, port: int) -> bool:
    return (not entity.ports or _in_ports(port, entity.ports)) and not _in_ports(port, entity.not_ports)


def _in_ports(port: int, ports: Sequence[Port]) -> bool:
    return any(port in item for item in ports if isinstance(item, PortRange))


def _asks(icmp: IcmpMatch | None) -> bool:
    return icmp is not None and icmp.type is not None


def _is_icmp(icmp: IcmpMatch, found_type: int, found_code: int) -> bool:
    return icmp.type == found_type and icmp.code in (None, found_code)


def require_expressible(name: str, rule: Rule) -> None:
    """Raises UnsupportedRuleError for a rule that asks what nobody knows of a single received packet."""
    for side in (rule.source, rule.destination):
        foreign_scope = side.namespace_selector.strip() and parse(side.namespace_selector.strip()).canonical not in (
            "all()",
            "global()",
        )
        named = any(isinstance(port, NamedPort) for port in (*side.ports, *side.not_ports))
        if named or foreign_scope or side.services is not None or side.service_accounts is not None or rule.http:
            raise UnsupportedRuleError(
                f"{rule.position}: {name}: untracked policy cannot be explained with named ports, services, "
                "service accounts, namespaces by label, or HTTP; give addresses and numbers"
            )
