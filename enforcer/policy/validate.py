"""From a document to a resource: one reader per kind, all of Calico's checks (``validator/v3/validator.go``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from enforcer.model.errors import Position
from enforcer.model.nets import Nets
from enforcer.model.vocabulary import Action, Direction
from enforcer.policy import schema, values
from enforcer.policy.nodes import Fieldset, Scalar, shown
from enforcer.policy.reading import (
    ABSENT,
    Cursor,
    Fields,
    Identity,
    Reader,
    Refused,
    boolean,
    hint,
    integer,
    list_of,
    number,
    one_of,
    string,
)
from enforcer.policy.resources import (
    EndpointPort,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkSet,
    Node,
    Profile,
    Resource,
    Tier,
)
from enforcer.policy.validate_felix import felix_configuration
from enforcer.policy.validate_rule import rule

PORT_BY_NUMBER = "host-endpoint-port-by-number"
NO_END = "emergency-without-end"
NAMESPACE_LABEL = "projectcalico.org/namespace"
RULES_MAX = 1024

DNS_NAME = values.name()
TIER_NAME = values.name(values.DNS_LABEL, 63)

SpecReader = Callable[[Cursor, Identity], Resource]


def host_endpoint(at: Cursor, base: Identity) -> HostEndpoint:
    spec = Fields(at, schema.HOST_ENDPOINT)
    found = HostEndpoint(
        base.name,
        base.labels,
        base.position,
        node=spec.need("node", values.name(), ""),
        interface_name=spec.get("interfaceName", values.interface_name, ""),
        expected_ips=tuple(dict.fromkeys(spec.get("expectedIPs", list_of(values.address, is_set=True), ()))),
        profiles=spec.get("profiles", list_of(values.name(), is_set=True), ()),
        ports=spec.get("ports", list_of(_endpoint_port), ()),
    )
    if not (spec.has_value("interfaceName") or spec.has_value("expectedIPs")):
        at.fault("needs interfaceName, expectedIPs or both; found neither")
    return found


def _endpoint_port(at: Cursor) -> EndpointPort:
    fields = Fields(at, schema.ENDPOINT_PORT)
    protocol = fields.need("protocol", values.protocol, values.Protocol(6))
    port = EndpointPort(
        fields.need("name", values.endpoint_port_name, ""),
        protocol.number,
        fields.need("port", integer(1, values.PORT_MAX), 1),
    )
    if port.protocol in schema.PORT_PROTOCOLS and "protocol" in fields and protocol.name not in schema.PROTOCOLS:
        name = next(name for name, number in schema.PROTOCOLS.items() if number == port.protocol)
        fields.cursor("protocol").note(
            f"a protocol by number: the API accepts it, but Felix ignores the whole HostEndpoint; write {name}",
            PORT_BY_NUMBER,
        )
    if port.protocol not in schema.PORT_PROTOCOLS:
        fields.cursor("protocol").fault("this protocol has no ports; expected TCP, UDP or SCTP")
    return port


def global_network_set(at: Cursor, base: Identity) -> GlobalNetworkSet:
    nets = Fields(at, schema.NETWORK_SET).get("nets", values.net_set, Nets())
    return GlobalNetworkSet(
        base.name, base.labels, base.position, nets=nets, annotations=dict(_own_annotations(base.annotations))
    )


def _own_annotations(annotations: Mapping[str, Cursor]) -> Iterator[tuple[str, str]]:
    """Those of the enforcer. An end that is no time is none: the set stays, as one without it does."""
    for key, at in annotations.items():
        if not (key.startswith(schema.OWN_PREFIX) and isinstance(at.node, Scalar) and isinstance(at.node.value, str)):
            continue
        text = at.node.value
        if key == schema.EXPIRES:
            try:
                text = values.timestamp(at)
            except Refused as refused:
                at.note(f"{refused.message}; the set stays until it is deleted", NO_END)
                continue
        yield key, text


def network_set(at: Cursor, base: Identity) -> NetworkSet:
    nets = Fields(at, schema.NETWORK_SET).get("nets", values.net_set, Nets())
    return NetworkSet(base.name, base.labels, base.position, namespace=base.namespace, nets=nets)


def tier(at: Cursor, base: Identity) -> Tier:
    spec = Fields(at, schema.TIER)
    found = Tier(
        base.name,
        base.labels,
        base.position,
        order=spec.get("order", number, schema.TIER_ORDER),
        default_action=Action(spec.get("defaultAction", one_of("Deny", "Pass"), str(Action.DENY))),
    )
    order, action = schema.RESERVED_TIERS.get(base.name, (found.order, str(found.default_action)))
    if (found.order, str(found.default_action)) != (order, action):
        absent = f"; write both, as absent ones are {schema.TIER_ORDER:.0f} and Deny in every tier"
        known = "order" in spec and "defaultAction" in spec
        at.fault(
            f"the tier {base.name!r} is reserved: its order is {order:.0f} and its defaultAction {action}"
            + ("" if known or base.name == "default" else absent)
        )
    return found


def profile(at: Cursor, base: Identity) -> Profile:
    """A profile. Its rules are checked like others, except where services and HTTP matches may be, as in Calico."""
    spec = Fields(at, schema.PROFILE)
    labels: dict[str, str] = spec.get("labelsToApply", values.labels, {})
    return Profile(
        base.name,
        base.labels,
        base.position,
        labels_to_apply=labels,
        ingress=spec.get("ingress", list_of(rule(None)), ()),
        egress=spec.get("egress", list_of(rule(None)), ()),
    )


def policy(at: Cursor, base: Identity) -> GlobalNetworkPolicy:
    spec = Fields(at, schema.POLICY)
    ingress = spec.get("ingress", list_of(rule(Direction.INGRESS), most=RULES_MAX), ())
    egress = spec.get("egress", list_of(rule(Direction.EGRESS), most=RULES_MAX), ())
    written = spec.get("types", list_of(one_of("Ingress", "Egress"), unique=True), ())
    found = GlobalNetworkPolicy(
        base.name,
        base.labels,
        base.position,
        tier=spec.get("tier", _tier_name, "default"),
        order=spec.get("order", number, None),
        selector=spec.get("selector", values.selector(), ""),
        types=written or _types(spec),
        ingress=ingress,
        egress=egress,
        do_not_track=spec.get("doNotTrack", boolean, False),
        pre_dnat=spec.get("preDNAT", boolean, False),
        apply_on_forward=spec.get("applyOnForward", boolean, False),
        namespace_selector=spec.get("namespaceSelector", values.selector(), ""),
        service_account_selector=spec.get("serviceAccountSelector", values.selector(), ""),
    )
    spec.get("performanceHints", list_of(one_of("AssumeNeededOnEveryNode"), unique=True), ())
    _check_policy(spec, found, written)
    return found


def _tier_name(at: Cursor) -> str:
    """The tier's name; "" means the default tier."""
    return TIER_NAME(at) if string(at) else "default"


def _types(spec: Fields) -> tuple[str, ...]:
    """The types of a policy without ``types``: those it has rules for; Ingress if it has none."""
    egress = spec.has_value("egress")
    ingress = spec.has_value("ingress") or not egress
    return tuple(word for word, there in (("Ingress", ingress), ("Egress", egress)) if there)


def _check_policy(spec: Fields, found: GlobalNetworkPolicy, written: tuple[str, ...]) -> None:
    if found.do_not_track and found.pre_dnat:
        spec.cursor("preDNAT").fault("cannot be true together with doNotTrack: true")
    if found.pre_dnat and spec.has_value("egress"):
        spec.cursor("egress").fault("a policy with preDNAT: true cannot have egress rules")
    if found.pre_dnat and "Egress" in written:
        spec.cursor("types").fault("a policy with preDNAT: true cannot have the type Egress")
    for name, set_ in (("doNotTrack", found.do_not_track), ("preDNAT", found.pre_dnat)):
        if set_ and not found.apply_on_forward:
            spec.cursor(name).fault("requires applyOnForward: true")


def node(at: Cursor, base: Identity) -> Node:
    """A Node of Calico or Kubernetes. Only its labels matter, and both have the same."""
    return Node(base.name, base.labels, base.position)


# --- what every document has ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind: its class, the reader of its spec, the format of its names, whether it has a namespace."""

    made: type[Resource]
    spec: SpecReader
    name: Reader[str] = DNS_NAME
    namespaced: bool = False
    spec_required: bool = False
    refused_labels: tuple[str, ...] = ()


KINDS = {
    "HostEndpoint": Kind(HostEndpoint, host_endpoint, spec_required=True),
    "GlobalNetworkSet": Kind(
        GlobalNetworkSet, global_network_set, spec_required=True, refused_labels=(NAMESPACE_LABEL,)
    ),
    "NetworkSet": Kind(NetworkSet, network_set, namespaced=True, spec_required=True, refused_labels=(NAMESPACE_LABEL,)),
    "GlobalNetworkPolicy": Kind(GlobalNetworkPolicy, policy, values.name(values.POLICY_NAME), spec_required=True),
    "Tier": Kind(Tier, tier, TIER_NAME),
    "Profile": Kind(Profile, profile),
    "FelixConfiguration": Kind(FelixConfiguration, felix_configuration),
    "Node": Kind(Node, node),
}


def resource(at: Cursor, kind_name: str) -> Resource:
    """The resource of a document whose kind is one of KINDS; an empty one if its spec cannot be read.

    Faults are reported, never raised.
    """
    kind = KINDS[kind_name]
    document = Fields(at, schema.DOCUMENT)
    identity = document.need("metadata", lambda where: _identity(where, at.position, kind, kind_name), Identity())
    blank = kind.made(identity.name, identity.labels, identity.position)
    if isinstance(blank, NetworkSet):
        blank = replace(blank, namespace=identity.namespace)
    if "spec" in document:
        return document.get("spec", lambda where: kind.spec(where, identity), blank)
    if kind.spec_required:
        document.cursor("spec").fault(ABSENT)
        return blank
    empty = Fieldset({}, {}, [], at.node.line, at.node.column)
    return kind.spec(at.child("spec", empty), identity)


def _identity(at: Cursor, position: Position, kind: Kind, kind_name: str) -> Identity:
    metadata = Fields(at, schema.METADATA)
    name = metadata.need("name", kind.name, "")
    labels: dict[str, str] = metadata.get("labels", values.labels, {})
    metadata.get("annotations", values.check_annotations, None)
    annotations = metadata.cursor("annotations")
    noted = annotations.node.fields if "annotations" in metadata and isinstance(annotations.node, Fieldset) else {}
    if "namespace" in metadata and not kind.namespaced:
        metadata.cursor("namespace").fault(f"a {kind_name} belongs to no namespace; leave the field out")
    for label in kind.refused_labels:
        if label in labels:
            metadata.cursor("labels", label).fault("this label is Calico's own and cannot be set")
    namespace = metadata.get("namespace", values.name(), "default") if kind.namespaced else ""
    created = metadata.get("creationTimestamp", values.timestamp, "") if kind.made is FelixConfiguration else ""
    return Identity(
        name,
        labels,
        position,
        namespace,
        annotations={key: annotations.child(key, node) for key, node in noted.items()},
        created=created,
    )


def kind_of(at: Cursor, implied: str = "") -> str:
    """The kind of a document. The items of a typed list may omit it.

    Raises Refused if there is none, or if its API is unknown.
    """
    if not isinstance(at.node, Fieldset):
        raise Refused(at, f"expected a resource with apiVersion, kind, metadata and spec, found {at.node}")
    if implied and not {"kind", "apiVersion"} & at.node.fields.keys():
        return implied
    version, kind = (_text_of(at, name) for name in ("apiVersion", "kind"))
    known = [*KINDS, *schema.OTHER_KINDS, *schema.ENTERPRISE_KINDS]
    expected = schema.LIST_API_VERSIONS if is_list(kind) or kind == "Node" else schema.API_VERSIONS
    if version not in expected:
        raise Refused(at.down("apiVersion"), f"expected {' or '.join(expected)}, found {shown(version)}")
    if not is_list(kind) and kind not in known:
        raise Refused(at.down("kind"), f"{shown(kind)} is not a Calico kind{hint(kind, known)}")
    return kind


def is_list(kind: str) -> bool:
    """Whether a kind has items: List, or a kind of Calico with the suffix List."""
    item = kind.removesuffix("List")
    known = item in KINDS or item in schema.OTHER_KINDS or item in schema.ENTERPRISE_KINDS
    return kind == "List" or (item != kind and known)


def _text_of(at: Cursor, name: str) -> str:
    where = at.down(name)
    if where.node is at.node:
        raise Refused(where, f"{ABSENT}; a resource begins with apiVersion: {schema.API_VERSIONS[0]} and its kind")
    return string(where)
