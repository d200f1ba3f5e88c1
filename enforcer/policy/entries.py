"""Entries of a RuleTable, made from the rules of policies and profiles. Pure; every entry keeps where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enforcer.model.vocabulary import Direction, Side
from enforcer.policy import schema
from enforcer.policy.conditions import Condition, Icmp, InNets, InSet, Ports, Protocol, families_of
from enforcer.policy.labels import rule_selectors
from enforcer.policy.members import Membership
from enforcer.policy.resources import (
    EntityRule,
    GlobalNetworkPolicy,
    NamedPort,
    Port,
    PortRange,
    Rule,
    fields_of_sides,
    match_fields,
)
from enforcer.policy.ruletable import Entry, IpSet, PortSet
from enforcer.policy.selector import parse

# The fields of a rule that make conditions, or families. A rule that sets another is refused: it would match more.
COMPILED = frozenset({"ip_version", "protocol", "not_protocol", "icmp", "not_icmp"}) | fields_of_sides(
    "nets", "not_nets", "selector", "not_selector", "namespace_selector", "ports", "not_ports"
)
# Why others are no conditions; ``kind`` is that of the policy.
_REFUSED = {
    "source.services": "source.services: no Kubernetes services are known here; give their addresses as nets",
    "destination.services": "destination.services: no Kubernetes services are known here; give their addresses as nets",
    "source.service_accounts": "source.serviceAccounts: they belong to workloads; {kind} is for hosts",
    "destination.service_accounts": ("destination.serviceAccounts: they belong to workloads; {kind} is for hosts"),
    "http": "http: {kind} sees single packets; remove the match",
}


@dataclass(frozen=True)
class Origin:
    """What rules belong to. ``name`` is what results print: ``gnp/dos-mitigation``."""

    name: str
    tier: str = ""
    policy: str = ""


def applies(policy: GlobalNetworkPolicy, direction: Direction) -> bool:
    """Whether the policy is for this direction."""
    return str(direction).capitalize() in policy.types


class EntryMaker:
    """Makes the entries of one table, and collects the sets they name and what cannot be expressed.

    ``kind``: what errors call the policy, such as ``untracked policy``.
    """

    def __init__(self, membership: Membership, kind: str) -> None:
        self._membership = membership
        self._kind = kind
        self.unsupported: list[str] = []
        self.sets: dict[str, IpSet] = {}
        self.port_sets: dict[str, PortSet] = {}

    def of(self, policies: Sequence[GlobalNetworkPolicy], direction: Direction) -> Iterator[Entry]:
        for policy in policies:
            if applies(policy, direction):
                rules = policy.ingress if direction is Direction.INGRESS else policy.egress
                origin = Origin(f"gnp/{policy.name}", policy.tier, policy.name)
                yield from self.rules(origin, direction, rules)

    def rules(self, origin: Origin, direction: Direction, rules: Sequence[Rule]) -> Iterator[Entry]:
        """One entry for each rule."""
        for index, rule in enumerate(rules):
            yield self._entry(origin, direction, index, rule)

    def _entry(self, origin: Origin, direction: Direction, index: int, rule: Rule) -> Entry:
        name = f"{origin.name} {direction}[{index}]"
        for what in unsupported_matches(rule, self._kind):
            self.unsupported.append(f"{rule.position}: {name}: {self._kind} cannot be enforced with {what}")
        conditions = tuple(self._conditions(rule))
        return Entry(
            name=name,
            action=rule.action,
            tier=origin.tier,
            policy=origin.policy,
            direction=direction,
            index=index,
            families=families_of(rule.ip_version, conditions),
            conditions=conditions,
            position=rule.position,
        )

    def _conditions(self, rule: Rule) -> Iterator[Condition]:
        """All that a rule matches on: protocol, then for each side sets, nets and ports, then ICMP type. Within each
        kind the positive condition comes first.
        """
        if rule.protocol is not None:
            yield Protocol(rule.protocol)
        if rule.not_protocol is not None:
            yield Protocol(rule.not_protocol, negated=True)
        yield from self._side(Side.SOURCE, rule.source, rule.protocol)
        yield from self._side(Side.DESTINATION, rule.destination, rule.protocol)
        for icmp, negated in ((rule.icmp, False), (rule.not_icmp, True)):
            if icmp is not None and icmp.type is not None:
                yield Icmp(icmp.type, icmp.code, negated)

    def _side(self, side: Side, entity: EntityRule, protocol: int | None) -> Iterator[Condition]:
        """One side of a rule. A named port is resolved among the endpoints that the selector selects, and then replaces
        the selector.
        """
        positive, negative = rule_selectors(entity)
        ranges, names = _ranges(entity.ports), _names(entity.ports)
        not_ranges, not_names = _ranges(entity.not_ports), _names(entity.not_ports)
        if positive and (ranges or not names):
            yield InSet(side, self._set(positive))
        if negative:
            yield InSet(side, self._set(negative), negated=True)
        if entity.nets:
            yield InNets(side, entity.nets)
        if entity.not_nets:
            yield InNets(side, entity.not_nets, negated=True)
        if ranges or names:
            yield Ports(side, ranges, self._port_sets_of(names, positive, protocol))
        if not_ranges or not_names:
            yield Ports(side, not_ranges, self._port_sets_of(not_names, positive, protocol), negated=True)

    def _set(self, text: str) -> str:
        """The id of a selector's set."""
        found = self._membership.ip_set(parse(text))
        self.sets[found.id] = found
        return found.id

    def _port_sets_of(self, names: Sequence[str], selector: str, protocol: int | None) -> tuple[str, ...]:
        """The ids of named ports' sets. Without a protocol the rule means the ports of that name of every protocol
        (``felix/calc/rule_scanner.go``: ProtocolAny); a set is of one, so there is a set for each that has members.
        """
        parsed = parse(selector)
        found: dict[str, PortSet] = {}
        for name in names:
            numbers = schema.PORT_PROTOCOLS if protocol is None else (protocol,)
            sets = [self._membership.port_set(parsed, name, number) for number in numbers]
            found |= {item.id: item for item in [item for item in sets if item.members] or sets[:1]}
        self.port_sets |= found
        return tuple(found)


def _ranges(ports: Sequence[Port]) -> tuple[PortRange, ...]:
    return tuple(port for port in ports if isinstance(port, PortRange))


def _names(ports: Sequence[Port]) -> list[str]:
    return [port.name for port in ports if isinstance(port, NamedPort)]


def unsupported_matches(rule: Rule, kind: str = "untracked policy") -> list[str]:
    """What a rule matches on that no entry can, in words."""
    others = sorted(match_fields(rule) - COMPILED)
    return [_REFUSED.get(name, f"{name}: the compiler does not know it").format(kind=kind) for name in others]
