"""Which addresses a rule's selectors stand for: those of all network sets and HostEndpoints whose labels they match.

``felix/labelindex/named_port_index.go``: GlobalNetworkSets, NetworkSets (with the label that names their namespace),
and the expectedIPs of the HostEndpoints of *all* nodes. Workloads are not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from enforcer.policy.nets import Nets
from enforcer.policy.resources import EntityRule, IPAddress, Resources
from enforcer.policy.selector import parse

NAMESPACE = "projectcalico.org/namespace"


class Selection:
    """Resolves the selectors of entity rules over fixed resources."""

    def __init__(self, resources: Resources) -> None:
        self._addressed = tuple(_addressed(resources))
        self._selected = lru_cache(maxsize=None)(self._select)

    def holds(self, entity: EntityRule, address: IPAddress) -> bool:
        """Whether an address is what the entity's selectors ask for; True when there are none.

        A notSelector beside a selector narrows it (``felix/calc/rule_scanner.go``). Alone it is a negated match: any
        address will do but those selected, addresses of nothing Calico knows included (``policy_common.go``).
        """
        if not has_selector(entity):
            return True
        if entity.selector.strip() or entity.namespace_selector.strip():
            asked = (entity.selector.strip(), entity.not_selector.strip(), entity.namespace_selector.strip())
            return any(nets.contains(address) for nets in self._selected(*asked))
        return not any(nets.contains(address) for nets in self._selected(entity.not_selector.strip(), "", ""))

    def _select(self, selector: str, not_selector: str, namespace_selector: str) -> tuple[Nets, ...]:
        return tuple(
            nets
            for labels, nets in self._addressed
            if parse(selector).evaluate(labels)
            and not (not_selector and parse(not_selector).evaluate(labels))
            and _in_scope(namespace_selector, labels)
        )


def has_selector(entity: EntityRule) -> bool:
    return bool(entity.selector.strip() or entity.not_selector.strip() or entity.namespace_selector.strip())


def _in_scope(namespace_selector: str, labels: Mapping[str, str]) -> bool:
    """all() means "has a namespace" and global() "has none" (``updateprocessors/rules.go``); no others get here."""
    if not namespace_selector:
        return True
    wants_namespace = parse(namespace_selector).canonical == "all()"
    return (NAMESPACE in labels) is wants_namespace


def _addressed(resources: Resources) -> Iterator[tuple[Mapping[str, str], Nets]]:
    for item in resources.global_network_sets:
        yield item.labels, item.nets
    for namespaced in resources.network_sets:
        yield {**namespaced.labels, NAMESPACE: namespaced.namespace}, namespaced.nets
    for endpoint in resources.host_endpoints:
        yield endpoint.labels, Nets.of(endpoint.expected_ips)
