"""The addresses and ports that a rule's selectors and named ports select, by the labels of resources.

``felix/labelindex/named_port_index.go``: GlobalNetworkSets, NetworkSets (with the label that names their namespace),
and the expectedIPs of the HostEndpoints of *all* nodes. Workloads are not known here. A second, independent
implementation: the compiler has its own, and the two must not share a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from enforcer.model.nets import IPAddress, Nets
from enforcer.policy.resources import EndpointPort, EntityRule, HostEndpoint, Profile, Resources
from enforcer.policy.selector import parse

NAMESPACE = "projectcalico.org/namespace"


@dataclass(frozen=True)
class Addressed:
    """A labelled resource with addresses, and perhaps named ports."""

    labels: Mapping[str, str]
    nets: Nets
    addresses: tuple[IPAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Selection:
    """Resolves the selectors of entity rules against fixed resources."""

    def __init__(self, resources: Resources) -> None:
        self._addressed = tuple(_addressed(resources))
        self._selected = lru_cache(maxsize=None)(self._select)

    def holds(self, entity: EntityRule, address: IPAddress) -> bool:
        """Whether the entity's selectors select an address; True if there are none.

        With a selector, a notSelector narrows it (``felix/calc/rule_scanner.go``). Alone it is a negated match: it
        matches every address except those selected, including addresses that belong to no resource
        (``policy_common.go``).
        """
        if not has_selector(entity):
            return True
        if entity.selector.strip() or entity.namespace_selector.strip():
            return any(item.nets.contains(address) for item in self._selected(*_asked(entity)))
        return not any(item.nets.contains(address) for item in self._selected(entity.not_selector.strip(), "", ""))

    def ports_named(self, entity: EntityRule, name: str, protocol: int, address: IPAddress) -> set[int]:
        """The ports of this name and protocol at an address, of endpoints that the entity's selectors select.

        A notSelector narrows them only with another selector: alone it is a match of its own.
        """
        asked = _asked(entity)
        if not (entity.selector.strip() or entity.namespace_selector.strip()):
            asked = ("", "", "")
        return {
            port.port
            for item in self._selected(*asked)
            if address in item.addresses
            for port in item.ports
            if (port.name, port.protocol) == (name, protocol)
        }

    def _select(self, selector: str, not_selector: str, namespace_selector: str) -> tuple[Addressed, ...]:
        return tuple(
            item
            for item in self._addressed
            if parse(selector).evaluate(item.labels)
            and not (not_selector and parse(not_selector).evaluate(item.labels))
            and _in_scope(namespace_selector, item.labels)
        )


def has_selector(entity: EntityRule) -> bool:
    return bool(entity.selector.strip() or entity.not_selector.strip() or entity.namespace_selector.strip())


def inherited(own: Mapping[str, str], names: Sequence[str], profiles: Sequence[Profile]) -> Mapping[str, str]:
    """Labels with those of the profiles of these names: an own label wins, then that of the first profile."""
    sources = [own]
    for name in names:
        sources += [item.labels_to_apply for item in profiles if item.name == name]
    return {key: value for labels in reversed(sources) for key, value in labels.items()}


def labels_of(endpoint: HostEndpoint, resources: Resources) -> Mapping[str, str]:
    """A HostEndpoint's labels with those of its profiles."""
    return inherited(endpoint.labels, endpoint.profiles, resources.profiles)


def _asked(entity: EntityRule) -> tuple[str, str, str]:
    return entity.selector.strip(), entity.not_selector.strip(), entity.namespace_selector.strip()


def _in_scope(namespace_selector: str, labels: Mapping[str, str]) -> bool:
    """all() means "has a namespace" and global() "has none" (``updateprocessors/rules.go``); any other selector matches
    on the namespace's labels, which are among the item's own with a prefix.
    """
    if not namespace_selector:
        return True
    canonical = parse(namespace_selector).canonical
    if canonical in ("all()", "global()"):
        return (NAMESPACE in labels) is (canonical == "all()")
    asked = parse(namespace_selector).with_prefix("pcns.").canonical
    for word, meaning in (("all()", f"has({NAMESPACE})"), ("global()", f"!has({NAMESPACE})")):
        asked = asked.replace(word, meaning)
    return parse(asked).evaluate(labels)


def _addressed(resources: Resources) -> Iterator[Addressed]:
    for item in resources.global_network_sets:
        yield Addressed(item.labels, item.nets)
    for namespaced in resources.network_sets:
        own = {**namespaced.labels, NAMESPACE: namespaced.namespace}
        yield Addressed(inherited(own, [f"kns.{namespaced.namespace}"], resources.profiles), namespaced.nets)
    for endpoint in resources.host_endpoints:
        nets = Nets.of(endpoint.expected_ips)
        yield Addressed(labels_of(endpoint, resources), nets, endpoint.expected_ips, endpoint.ports)
