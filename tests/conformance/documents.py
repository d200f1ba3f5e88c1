"""Calico resources as the tests write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.topology import Document, Host

Rule = Mapping[str, Any]

BLOCKLIST = "xdpblocklist-set == 'true'"
LISTED = {"xdpblocklist-set": "true"}
DENY_LISTED: Rule = {"action": "Deny", "source": {"selector": BLOCKLIST}}


def resource(
    kind: str, name: str, spec: Mapping[str, object], labels: Mapping[str, str] | None = None, **metadata: str
) -> Document:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name, "labels": dict(labels or {}), **metadata},
        "spec": dict(spec),
    }


def endpoint(host: Host, *, name: str = "", interface: str = "eth0", **spec: object) -> Document:
    """The host's HostEndpoint, with the labels of Calico's own test and its address as expectedIPs."""
    own_name = name or f"{host.name}-{interface}".replace("*", "all").rstrip("-")
    labels = {"role": host.name, "host-endpoint": "true", "name": own_name}
    spec = {"expectedIPs": [host.address(4), host.address(6)], **spec}
    if interface:
        spec["interfaceName"] = interface
    return resource("HostEndpoint", own_name, {"node": host.name, **spec}, labels)


def network_set(*nets: str, name: str = "xdpblocklist", labels: Mapping[str, str] | None = None) -> Document:
    return resource("GlobalNetworkSet", name, {"nets": nets}, labels or LISTED)


def namespaced_set(*nets: str, name: str = "xdpblocklist", labels: Mapping[str, str] | None = None) -> Document:
    return resource("NetworkSet", name, {"nets": nets}, labels or LISTED, namespace="shop")


def policy(
    *ingress: Rule, name: str = "xdpf", egress: Sequence[Rule] = (), selector: str = "role == 'server'", **spec: object
) -> Document:
    """An untracked policy, unless the spec says otherwise."""
    rules: dict[str, object] = {"ingress": list(ingress)} if ingress else {}
    if egress:
        rules["egress"] = list(egress)
    spec = {"doNotTrack": True, "applyOnForward": True, "selector": selector, **rules, **spec}
    return resource("GlobalNetworkPolicy", name, spec)


def felix(**spec: object) -> Document:
    return resource("FelixConfiguration", "default", spec)


def tier(name: str, order: float, **spec: object) -> Document:
    return resource("Tier", name, {"order": order, **spec})


def tracked(*ingress: Rule, name: str = "normal", role: str = "server", **spec: object) -> Document:
    """A normal policy, unless the spec says preDNAT or applyOnForward."""
    options = {"doNotTrack": False, "applyOnForward": False, **spec}
    # For mypy: of several types
    return policy(*ingress, name=name, selector=f"role == '{role}'", **options)  # type: ignore[arg-type]


def profile(name: str, **rules: object) -> Document:
    return resource("Profile", name, rules)


def allow_all(name: str = "allow-all") -> Document:
    """The profile of Calico's tests that lets everything pass."""
    return profile(name, ingress=[{"action": "Allow"}], egress=[{"action": "Allow"}])


def failsafe(protocol: str, port: int, **net: str) -> dict[str, object]:
    return {"protocol": protocol.upper(), "port": port, **net}
