"""compile_table: Resources -> RuleTable of one interface. Pure; every entry keeps where it came from.

Order (``felix/calc/policy_sorter.go``): tiers that exist before those that do not, by order (none last), then name;
policies by order (none last), then name; rules as written. Only policies with doNotTrack take part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from enforcer.errors import UnsupportedRuleError
from enforcer.policy.endpoint import governing_endpoint
from enforcer.policy.nets import Nets
from enforcer.policy.resources import (
    EntityRule,
    GlobalNetworkPolicy,
    HostEndpoint,
    IPAddress,
    IPNetwork,
    NamedPort,
    NetworkSet,
    Port,
    PortRange,
    Resources,
    Rule,
    Tier,
)
from enforcer.policy.ruletable import AddressMatch, Entry, IpSet, RuleTable
from enforcer.policy.selector import Selector, conjunction, parse
from enforcer.words import Direction

NAMESPACE_LABEL = "projectcalico.org/namespace"
SERVICE_ACCOUNT_LABEL = "projectcalico.org/serviceaccount"
ICMP_FAMILY = {1: 4, 58: 6}  # protocol -> the only IP version it belongs to
DEFAULT_TIER = Tier("default", order=1_000_000.0)


def compile_table(resources: Resources, *, node: str, interface: str, addresses: Sequence[IPAddress] = ()) -> RuleTable:
    """The untracked entries of one interface of a node; without a governing HostEndpoint the table has none.

    Raises UnsupportedRuleError naming every rule that uses a match which cannot be expressed.
    """
    felix = resources.felix_for(node)
    endpoint = governing_endpoint(resources, node=node, interface=interface, addresses=addresses, felix=felix)
    if endpoint is None:
        return RuleTable(interface)
    compiler = _Compiler(resources)
    policies = [item for item in ordered_policies(resources) if _selects(item, endpoint)]
    ingress = tuple(compiler.entries(policies, Direction.INGRESS))
    egress = tuple(compiler.entries(policies, Direction.EGRESS))
    compiler.raise_unsupported()
    return RuleTable(
        interface=interface,
        endpoint=endpoint.name,
        ingress=ingress,
        egress=egress,
        failsafe_inbound=felix.failsafe_inbound,
        failsafe_outbound=felix.failsafe_outbound,
        sets=compiler.sets,
    )


def ordered_policies(resources: Resources) -> list[GlobalNetworkPolicy]:
    """Untracked policies in evaluation order."""
    tiers = {DEFAULT_TIER.name: DEFAULT_TIER} | {tier.name: tier for tier in resources.tiers}

    def rank(policy: GlobalNetworkPolicy) -> tuple[bool, float, str, float, str]:
        tier = tiers.get(policy.tier)
        return (
            tier is None,
            math.inf if tier is None or tier.order is None else tier.order,
            policy.tier,
            math.inf if policy.order is None else policy.order,
            policy.name,
        )

    return sorted((item for item in resources.policies if item.do_not_track), key=rank)


def _selects(policy: GlobalNetworkPolicy, endpoint: HostEndpoint) -> bool:
    return parse(policy_selector(policy)).evaluate(endpoint.labels)


def policy_selector(policy: GlobalNetworkPolicy) -> str:
    """One selector for the endpoints a policy applies to (``globalnetworkpolicyprocessor.go``).

    Labels of namespaces and service accounts are an endpoint's labels with a prefix. A HostEndpoint has none of them,
    so such a selector keeps it only by what it says of missing labels.
    """
    text = policy.selector.strip()
    for own, prefix, everything in (
        (policy.namespace_selector, "pcns.", f"has({NAMESPACE_LABEL})"),
        (policy.service_account_selector, "pcsa.", f"has({SERVICE_ACCOUNT_LABEL})"),
    ):
        if own.strip():
            scope = parse(own).with_prefix(prefix).canonical
            text = f"({text}) && {scope}" if text else scope
            text = text.replace("all()", everything)  # in the policy's own selector too, as Calico does
    return text


class _Compiler:
    """Compiles rules and collects the sets they name; each selector is resolved once."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._unsupported: list[str] = []
        self.sets: dict[str, IpSet] = {}

    def entries(self, policies: Sequence[GlobalNetworkPolicy], direction: Direction) -> Iterator[Entry]:
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
        for what in _unsupported_matches(rule):
            self._unsupported.append(f"{rule.position}: {name}: untracked policy cannot be enforced with {what}")
        return Entry(
            name=name,
            action=rule.action,
            tier=policy.tier,
            policy=policy.name,
            direction=direction,
            index=index,
            ip_version=_ip_version(rule),
            protocol=rule.protocol,
            not_protocol=rule.not_protocol,
            icmp=rule.icmp,
            not_icmp=rule.not_icmp,
            source=self._address(rule.source),
            destination=self._address(rule.destination),
            position=rule.position,
        )

    def _address(self, entity: EntityRule) -> AddressMatch:
        positive, negative = rule_selectors(entity)
        return AddressMatch(
            nets=entity.nets,
            not_nets=entity.not_nets,
            ip_set=self._set(positive),
            not_ip_set=self._set(negative),
            ports=_ranges(entity.ports),
            not_ports=_ranges(entity.not_ports),
        )

    def _set(self, text: str) -> str | None:
        """The id of the set a selector stands for, None for no selector."""
        if not text:
            return None
        selector = parse(text)
        if selector.uid not in self.sets:
            self.sets[selector.uid] = self._resolve(selector)
        return selector.uid

    def _resolve(self, selector: Selector) -> IpSet:
        parts: list[Nets] = []
        members: list[str] = []
        for name, labels, nets in _addressed(self._resources):
            if selector.evaluate(labels):
                parts.append(nets)
                members.append(name)
        return IpSet(selector.uid, selector.canonical, Nets.union(parts), tuple(members))


def rule_selectors(entity: EntityRule) -> tuple[str, str]:
    """The selector whose addresses match and the one whose addresses do not, each "" for none.

    A notSelector beside another selector narrows that one (``felix/calc/rule_scanner.go``). Alone it is a negated
    match: any address will do but the selected, even one that belongs to nothing Calico knows.
    """
    scope = _SCOPES.get(_canonical(entity.namespace_selector), "")
    selector, negative = entity.selector.strip(), entity.not_selector.strip()
    positive = f"({scope}) && ({selector})" if scope and selector else scope or selector
    if positive and negative:
        return conjunction(positive, negative), ""
    return positive, negative


# What a rule's namespaceSelector means (``updateprocessors/rules.go``): in some namespace, or in none.
_SCOPES = {"all()": f"has({NAMESPACE_LABEL})", "global()": f"!has({NAMESPACE_LABEL})"}


def _canonical(text: str) -> str:
    return parse(text).canonical if text.strip() else ""


def network_set_labels(item: NetworkSet) -> Mapping[str, str]:
    """A namespaced set's labels with the one that names its namespace (``networksetprocessor.go``)."""
    return {**item.labels, NAMESPACE_LABEL: item.namespace}


def _addressed(resources: Resources) -> Iterator[tuple[str, Mapping[str, str], Nets]]:
    """Everything a rule's selector can stand for: network sets, and the expectedIPs of all nodes' HostEndpoints."""
    for item in resources.global_network_sets:
        yield f"gns/{item.name}", item.labels, item.nets
    for namespaced in resources.network_sets:
        yield f"ns/{namespaced.namespace}/{namespaced.name}", network_set_labels(namespaced), namespaced.nets
    for endpoint in resources.host_endpoints:
        if endpoint.expected_ips:
            yield f"hep/{endpoint.name}", endpoint.labels, Nets.of(endpoint.expected_ips)


def _ip_version(rule: Rule) -> int | None:
    """The family of a rule: written, or that of its nets (validation allows no mixture) or its ICMP protocol."""
    if rule.ip_version:
        return rule.ip_version
    nets: list[IPNetwork] = [
        *rule.source.nets, *rule.source.not_nets, *rule.destination.nets, *rule.destination.not_nets
    ]  # fmt: skip
    return nets[0].version if nets else ICMP_FAMILY.get(rule.protocol or 0)


def _ranges(ports: Sequence[Port]) -> tuple[PortRange, ...]:
    return tuple(port for port in ports if isinstance(port, PortRange))


def _unsupported_matches(rule: Rule) -> Iterator[str]:
    sides = (("source", rule.source), ("destination", rule.destination))
    for side, entity in sides:
        for name, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
            named = [port.name for port in ports if isinstance(port, NamedPort)]
            if named:
                yield f"{side}.{name}: the named port {named[0]!r}; give its number"
        if entity.services is not None:
            yield f"{side}.services: no Kubernetes services are known here; give their addresses as nets"
        if entity.service_accounts is not None:
            yield f"{side}.serviceAccounts: they belong to workloads; untracked policy is for hosts"
        if _canonical(entity.namespace_selector) not in ("", *_SCOPES):
            yield f"{side}.namespaceSelector: only all() and global() are known here"
    if rule.http is not None:
        yield "http: untracked policy sees single packets; remove the match"
