"""The closed lists of Calico's v3 API used by validation: API groups, kinds, protocols, field names."""

from __future__ import annotations

API_VERSIONS = ("projectcalico.org/v3", "crd.projectcalico.org/v1")
LIST_API_VERSIONS = (*API_VERSIONS, "v1")

# Labels and annotations that only the enforcer writes and reads (docs/emergency.md).
OWN_PREFIX = "enforcer.io/"
EXPIRES = f"{OWN_PREFIX}expires"
FEED = f"{OWN_PREFIX}feed"  # on a set that "enforcer feed sync" writes: the name of the feed

# Kinds of Calico on which untracked policy does not depend.
OTHER_KINDS = frozenset(
    {
        "BGPConfiguration",
        "BGPFilter",
        "BGPPeer",
        "BlockAffinity",
        "CalicoNodeStatus",
        "ClusterInformation",
        "DatastoreMigration",
        "ExternalNetwork",
        "IPAMBlock",
        "IPAMConfig",
        "IPAMConfiguration",
        "IPAMHandle",
        "IPPool",
        "IPReservation",
        "KubeControllersConfiguration",
        "NetworkPolicy",
        "QoSPolicy",
        "StagedGlobalNetworkPolicy",
        "StagedKubernetesNetworkPolicy",
        "StagedNetworkPolicy",
        "WorkloadEndpoint",
    }
)

# Kinds and fields that only Calico Enterprise has. They are reported as such, not as unknown.
ENTERPRISE_KINDS = frozenset(
    {
        "AlertException",
        "BFDConfiguration",
        "DeepPacketInspection",
        "EgressGatewayPolicy",
        "GlobalAlert",
        "GlobalAlertTemplate",
        "GlobalReport",
        "GlobalReportType",
        "GlobalThreatFeed",
        "LicenseKey",
        "ManagedCluster",
        "PacketCapture",
        "PolicyRecommendationScope",
        "RemoteClusterConfiguration",
        "SecurityEventWebhook",
        "UISettings",
        "UISettingsGroup",
    }
)
ENTERPRISE_FIELDS = frozenset({"allowedEgressDomains", "domains", "egressGateway"})

# The profile that every Calico datastore has: it allows everything (libcalico-go, DefaultAllowProfile). HostEndpoints
# that Calico creates by itself name it.
DEFAULT_ALLOW_PROFILE = "projectcalico-default-allow"

PROTOCOLS = {"TCP": 6, "UDP": 17, "ICMP": 1, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}
PORT_PROTOCOLS = (6, 17, 132)  # those whose rules may name port numbers

DOCUMENT = ("apiVersion", "kind", "metadata", "spec", "status")
LIST = ("apiVersion", "kind", "metadata", "items")
METADATA = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
HOST_ENDPOINT = ("node", "interfaceName", "expectedIPs", "profiles", "ports")
ENDPOINT_PORT = ("name", "protocol", "port")
NETWORK_SET = ("nets",)
POLICY = (
    "tier",
    "order",
    "ingress",
    "egress",
    "selector",
    "types",
    "doNotTrack",
    "preDNAT",
    "applyOnForward",
    "serviceAccountSelector",
    "namespaceSelector",
    "performanceHints",
)
RULE = (
    "action",
    "ipVersion",
    "protocol",
    "notProtocol",
    "icmp",
    "notICMP",
    "source",
    "destination",
    "http",
    "metadata",
)
ICMP = ("type", "code")
ENTITY = (
    "nets",
    "notNets",
    "selector",
    "notSelector",
    "namespaceSelector",
    "ports",
    "notPorts",
    "serviceAccounts",
    "services",
)
SERVICE_ACCOUNTS = ("names", "selector")
SERVICES = ("name", "namespace")
HTTP = ("methods", "paths")
HTTP_PATH = ("exact", "prefix")
RULE_METADATA = ("annotations",)
TIER = ("order", "defaultAction")
PROFILE = ("ingress", "egress", "labelsToApply")
PROTO_PORT = ("protocol", "port", "net")

# Tiers whose order and default action are fixed (``tier.go``).
RESERVED_TIERS = {
    "default": (1_000_000.0, "Deny"),
    "kube-admin": (1_000.0, "Pass"),
    "kube-baseline": (10_000_000.0, "Pass"),
}
TIER_ORDER = 1_000_000.0  # the order that Calico gives to a tier without one (``resources/tier.go``)
