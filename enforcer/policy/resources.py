"""Calico resources as values: what a document says after validation, before anything is resolved.

Frozen; every resource knows the position it was read from. Field meaning and defaults follow the Calico v3 API
(``api/pkg/apis/projectcalico/v3``); names are the API's in snake case.
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
    """What one side of a packet must be. Empty fields are not looked at; ``""`` is no selector at all."""

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
    """One rule. ``protocol`` numbers follow IANA. ``ip_version`` is 4, 6 or None: as written, or of the *name* ICMP or
    ICMPv6 where the protocol is written so (``felix/calc/rule_convert.go``, ipVersionToProtoIPVersion).
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
    """``interface_name`` is "" when only ``expected_ips`` are given; "*" means all traffic of the host."""

    node: str = ""
    interface_name: str = ""
    expected_ips: tuple[IPAddress, ...] = ()
    profiles: tuple[str, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


@dataclass(frozen=True)
class GlobalNetworkSet(Resource):
    nets: Nets = field(default_factory=Nets)


@dataclass(frozen=True)
class NetworkSet(Resource):
    namespace: str = "default"
    nets: Nets = field(default_factory=Nets)


@dataclass(frozen=True)
class GlobalNetworkPolicy(Resource):
    """``order`` None sorts last. ``types`` holds "Ingress"/"Egress", derived from the rules when absent."""

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
    """``order`` None sorts last; the tier ``default`` has 1,000,000 whether it is written or not."""

    order: float | None = None
    default_action: Action = Action.DENY


@dataclass(frozen=True)
class Profile(Resource):
    """``labels_to_apply`` are inherited by the endpoints that name the profile; its rules are the last of their normal
    policy. The profile ``kns.<namespace>`` hands its labels to the namespace's NetworkSets.
    """

    labels_to_apply: Mapping[str, str] = field(default_factory=dict)
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Failsafe:
    """A port that untracked policy never closes. ``net`` None: any address of either family."""

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
    """Node settings that bear on untracked policy; defaults are Felix's (``felix/config/config_params.go``)."""

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
    iptables_filter_deny_action: str = "Drop"  # or "Reject", which the raw table cannot do
    iptables_filter_allow_action: str = "Accept"  # or "Return"
    iptables_mangle_allow_action: str = "Accept"  # or "Return"
    default_endpoint_to_host_action: str = "Drop"  # or "Accept", "Return"
    disable_conntrack_invalid_check: bool = False
    iptables_backend: str = "Auto"  # or "Legacy", "NFT"
    nftables_mode: str = "Auto"  # or "Enabled", "Disabled"
    bpf_enabled: bool = False
    bpf_attach_type: str = "Netkit"  # or "TC", "TCX"
    bpf_map_size_ipsets: int = 1_048_576
    written: frozenset[str] = frozenset()  # the fields above that a document sets
    node_selector: str = ""  # the nodes it is for, where its name does not say so
    created: str = ""  # metadata.creationTimestamp, in UTC

    @property
    def nftables_settings(self) -> bool:
        """Whether in nf_tables Felix's nftables settings count, not the iptables ones: unless it runs iptables-nft."""
        return self.nftables_mode == "Enabled" or (
            self.nftables_mode != "Disabled" and self.iptables_backend.lower() != "nft"
        )

    @property
    def table_refresh_interval_s(self) -> float:
        """How often the raw part is looked at; where either backend may hold it, as often as the one more often
        looked at. 0: never (``config_params.go``, TableRefreshInterval).
        """
        if self.nftables_mode == "Enabled":
            return self.nftables_refresh_interval_s
        if not self.nftables_settings or self.iptables_backend.lower() == "legacy":
            return self.iptables_refresh_interval_s
        either = (self.iptables_refresh_interval_s, self.nftables_refresh_interval_s)
        return min((interval for interval in either if interval > 0), default=0.0)

    def overridden_by(self, other: FelixConfiguration) -> FelixConfiguration:
        """This configuration with every field that the other sets (writes, or has other than Felix's default)."""
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
    """A node of the cluster, for its labels: a FelixConfiguration's nodeSelector selects it by them."""


@dataclass(frozen=True)
class Resources:
    """Everything loaded, per kind, in file order. ``skipped`` names kinds Calico has that we do not act on; ``notes``
    are what was read and passed, and is worth to be named: fields and files that enforce nothing.
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
        """What a node runs with: Felix's defaults, then ``default``, then the oldest whose nodeSelector selects the
        node, then ``node.<name>``, field by field (``felix/calc/config_batcher.go``).
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
        """The FelixConfigurations that may be for the node, but whose node labels are unknown: they are not applied."""
        if any(item.name == node for item in self.nodes):
            return ()
        return tuple(item for item in self.felix_configurations if item.node_selector and not _selects(item, None))


def _selects(item: FelixConfiguration, labels: Mapping[str, str] | None) -> bool:
    """Whether a nodeSelector selects a node; of a node of unknown labels only all() is known to."""
    selector = parse(item.node_selector)
    return selector.canonical == "all()" if labels is None else selector.evaluate(labels)
