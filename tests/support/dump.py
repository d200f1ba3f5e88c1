"""Writes resources as v3 documents: the inverse of ``load_documents``.

A failing example thus becomes a file that every command reads. Positions are not written; values equal to the default
are omitted, except in a FelixConfiguration, where a present field overrides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from enforcer.policy.resources import (
    EntityRule,
    Failsafe,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IcmpMatch,
    NamedPort,
    NetworkSet,
    Port,
    Profile,
    Resource,
    Resources,
    Rule,
    Tier,
)
from enforcer.policy.schema import PROTOCOLS
from enforcer.policy.validate_felix import FIELDS

Document = dict[str, Any]

PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def documents(resources: Resources) -> list[Document]:
    """One document for each resource, kind by kind."""
    found: list[Resource] = [
        *resources.host_endpoints, *resources.global_network_sets, *resources.network_sets, *resources.policies,
        *resources.tiers, *resources.profiles, *resources.felix_configurations,
    ]  # fmt: skip
    return [_document(item) for item in found]


def as_text(docs: Iterable[Mapping[str, Any]]) -> str:
    """Documents as YAML."""
    return yaml.dump_all([dict(doc) for doc in docs], Dumper=yaml.CSafeDumper, sort_keys=False, width=120)


def _document(item: Resource) -> Document:
    metadata: Document = {"name": item.name, **_said(labels=dict(item.labels))}
    if isinstance(item, NetworkSet):
        metadata["namespace"] = item.namespace
    kind = type(item).__name__
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": _spec(item)}


def _spec(item: Resource) -> Document:
    match item:
        case HostEndpoint():
            return _endpoint(item)
        case GlobalNetworkSet() | NetworkSet():
            return {"nets": _texts(item.nets)}
        case GlobalNetworkPolicy():
            return _policy(item)
        case Tier():
            return {**_said(order=item.order), "defaultAction": str(item.default_action)}
        case Profile():
            return {"labelsToApply": dict(item.labels_to_apply)}
        case FelixConfiguration():
            return _felix(item)
    raise TypeError(f"{item.name}: a {type(item).__name__} has no document; add it to {__name__}")


def _endpoint(item: HostEndpoint) -> Document:
    ports = [{"name": port.name, "protocol": _protocol(port.protocol), "port": port.port} for port in item.ports]
    return {
        "node": item.node,
        **_said(
            interfaceName=item.interface_name,
            expectedIPs=_texts(item.expected_ips),
            profiles=list(item.profiles),
            ports=ports,
        ),
    }


def _policy(item: GlobalNetworkPolicy) -> Document:
    return {
        "tier": item.tier,
        **_said(order=item.order, selector=item.selector),
        "types": list(item.types),
        **_said(
            doNotTrack=item.do_not_track,
            preDNAT=item.pre_dnat,
            applyOnForward=item.apply_on_forward,
            namespaceSelector=item.namespace_selector,
            serviceAccountSelector=item.service_account_selector,
            ingress=[_rule(rule) for rule in item.ingress],
            egress=[_rule(rule) for rule in item.egress],
        ),
    }


def _rule(rule: Rule) -> Document:
    return {
        "action": str(rule.action),
        **_said(
            ipVersion=rule.ip_version,
            protocol=_protocol(rule.protocol),
            notProtocol=_protocol(rule.not_protocol),
            source=_entity(rule.source),
            destination=_entity(rule.destination),
            http=_plain(rule.http or {}),
        ),
        **{name: _icmp(icmp) for name, icmp in (("icmp", rule.icmp), ("notICMP", rule.not_icmp)) if icmp is not None},
    }


def _entity(side: EntityRule) -> Document:
    return _said(
        nets=_texts(side.nets),
        notNets=_texts(side.not_nets),
        selector=side.selector,
        notSelector=side.not_selector,
        namespaceSelector=side.namespace_selector,
        ports=[_port(port) for port in side.ports],
        notPorts=[_port(port) for port in side.not_ports],
        serviceAccounts=_plain(side.service_accounts or {}),
        services=_plain(side.services or {}),
    )


def _port(port: Port) -> int | str:
    if isinstance(port, NamedPort):
        return port.name
    return port.first if port.first == port.last else f"{port.first}:{port.last}"


def _protocol(number: int | None) -> int | str | None:
    """By name if it has one; ICMP by number, because its names imply an IP version."""
    if number is None or number in (1, 58):
        return number
    return PROTOCOL_NAMES.get(number, number)


def _icmp(icmp: IcmpMatch) -> Document:
    return {name: value for name, value in (("type", icmp.type), ("code", icmp.code)) if value is not None}


def _felix(item: FelixConfiguration) -> Document:
    return {api_name: _setting(getattr(item, name)) for api_name, (name, _) in FIELDS.items() if name in item.written}


def _setting(value: object) -> object:
    """One setting in Felix's notation: durations in seconds, lists of names joined, ``none`` for an empty text."""
    if isinstance(value, float):
        return f"{value}s"
    if isinstance(value, tuple) and value:
        if isinstance(value[0], tuple):
            return [{"name": name, "timeout": f"{timeout_s}s"} for name, timeout_s in value]
        return [_failsafe(part) for part in value] if isinstance(value[0], Failsafe) else ",".join(value)
    return "none" if value in ("", ()) else value


def _failsafe(failsafe: Failsafe) -> Document:
    net = {} if failsafe.net is None else {"net": str(failsafe.net)}
    return {"protocol": _protocol(failsafe.protocol), "port": failsafe.port, **net}


def _said(**fields: object) -> Document:
    """The fields that are not empty."""
    return {name: value for name, value in fields.items() if value or (value == 0 and value is not False)}


def _plain(fields: Mapping[str, object]) -> Document:
    """A part that is stored as it was read."""
    return _said(**{name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()})


def _texts(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]
