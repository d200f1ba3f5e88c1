"""Tracked policy in few words: a host endpoint, policies and profiles as documents, and the plan they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enforcer.model.vocabulary import Backend
from enforcer.planning.plan import Plan, TrackedPlan
from enforcer.policy.compile import compile_tracked
from enforcer.policy.load import load_documents
from enforcer.policy.tracked import TrackedTable

NODE = "node"

Document = dict[str, Any]
RuleSpec = Mapping[str, Any]


def _resource(kind: str, name: str, spec: Mapping[str, Any]) -> Document:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name, "labels": {"host": "true"} if kind == "HostEndpoint" else {}},
        "spec": dict(spec),
    }


def endpoint(interface: str = "eth0", *, profiles: Sequence[str] = (), labels: str = "") -> Document:
    """A host endpoint of that name. ``labels``: one more label, by its key."""
    found = _resource("HostEndpoint", interface, {"node": NODE, "interfaceName": interface, "profiles": list(profiles)})
    found["metadata"]["labels"] |= {labels: "true"} if labels else {}
    return found


def policy(name: str, *, selector: str = "has(host)", **spec: object) -> Document:
    """A normal policy, unless the spec says preDNAT or applyOnForward. Its types are those it has rules for."""
    types = [kind for kind, rules in (("Ingress", "ingress"), ("Egress", "egress")) if rules in spec]
    return _resource("GlobalNetworkPolicy", name, {"selector": selector, "types": types, **spec})


def pre_dnat(name: str, *ingress: RuleSpec, order: float = 1) -> Document:
    return policy(name, preDNAT=True, applyOnForward=True, order=order, ingress=list(ingress))


def profile(name: str, **spec: object) -> Document:
    return _resource("Profile", name, spec)


def felix(**spec: object) -> Document:
    return _resource("FelixConfiguration", "default", spec)


def rule(action: str, protocol: str | int | None = None, *ports: int, **match: object) -> Document:
    """A rule that matches on a protocol and the destination's ports."""
    found: Document = {"action": action, **match}
    found |= {"protocol": protocol} if protocol is not None else {}
    return found | ({"destination": {"ports": list(ports)}} if ports else {})


def tracked_table(*documents: Document, interface: str = "eth0") -> TrackedTable:
    """The chains of the interface, which an endpoint among the documents governs."""
    found = compile_tracked(load_documents(documents), node=NODE, interface=interface)
    assert found is not None, f"no endpoint governs {interface}"
    return found


def tracked_plan(backend: Backend, *documents: Document, interfaces: Sequence[str] = ("eth0",)) -> Plan:
    """A plan that enforces the tracked policy of these interfaces, and nothing in raw."""
    tables = [tracked_table(*documents, interface=name) for name in interfaces]
    return Plan(NODE, (), tracked=tuple(TrackedPlan(table, backend, enforced=True) for table in tables))
