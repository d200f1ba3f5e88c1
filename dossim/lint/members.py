"""Members: the network sets and endpoints that selectors stand for, with their places in the files. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.model.errors import Position
from enforcer.model.nets import IPAddress, IPNetwork, Nets
from enforcer.policy.labels import endpoint_labels, network_set_labels, rule_selectors
from enforcer.policy.resources import EntityRule, GlobalNetworkPolicy, Resources, Rule
from enforcer.policy.ruletable import RuleTable
from enforcer.policy.selector import parse

ReadText = Callable[[str], str]  # reads a file's text; "" if it cannot be read (again)


@dataclass(frozen=True)
class Member:
    """``name`` as results print it: ``gns/dos-mitigation``."""

    name: str
    labels: Mapping[str, str]
    nets: Nets
    position: Position
    is_set: bool = True


@dataclass(frozen=True)
class Listing:
    """The CIDR of a member that holds an address."""

    name: str
    net: IPNetwork
    position: Position


@dataclass(frozen=True)
class Members:
    """``starts`` has, for each file, the lines at which resources begin, in order."""

    by_name: Mapping[str, Member]
    starts: Mapping[str, Sequence[int]]
    read_text: ReadText
    texts: dict[str, str] = field(default_factory=dict)  # filled as files are read

    @classmethod
    def of(cls, resources: Resources, read_text: ReadText) -> Members:
        profiles = {item.name: item for item in resources.profiles}
        found = [Member(f"gns/{one.name}", one.labels, one.nets, one.position) for one in resources.global_network_sets]
        for item in resources.network_sets:
            name, labels = f"ns/{item.namespace}/{item.name}", network_set_labels(item, profiles)
            found.append(Member(name, labels, item.nets, item.position))
        for endpoint in resources.host_endpoints:
            if endpoint.expected_ips:
                labels, nets = endpoint_labels(endpoint, profiles), Nets.of(endpoint.expected_ips)
                found.append(Member(f"hep/{endpoint.name}", labels, nets, endpoint.position, is_set=False))
        return cls({item.name: item for item in found}, _starts(resources), read_text)

    @property
    def sets(self) -> list[Member]:
        return [item for item in self.by_name.values() if item.is_set]

    def selected(self, selector: str) -> list[Member]:
        """Everything a rule's selector selects."""
        parsed = parse(selector)
        return [item for item in self.by_name.values() if parsed.evaluate(item.labels)]

    def listing(self, ip_set: str | None, table: RuleTable, address: IPAddress) -> Listing | None:
        """The CIDR that contains an address of an IP set."""
        for name in table.sets[ip_set].members if ip_set is not None else ():
            member = self.by_name[name]
            net = member.nets.covering(address)
            if net is not None:
                return Listing(name, net, self.place(member, net))
        return None

    def place(self, member: Member, net: IPNetwork) -> Position:
        """The position of a CIDR in the member: its line if the file has our spelling of it, else the member's own
        position.
        """
        path, first = member.position.path, member.position.line
        if path not in self.texts:
            self.texts[path] = self.read_text(path)
        text = self.texts[path]
        if not text or not first:
            return member.position
        later = [line for line in self.starts.get(path, ()) if line > first]
        begin = _offset(text, first)
        end = _offset(text, later[0]) if later else len(text)
        length = f"/{net.prefixlen}"
        optional = f"(?:{length})?" if net.prefixlen == net.max_prefixlen else length
        spelled = re.compile(rf"(?<![\w.:/]){re.escape(str(net.network_address))}{optional}(?![\w.:/])")
        found = spelled.search(text, begin, end)
        if found is None:
            return member.position
        line_start = text.rfind("\n", 0, found.start()) + 1
        return Position(path, text.count("\n", 0, line_start) + 1, found.start() - line_start + 1)


def rules_of(policy: GlobalNetworkPolicy) -> list[tuple[str, Rule]]:
    """Each rule with the name its entry would have, for the directions in the policy's types."""
    found: list[tuple[str, Rule]] = []
    for kind, direction, rules in (("Ingress", "ingress", policy.ingress), ("Egress", "egress", policy.egress)):
        if kind in policy.types:
            found += [(f"gnp/{policy.name} {direction}[{index}]", rule) for index, rule in enumerate(rules)]
    return found


def selectors_of(rule: Rule) -> list[tuple[str, str, bool]]:
    """Each selector of a rule: its field, its text, and whether it is negated."""
    found: list[tuple[str, str, bool]] = []
    for side, entity in (("source", rule.source), ("destination", rule.destination)):
        positive, negative = rule_selectors(entity)
        found += [(_written(side, entity), positive, False)] if positive else []
        found += [(f"{side}.notSelector", negative, True)] if negative else []
    return found


def _written(side: str, entity: EntityRule) -> str:
    """The fields that a rule's positive selector comes from."""
    fields = (("selector", entity.selector), ("namespaceSelector", entity.namespace_selector))
    names = [f"{side}.{name}" for name, text in fields if text.strip()]
    return " with ".join(names)


def _starts(resources: Resources) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for kind in (
        resources.host_endpoints, resources.global_network_sets, resources.network_sets, resources.policies,
        resources.tiers, resources.profiles, resources.felix_configurations, resources.nodes,
    ):  # fmt: skip
        for item in kind:
            found.setdefault(item.position.path, []).append(item.position.line)
    return {path: sorted(lines) for path, lines in found.items()}


def _offset(text: str, line: int) -> int:
    """The offset at which a line begins."""
    at = 0
    for _ in range(line - 1):
        at = text.find("\n", at) + 1
        if not at:
            return len(text)
    return at
