"""Calico resources as values: the content of a document after validation, before selectors are resolved.

Frozen. Every resource has the position it was read from. The meaning and defaults of fields follow the Calico v3 API
(``api/pkg/apis/projectcalico/v3``); names are those of the API in snake case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from enforcer.model.errors import Note, Position
from enforcer.model.nets import IPAddress, IPNetwork, Nets
from enforcer.model.vocabulary import Action
from enforcer.policy.selector import parse

NOWHERE = Position("<inline>")


@dataclass(frozen=True)
class PortRange:
    """Ports ``first`` to ``last``, both included."""

    first: int
    last: int

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last


@dataclass(frozen=True)
class NamedPort:
    name: str


Port = PortRange | NamedPort


@dataclass(frozen=True)
class IcmpMatch:
    """``type`` None: any. ``code`` is only set together with ``type``."""

    type: int | None = None
    code: int | None = None


@dataclass(frozen=True)
class EntityRule:
    """What one side of a packet must match. Empty fields are ignored; ``""`` means no selector."""

    nets: tuple[IPNetwork, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    selector: str = ""
    not_selector: str = ""
    namespace_selector: str = ""
    ports: tuple[Port, ...] = ()
    not_ports: tuple[Port, ...] = ()
    service_accounts: Mapping[str, object] | None = None
    services: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Rule:
    """One rule. ``protocol``: IANA number. ``ip_version``: 4, 6 or None, as written, or implied if the protocol is
    written as the *name* ICMP or ICMPv6 (``felix/calc/rule_convert.go``, ipVersionToProtoIPVersion).
    """

    action: Action
    ip_version: int | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: IcmpMatch | None = None
    not_icmp: IcmpMatch | None = None
    source: EntityRule = EntityRule()
    destination: EntityRule = EntityRule()
    http: Mapping[str, object] | None = None
    position: Position = NOWHERE


def match_fields(rule: Rule) -> frozenset[str]:
    """The fields that a rule sets of all that rules can match on: ``not_protocol``, ``source.nets``.

    Who reads rules compares them with the fields that it knows, so that a new one is refused and not overlooked. Blank
    selectors and ICMP without a type match on nothing, and count as not set.
    """
    parts: dict[str, Rule | EntityRule] = {"": rule, "source.": rule.source, "destination.": rule.destination}
    found = {
        prefix + item.name
        for prefix, part in parts.items()
        for item in fields(part)
        if _is_set(getattr(part, item.name), item.default)
    }
    return frozenset(found - {"action", "position", "source", "destination"})


def fields_of_sides(*names: str) -> frozenset[str]:
    """Fields of both sides of a rule, as :func:`match_fields` has them."""
    return frozenset(f"{side}.{name}" for side in ("source", "destination") for name in names)


def _is_set(value: object, default: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value not in (default, IcmpMatch())


@dataclass(frozen=True)
class Resource:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    position: Position = NOWHERE


@dataclass(frozen=True)
class EndpointPort:
    name: str
    protocol: int
    port: int


@dataclass(frozen=True)
class HostEndpoint(Resource):
    """``interface_name``: "" if only ``expected_ips`` are given; "*" means all traffic of the host."""

    node: str = ""
    interface_name: str = ""
    expected_ips: tuple[IPAddress, ...] = ()
    profiles: tuple[str, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


@dataclass(frozen=True)
class GlobalNetworkSet(Resource):
    """``annotations``: those of the enforcer (``schema.OWN_PREFIX``), which say when an emergency act ends."""

    nets: Nets = field(default_factory=Nets)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkSet(Resource):
    namespace: str = "default"
    nets: Nets = field(default_factory=Nets)


@dataclass(frozen=True)
class GlobalNetworkPolicy(Resource):
    """``order`` None sorts last. ``types``: "Ingress" and "Egress", derived from the rules if absent."""

    tier: str = "default"
    order: float | None = None
    selector: str = ""
    types: tuple[str, ...] = ("Ingress",)
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    do_not_track: bool = False
    pre_dnat: bool = False
    apply_on_forward: bool = False
    namespace_selector: str = ""
    service_account_selector: str = ""


@dataclass(frozen=True)
class Tier(Resource):
    """``order`` None sorts last; the tier ``default`` always has 1,000,000."""

    order: float | None = None
    default_action: Action = Action.DENY


@dataclass(frozen=True)
class Profile(Resource):
    """``labels_to_apply`` are inherited by the endpoints that list the profile; its rules come last in their normal
    policy. The NetworkSets of a namespace inherit the labels of the profile ``kns.<namespace>``.
    """

    labels_to_apply: Mapping[str, str] = field(default_factory=dict)
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Failsafe:
    """A port that untracked policy never blocks. ``net`` None: any address of either family."""

    protocol: int
    port: int
    net: IPNetwork | None = None


TCP, UDP = 6, 17

DEFAULT_FAILSAFE_INBOUND = (
    Failsafe(TCP, 22),
    Failsafe(UDP, 68),
    Failsafe(TCP, 179),
    Failsafe(TCP, 2379),
    Failsafe(TCP, 2380),
    Failsafe(TCP, 5473),
    Failsafe(TCP, 6443),
    Failsafe(TCP, 6666),
    Failsafe(TCP, 6667),
)
DEFAULT_FAILSAFE_OUTBOUND = (
    Failsafe(UDP, 53),
    Failsafe(UDP, 67),
    Failsafe(TCP, 179),
    Failsafe(TCP, 2379),
    Failsafe(TCP, 2380),
    Failsafe(TCP, 5473),
    Failsafe(TCP, 6443),
    Failsafe(TCP, 6666),
    Failsafe(TCP, 6667),
)


@dataclass(frozen=True)
class FelixConfiguration(Resource):
    """Node settings that affect untracked policy; defaults are Felix's (``felix/config/config_params.go``)."""

    xdp_enabled: bool = True
    generic_xdp_enabled: bool = False
    xdp_refresh_interval_s: float = 90.0
    failsafe_inbound: tuple[Failsafe, ...] = DEFAULT_FAILSAFE_INBOUND
    failsafe_outbound: tuple[Failsafe, ...] = DEFAULT_FAILSAFE_OUTBOUND
    interface_prefix: tuple[str, ...] = ("cali",)
    interface_exclude: tuple[str, ...] = ("kube-ipvs0",)
    iptables_mark_mask: int = 0xFFFF0000
    max_ipset_size: int = 1_048_576
    ipsets_refresh_interval_s: float = 90.0
    iptables_refresh_interval_s: float = 180.0
    nftables_mark_mask: int = 0xFFFF0000
    nftables_refresh_interval_s: float = 180.0
    nftables_filter_deny_action: str = "Drop"  # or "Reject"
    nftables_filter_allow_action: str = "Accept"  # or "Return"
    nftables_mangle_allow_action: str = "Accept"  # or "Return"
    chain_insert_mode: str = "insert"
    ipv6_support: bool = True
    log_prefix: str = "calico-packet"
    log_action_rate_limit: str = ""  # such as "10/minute"; "": none
    log_action_rate_limit_burst: int = 5
    iptables_filter_deny_action: str = "Drop"  # or "Reject", which raw does not support
    iptables_filter_allow_action: str = "Accept"  # or "Return"
    iptables_mangle_allow_action: str = "Accept"  # or "Return"
    default_endpoint_to_host_action: str = "Drop"  # or "Accept", "Return"
    disable_conntrack_invalid_check: bool = False
    iptables_backend: str = "Auto"  # or "Legacy", "NFT"
    nftables_mode: str = "Auto"  # or "Enabled", "Disabled"
    bpf_enabled: bool = False
    bpf_attach_type: str = "Netkit"  # or "TC", "TCX"
    bpf_map_size_ipsets: int = 1_048_576
    metrics_enabled: bool = False
    metrics_host: str = ""  # "": all addresses
    metrics_port: int = 9091
    metrics_ca_file: str = ""
    metrics_cert_file: str = ""  # with a key: TLS
    metrics_key_file: str = ""
    metrics_client_auth: str = "NoClientCert"
    metrics_of_process: bool = True
    health_enabled: bool = False
    health_host: str = "localhost"
    health_port: int = 9099
    health_timeouts_s: tuple[tuple[str, float], ...] = ()  # by component
    written: frozenset[str] = frozenset()  # the fields above that a document sets
    node_selector: str = ""  # the nodes it is for, if not given by its name
    created: str = ""  # metadata.creationTimestamp, in UTC

    @property
    def nftables_settings(self) -> bool:
        """Whether Felix uses its nftables settings in nf_tables. False if it runs iptables-nft there."""
        return self.nftables_mode == "Enabled" or (
            self.nftables_mode != "Disabled" and self.iptables_backend.lower() != "nft"
        )

    @property
    def table_refresh_interval_s(self) -> float:
        """The interval of resyncs of raw, in seconds: the shorter one if either backend may enforce. 0: never
        (``config_params.go``, TableRefreshInterval).
        """
        if self.nftables_mode == "Enabled":
            return self.nftables_refresh_interval_s
        if not self.nftables_settings or self.iptables_backend.lower() == "legacy":
            return self.iptables_refresh_interval_s
        either = (self.iptables_refresh_interval_s, self.nftables_refresh_interval_s)
        return min((interval for interval in either if interval > 0), default=0.0)

    def overridden_by(self, other: FelixConfiguration) -> FelixConfiguration:
        """This configuration, overridden by every field that the other one sets (or has other than Felix's default)."""
        names = {item.name for item in fields(FelixConfiguration)} - {item.name for item in fields(Resource)}
        names -= {"written", "node_selector", "created"}
        blank = FelixConfiguration("")
        changed = {name for name in names if getattr(other, name) != getattr(blank, name)} | other.written
        values = {name: getattr(other, name) for name in changed}
        return replace(
            self,
            name=other.name,
            labels=other.labels,
            position=other.position,
            written=self.written | changed,
            **values,
        )


@dataclass(frozen=True)
class Node(Resource):
    """A node of the cluster and its labels, which the nodeSelector of a FelixConfiguration selects."""


@dataclass(frozen=True)
class Resources:
    """Everything loaded, by kind, in file order. ``skipped``: kinds of Calico that are ignored. ``notes``: accepted
    input that deserves mention, such as fields and files that have no effect.
    """

    host_endpoints: tuple[HostEndpoint, ...] = ()
    global_network_sets: tuple[GlobalNetworkSet, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    policies: tuple[GlobalNetworkPolicy, ...] = ()
    tiers: tuple[Tier, ...] = ()
    profiles: tuple[Profile, ...] = ()
    felix_configurations: tuple[FelixConfiguration, ...] = ()
    nodes: tuple[Node, ...] = ()
    skipped: tuple[str, ...] = ()
    notes: tuple[Note, ...] = field(default=(), compare=False)

    def felix_for(self, node: str) -> FelixConfiguration:
        """The effective configuration of a node: Felix's defaults, overridden field by field by ``default``, the oldest
        one whose nodeSelector selects the node, and ``node.<name>`` (``felix/calc/config_batcher.go``).
        """
        found = FelixConfiguration("default")
        by_name = {item.name: item for item in self.felix_configurations}
        for item in (by_name.get("default"), self._selecting(node), by_name.get(f"node.{node}")):
            if item is not None:
                found = found.overridden_by(item)
        return found

    def _selecting(self, node: str) -> FelixConfiguration | None:
        labels = next((item.labels for item in self.nodes if item.name == node), None)
        found = [item for item in self.felix_configurations if item.node_selector and _selects(item, labels)]
        return min(found, key=lambda item: (item.created, item.name), default=None)

    def felix_unknown(self, node: str) -> tuple[FelixConfiguration, ...]:
        """FelixConfigurations that are not applied because they select by labels and the node's labels are unknown."""
        if any(item.name == node for item in self.nodes):
            return ()
        return tuple(item for item in self.felix_configurations if item.node_selector and not _selects(item, None))


def _selects(item: FelixConfiguration, labels: Mapping[str, str] | None) -> bool:
    """Whether a nodeSelector selects a node. If the node's labels are unknown, only all() does."""
    selector = parse(item.node_selector)
    return selector.canonical == "all()" if labels is None else selector.evaluate(labels)
