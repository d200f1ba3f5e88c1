"""compile_table: Resources -> RuleTable of one interface. Pure; every entry records where it came from.

Order (``felix/calc/policy_sorter.go``): tiers that exist before those that do not, by order (none last), then name;
policies by order (none last), then name, namespace and kind; rules as written. The tiers ``default``, ``kube-admin``
and ``kube-baseline`` always exist. Only policies with doNotTrack result in entries; the other policies that select the
endpoint are listed as tracked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from enforcer.model.errors import UnsupportedRuleError
from enforcer.model.nets import IPAddress
from enforcer.model.vocabulary import Action, Direction, Side
from enforcer.policy import schema
from enforcer.policy.conditions import Condition, Icmp, InNets, InSet, Ports, Protocol, families_of
from enforcer.policy.endpoint import governing_endpoint
from enforcer.policy.labels import endpoint_labels, policy_selector, rule_selectors
from enforcer.policy.members import Membership
from enforcer.policy.resources import (
    EntityRule,
    GlobalNetworkPolicy,
    NamedPort,
    Port,
    PortRange,
    Resources,
    Rule,
    Tier,
    fields_of_sides,
    match_fields,
)
from enforcer.policy.ruletable import Entry, IpSet, PortSet, RuleTable, TrackedPolicy
from enforcer.policy.selector import parse

BUILT_IN_TIERS = {
    name: Tier(name, order=order, default_action=Action(action))
    for name, (order, action) in schema.RESERVED_TIERS.items()
}  # created by Calico (``libcalico-go/lib/clientv3/client.go``, ensureTierExists)

# The fields of a rule that make conditions, or families. A rule that sets another is refused: it would match more.
COMPILED = frozenset({"ip_version", "protocol", "not_protocol", "icmp", "not_icmp"}) | fields_of_sides(
    "nets", "not_nets", "selector", "not_selector", "namespace_selector", "ports", "not_ports"
)
# Why others are no conditions.
_REFUSED = {
    "source.services": "source.services: no Kubernetes services are known here; give their addresses as nets",
    "destination.services": "destination.services: no Kubernetes services are known here; give their addresses as nets",
    "source.service_accounts": "source.serviceAccounts: they belong to workloads; untracked policy is for hosts",
    "destination.service_accounts": (
        "destination.serviceAccounts: they belong to workloads; untracked policy is for hosts"
    ),
    "http": "http: untracked policy sees single packets; remove the match",
}


class Compiler:
    """Compiles the tables of interfaces. If it is kept when the resources change, it rebuilds only the sets whose
    members changed.
    """

    def __init__(self) -> None:
        self._resources: Resources | None = None
        self._membership = Membership(Resources())
        self._policies: Sequence[GlobalNetworkPolicy] = ()

    def compile(
        self, resources: Resources, *, node: str, interface: str, addresses: Sequence[IPAddress] = ()
    ) -> RuleTable:
        """The untracked entries of one interface of a node; none if no HostEndpoint governs it.

        Raises UnsupportedRuleError with every rule that has a match which cannot be expressed.
        """
        felix = resources.felix_for(node)
        endpoint = governing_endpoint(resources, node=node, interface=interface, addresses=addresses, felix=felix)
        if endpoint is None:
            return RuleTable(interface)
        self._take(resources)
        labels = endpoint_labels(endpoint, {item.name: item for item in resources.profiles})
        selecting = [item for item in self._policies if parse(policy_selector(item)).evaluate(labels)]
        policies = [item for item in selecting if item.do_not_track]
        entries = _Entries(self._membership)
        ingress = tuple(entries.of(policies, Direction.INGRESS))
        egress = tuple(entries.of(policies, Direction.EGRESS))
        entries.raise_unsupported()
        return RuleTable(
            interface=interface,
            endpoint=endpoint.name,
            ingress=ingress,
            egress=egress,
            failsafe_inbound=felix.failsafe_inbound,
            failsafe_outbound=felix.failsafe_outbound,
            sets=entries.sets,
            port_sets=entries.port_sets,
            tracked=tuple(_tracked(item) for item in selecting if not item.do_not_track),
        )

    def _take(self, resources: Resources) -> None:
        if resources is self._resources:
            return
        self._membership.forget_before()
        self._membership = Membership(resources, self._membership)
        self._policies = ordered_policies(resources)
        self._resources = resources


def compile_table(resources: Resources, *, node: str, interface: str, addresses: Sequence[IPAddress] = ()) -> RuleTable:
    """One table, compiled with a new Compiler; see :meth:`Compiler.compile`."""
    return Compiler().compile(resources, node=node, interface=interface, addresses=addresses)


def ordered_policies(resources: Resources) -> list[GlobalNetworkPolicy]:
    """All policies in evaluation order (untracked and tracked ones are each evaluated in this order)."""
    tiers = BUILT_IN_TIERS | {tier.name: tier for tier in resources.tiers}

    def rank(policy: GlobalNetworkPolicy) -> tuple[bool, float, str, float, str]:
        tier = tiers.get(policy.tier)
        return (
            tier is None,
            math.inf if tier is None or tier.order is None else tier.order,
            policy.tier,
            math.inf if policy.order is None else policy.order,
            f"{policy.name}//GlobalNetworkPolicy",  # "name/namespace/kind": "-" and "." come before "/"
        )

    return sorted(resources.policies, key=rank)


def _tracked(policy: GlobalNetworkPolicy) -> TrackedPolicy:
    if policy.pre_dnat:
        hooks = ["mangle PREROUTING"]
    else:
        hooks = [
            hook for kind, hook in (("Ingress", "filter INPUT"), ("Egress", "filter OUTPUT")) if kind in policy.types
        ]
        hooks += ["filter FORWARD"] if policy.apply_on_forward else []
    return TrackedPolicy(f"gnp/{policy.name}", tuple(hooks), policy.position)


class _Entries:
    """Creates the entries of one table and collects the sets they refer to."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._unsupported: list[str] = []
        self.sets: dict[str, IpSet] = {}
        self.port_sets: dict[str, PortSet] = {}

    def of(self, policies: Sequence[GlobalNetworkPolicy], direction: Direction) -> Iterator[Entry]:
        for policy in policies:
            if str(direction).capitalize() not in policy.types:
                continue
            rules = policy.ingress if direction is Direction.INGRESS else policy.egress
            for index, rule in enumerate(rules):
                yield self._entry(policy, direction, index, rule)

    def raise_unsupported(self) -> None:
        if self._unsupported:
            raise UnsupportedRuleError("\n".join(self._unsupported))

    def _entry(self, policy: GlobalNetworkPolicy, direction: Direction, index: int, rule: Rule) -> Entry:
        name = f"gnp/{policy.name} {direction}[{index}]"
        for what in unsupported_matches(rule):
            self._unsupported.append(f"{rule.position}: {name}: untracked policy cannot be enforced with {what}")
        conditions = tuple(self._conditions(rule))
        return Entry(
            name=name,
            action=rule.action,
            tier=policy.tier,
            policy=policy.name,
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
        """The ids of the sets of named ports. A rule without a protocol means the ports of that name of every protocol
        (``felix/calc/rule_scanner.go``: ProtocolAny). A set has one protocol, so there is one for each with members.
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


def unsupported_matches(rule: Rule) -> list[str]:
    """What a rule matches on that no entry can, in words."""
    others = sorted(match_fields(rule) - COMPILED)
    return [_REFUSED.get(name, f"{name}: the compiler does not know it") for name in others]
