"""Rules: their fields, and which cannot be combined (``policy_common.go``, ``validator/v3/validator.go``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enforcer.model.nets import IPNetwork
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy import schema, values
from enforcer.policy.nodes import Items, Node, Scalar
from enforcer.policy.reading import Cursor, Fields, Reader, Refused, integer, list_of, one_of, string
from enforcer.policy.resources import EntityRule, IcmpMatch, Rule
from enforcer.policy.values import Protocol

NETS_MAX = 256
PORTS_MAX = 50
HTTP_MAX = 20  # methods, and paths
ICMP_FAMILY = {"ICMP": 4, "ICMPv6": 6}
ICMP_NAMES = {1: "ICMP", 58: "ICMPv6"}


def rule(direction: Direction | None) -> Reader[Rule]:
    """A reader of rules in this direction of a GlobalNetworkPolicy; None: in either direction of a Profile."""

    def read(at: Cursor) -> Rule:
        fields = Fields(at, schema.RULE)
        protocol = fields.get("protocol", values.protocol, None)
        not_protocol = fields.get("notProtocol", values.protocol, None)
        found = Rule(
            action=Action(fields.need("action", one_of(*map(str, Action)), str(Action.DENY))),
            ip_version=fields.get("ipVersion", _ip_version, ICMP_FAMILY.get(protocol.name) if protocol else None),
            protocol=protocol.number if protocol else None,
            not_protocol=not_protocol.number if not_protocol else None,
            icmp=fields.get("icmp", _icmp, None),
            not_icmp=fields.get("notICMP", _icmp, None),
            source=fields.get("source", _entity, EntityRule()),
            destination=fields.get("destination", _entity, EntityRule()),
            http=fields.get("http", _http, None),
            position=at.position,
        )
        fields.get("metadata", _metadata, None)
        _check_icmp(fields, found, protocol, not_protocol)
        _check_http(fields, found, protocol, direction)
        _check_families(fields, found)
        _check_ports(fields, found)
        _check_services(fields, found, direction)
        return found

    return read


def _ip_version(at: Cursor) -> int:
    version = integer(0, 255)(at)
    if version not in (4, 6):
        raise Refused(at, f"expected 4 or 6, found {version}")
    return version


def _icmp(at: Cursor) -> IcmpMatch:
    fields = Fields(at, schema.ICMP)
    if "code" in fields and "type" not in fields:
        fields.cursor("code").fault("an ICMP code needs a type beside it")
    return IcmpMatch(fields.get("type", integer(0, 254), None), fields.get("code", integer(0, 255), None))


def _entity(at: Cursor) -> EntityRule:
    fields = Fields(at, schema.ENTITY)
    ports = list_of(values.port, most=PORTS_MAX)
    found = EntityRule(
        nets=fields.get("nets", list_of(values.strict_net, most=NETS_MAX, is_set=True), ()),
        not_nets=fields.get("notNets", list_of(values.negated_net, most=NETS_MAX, is_set=True), ()),
        selector=fields.get("selector", values.selector(), ""),
        not_selector=fields.get("notSelector", values.selector(), ""),
        namespace_selector=fields.get("namespaceSelector", values.selector(global_allowed=True), ""),
        ports=fields.get("ports", ports, ()),
        not_ports=fields.get("notPorts", ports, ()),
        service_accounts=fields.get("serviceAccounts", _service_accounts, None),
        services=fields.get("services", _services, None),
    )
    if "services" in fields:
        for name in ("namespaceSelector", "serviceAccounts", "selector", "notSelector", "nets", "notNets"):
            if fields.has_value(name):
                fields.cursor(name).fault("cannot be used with services; a service brings its own addresses")
    return found


def _service_accounts(at: Cursor) -> Mapping[str, object]:
    fields = Fields(at, schema.SERVICE_ACCOUNTS)
    return {
        "names": fields.get("names", list_of(string, is_set=True), ()),
        "selector": fields.get("selector", values.selector(global_allowed=True, most=None), ""),
    }


def _services(at: Cursor) -> Mapping[str, object]:
    fields = Fields(at, schema.SERVICES)
    return {"name": fields.need("name", values.name(), ""), "namespace": fields.get("namespace", values.name(), "")}


def _http(at: Cursor) -> Mapping[str, object]:
    fields = Fields(at, schema.HTTP)
    return {
        "methods": fields.get("methods", list_of(string, most=HTTP_MAX, unique=True), ()),
        "paths": fields.get("paths", list_of(_http_path, most=HTTP_MAX), ()),
    }


def _http_path(at: Cursor) -> Mapping[str, str]:
    fields = Fields(at, schema.HTTP_PATH)
    found = {name: fields.get(name, string, "") for name in schema.HTTP_PATH}
    given = {name: text for name, text in found.items() if text}
    if len(given) != 1:
        at.fault("expected either exact or prefix, found " + ("both" if given else "neither"))
    for name, text in given.items():
        if not text.startswith("/") or set(text) & set("? #"):
            fields.cursor(name).fault(
                f"expected a path that begins with '/' without '?', '#' and blanks, found {text!r}"
            )
    return given


def _metadata(at: Cursor) -> None:
    Fields(at, schema.RULE_METADATA).get("annotations", values.check_annotations, None)


def _check_icmp(fields: Fields, found: Rule, protocol: Protocol | None, not_protocol: Protocol | None) -> None:
    for name in ("icmp", "notICMP"):
        if name in fields and not _is_faulty(fields, "protocol", protocol) and _icmp_name(protocol) not in ICMP_FAMILY:
            fields.cursor(name).fault("needs protocol: ICMP or protocol: ICMPv6 beside it")
    if "ipVersion" not in fields:
        return
    for name, written in (("protocol", protocol), ("notProtocol", not_protocol)):
        icmp = _icmp_name(written)
        family = ICMP_FAMILY.get(icmp)
        if family and found.ip_version not in (None, family):
            fields.cursor("ipVersion").fault(f"{name}: {icmp} is of IP version {family}, found {found.ip_version}")


def _icmp_name(protocol: Protocol | None) -> str:
    """ICMP or ICMPv6, by name or number. (For Calico, a number in quotes is neither.)"""
    if protocol is None:
        return ""
    return protocol.name or ICMP_NAMES.get(protocol.number, "")


def _check_http(fields: Fields, found: Rule, protocol: Protocol | None, direction: Direction | None) -> None:
    if "http" not in fields:
        return
    at = fields.cursor("http")
    if protocol and protocol not in (Protocol(6, "TCP"), Protocol(6)):
        at.fault("needs protocol: TCP, or none")
    if found.action is not Action.ALLOW:
        at.fault(f"is valid only in an Allow rule, found {found.action}")
    if direction is Direction.EGRESS:
        at.fault("is not valid in an egress rule")


def _check_families(fields: Fields, found: Rule) -> None:
    """Checks that all nets of a rule have the IP version of the rule."""
    expected = found.ip_version if "ipVersion" in fields else None
    for side, name, nets in _nets(found):
        for version in sorted({net.version for net in nets}):
            if expected is None:
                expected = version
            elif version != expected:
                why = "the rule's ipVersion is" if "ipVersion" in fields else "other nets of the rule are of version"
                at = fields.cursor(side, name)
                at.fault(
                    f"has IPv{version} nets, and {why} {expected}; a rule is of one IP version, so write two rules"
                )


def _nets(found: Rule) -> Iterator[tuple[str, str, tuple[IPNetwork, ...]]]:
    for side, entity in (("source", found.source), ("destination", found.destination)):
        yield side, "nets", entity.nets
        yield side, "notNets", entity.not_nets


def _check_ports(fields: Fields, found: Rule) -> None:
    """Checks that a rule with port numbers, even faulty ones, has a protocol with ports. A named port implies one."""
    if found.protocol in schema.PORT_PROTOCOLS or _is_faulty(fields, "protocol", found.protocol):
        return
    for side in ("source", "destination"):
        for name in ("ports", "notPorts"):
            at = fields.cursor(side, name)
            written = at.node.items[:PORTS_MAX] if isinstance(at.node, Items) else []
            if any(map(_is_number, written)) or (written and found.protocol is not None):
                at.fault("needs protocol: TCP, UDP or SCTP in the rule")


def _is_number(port: Node) -> bool:
    """Whether a port is written as a number or a range, valid or not."""
    if not isinstance(port, Scalar) or isinstance(port.value, str):
        text = str(getattr(port, "value", ""))
        return text[:1].isdigit() and not values.is_port_name(text)
    return port.value is not None


def _is_faulty(fields: Fields, name: str, value: object) -> bool:
    """Whether a field is present but could not be read. That is already reported, so no further check applies."""
    return value is None and name in fields


def _check_services(fields: Fields, found: Rule, direction: Direction | None) -> None:
    services = {"source": found.source.services, "destination": found.destination.services}
    if direction is not None:
        right, wrong = ("source", "destination") if direction is Direction.INGRESS else ("destination", "source")
        if services[wrong] is not None:
            fields.cursor(wrong, "services").fault(f"is valid only in the {right} of an {direction} rule")
        allowed = services[right]
        if allowed is not None and not allowed["namespace"]:
            fields.cursor(right, "services").fault("needs a namespace, because a GlobalNetworkPolicy is in none")
    if services["destination"] is not None:
        for name in ("ports", "notPorts"):
            at = fields.cursor("destination", name)
            if isinstance(at.node, Items) and at.node.items:
                at.fault("cannot be used with services, which bring their own ports")
