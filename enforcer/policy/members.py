"""Resolves selectors by labels: to the nets of network sets, and to the addresses and ports of HostEndpoints.

A Membership belongs to one state of the resources. Created from the previous one, it reuses the object of every set
whose members have not changed. So after a change to one network set only the sets that contain it are rebuilt, and all
others compare as identical.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from enforcer.model.nets import IPAddress, Nets
from enforcer.policy.labels import endpoint_labels, network_set_labels
from enforcer.policy.resources import EndpointPort, Resources
from enforcer.policy.ruletable import IpSet, PortSet
from enforcer.policy.selector import Selector

Labels = Mapping[str, str]
Parts = tuple[str, ...]  # names of the resources that contribute to a set


@dataclass(frozen=True)
class _Member:
    name: str
    labels: Labels
    nets: Nets
    addresses: tuple[IPAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Membership:
    """Resolves selectors over one state of the resources, each selector once."""

    def __init__(self, resources: Resources, before: Membership | None = None) -> None:
        old: Mapping[str, Nets] = before._nets if before else {}
        self._members = tuple(_members(resources, old))
        self._nets: dict[str, Nets] = {item.name: item.nets for item in self._members}
        self._unions: dict[Parts, Nets] = {}
        self._sets: dict[str, IpSet] = {}
        self._port_sets: dict[str, PortSet] = {}
        self._before = before
        by_labels: dict[frozenset[tuple[str, str]], tuple[Labels, list[int]]] = {}
        for place, item in enumerate(self._members):
            by_labels.setdefault(frozenset(item.labels.items()), (item.labels, []))[1].append(place)
        self._by_labels = tuple(by_labels.values())  # many members share their labels: evaluated once for all

    def ip_set(self, selector: Selector) -> IpSet:
        """The addresses of everything that the selector selects."""
        found = self._sets.get(selector.uid)
        if found is None:
            parts = tuple(item.name for item in self._selected(selector))
            found = self._kept_set(selector.uid, parts) or IpSet(
                selector.uid, selector.canonical, self._union(parts), parts
            )
            self._sets[selector.uid] = found
        return found

    def port_set(self, selector: Selector, name: str, protocol: int) -> PortSet:
        """The addresses and ports of a named port, among the HostEndpoints that the selector selects."""
        identity = _port_set_id(selector, name, protocol)
        if identity not in self._port_sets:
            pairs = dict.fromkeys(
                (address, port.port)
                for item in self._selected(selector)
                for port in item.ports
                if port.name == name and port.protocol == protocol
                for address in item.addresses
            )
            self._port_sets[identity] = PortSet(identity, name, protocol, tuple(pairs))
        return self._port_sets[identity]

    def forget_before(self) -> None:
        """Drop the previous state; sets that were not reused are no longer needed."""
        self._before = None

    def _selected(self, selector: Selector) -> list[_Member]:
        """The selected members in the order of the resources."""
        found = [places for labels, places in self._by_labels if selector.evaluate(labels)]
        return [self._members[place] for place in sorted(place for places in found for place in places)]

    def _union(self, parts: Parts) -> Nets:
        if parts not in self._unions:
            kept = self._kept_union(parts)
            self._unions[parts] = Nets.union([self._nets[name] for name in parts]) if kept is None else kept
        return self._unions[parts]

    def _kept_set(self, uid: str, parts: Parts) -> IpSet | None:
        old = self._before._sets.get(uid) if self._before else None
        return old if old is not None and old.members == parts and self._unchanged(parts) else None

    def _kept_union(self, parts: Parts) -> Nets | None:
        return self._before._unions.get(parts) if self._before and self._unchanged(parts) else None

    def _unchanged(self, parts: Parts) -> bool:
        """Whether the nets of these members are unchanged; equal ones are the same objects."""
        assert self._before is not None, "called only with a previous state"
        return all(self._before._nets.get(name) is self._nets[name] for name in parts)


def _members(resources: Resources, old: Mapping[str, Nets]) -> Iterator[_Member]:
    """Everything that a rule's selector can select. Unchanged nets are the same objects as before."""
    profiles = {item.name: item for item in resources.profiles}
    for item in resources.global_network_sets:
        name = f"gns/{item.name}"
        yield _Member(name, item.labels, _kept(old, name, item.nets))
    for namespaced in resources.network_sets:
        name = f"ns/{namespaced.namespace}/{namespaced.name}"
        yield _Member(name, network_set_labels(namespaced, profiles), _kept(old, name, namespaced.nets))
    for endpoint in resources.host_endpoints:
        if endpoint.expected_ips:
            name, nets = f"hep/{endpoint.name}", Nets.of(endpoint.expected_ips)
            labels = endpoint_labels(endpoint, profiles)
            yield _Member(name, labels, _kept(old, name, nets), endpoint.expected_ips, endpoint.ports)


def _kept(old: Mapping[str, Nets], name: str, nets: Nets) -> Nets:
    before = old.get(name)
    return nets if before is None or before != nets else before


def _port_set_id(selector: Selector, name: str, protocol: int) -> str:
    """Calico's id of the set of a named port (``rule_scanner.go``, ``hash/hash.go``)."""
    text = f"{selector.uid},{_PROTOCOL_WORDS[protocol]},{name}"
    digest = hashlib.sha224(f"n:{text}".encode()).digest()
    return "n:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


_PROTOCOL_WORDS = {6: "tcp", 17: "udp", 132: "sctp"}
