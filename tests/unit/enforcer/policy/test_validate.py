"""What Calico refuses in each kind, and at which field; and what it accepts."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from enforcer.model.errors import Position
from enforcer.model.vocabulary import Action
from enforcer.policy import schema
from enforcer.policy.resources import DEFAULT_FAILSAFE_INBOUND, Failsafe, FelixConfiguration
from enforcer.policy.validate import KINDS
from enforcer.policy.validate_felix import FIELDS
from tests.unit.enforcer.policy.documents import accepted, document, faults, findings

HEP = "{node: jasper, interfaceName: eth0, %s}"
LABELS = "{name: x, labels: {%s}}"

# kind, case, metadata, spec, field, message
REFUSED: list[tuple[str, str, str, str, str, str]] = [
    # metadata of all kinds
    ("Tier", "no name", "{}", "{}", "metadata.name", "required and absent"),
    ("Tier", "no metadata", "", "{}", "metadata", "required and absent"),
    ("Tier", "a number as name", "{name: 5}", "{}", "metadata.name", "found the number 5; put it in quotes: '5'"),
    ("GlobalNetworkSet", "upper case in a name", "{name: DoS}", "{}", "metadata.name", "use lower case letters"),
    ("GlobalNetworkSet", "a trailing newline in a name", '{name: "x\\n"}', "{}", "metadata.name", "is not valid"),
    ("GlobalNetworkSet", "a name of 254", "{name: " + "a" * 254 + "}", "{}", "metadata.name", "at most 253"),
    ("GlobalNetworkSet", "a field misspelled", "{name: x, label: {}}", "{}", "metadata.label",
     "unknown field; did you mean 'labels'?"),
    ("GlobalNetworkSet", "a namespace", "{name: x, namespace: team}", "{}", "metadata.namespace",
     "belongs to no namespace"),
    ("GlobalNetworkSet", "a boolean as label", LABELS % "a: true", "{}", "metadata.labels.a",
     "expected a string, found the boolean true; put it in quotes: 'true'"),
    ("GlobalNetworkSet", "yes is a boolean too", LABELS % "a: yes", "{}", "metadata.labels.a",
     "found the boolean true; put it in quotes: 'yes'"),
    ("GlobalNetworkSet", "a blank in a label value", LABELS % "a: b c", "{}", "metadata.labels.a",
     "expected a label value"),
    ("GlobalNetworkSet", "a label value of 64", LABELS % ("a: " + "b" * 64), "{}", "metadata.labels.a", "0..63"),
    ("GlobalNetworkSet", "two slashes in a key", LABELS % "a/b/c: d", "{}", "metadata.labels.a/b/c",
     "must be a DNS name"),
    ("GlobalNetworkSet", "a label written twice", LABELS % "a: b, a: c", "{}", "metadata.labels.a", "written twice"),
    ("GlobalNetworkSet", "Calico's namespace label", LABELS % "projectcalico.org/namespace: a", "{}",
     "metadata.labels.projectcalico.org/namespace", "Calico's own"),
    ("NetworkSet", "Calico's namespace label", LABELS % "projectcalico.org/namespace: a", "{}",
     "metadata.labels.projectcalico.org/namespace", "Calico's own"),
    ("GlobalNetworkSet", "too many annotations", "{name: x, annotations: {a: " + "b" * 262_144 + "}}", "{}",
     "metadata.annotations", "at most 262144"),
    # HostEndpoint
    ("HostEndpoint", "no node", "{name: x}", "{interfaceName: eth0}", "spec.node", "required and absent"),
    ("HostEndpoint", "neither interface nor addresses", "{name: x}", "{node: a}", "spec", "needs interfaceName"),
    ("HostEndpoint", "an empty list of addresses", "{name: x}", "{node: a, expectedIPs: []}", "spec",
     "needs interfaceName"),
    ("HostEndpoint", "an interface name of 16", "{name: x}", "{node: a, interfaceName: aaaaaaaaaaaaaaaa}",
     "spec.interfaceName", "1..15"),
    ("HostEndpoint", "a mask after an address", "{name: x}", HEP % "expectedIPs: [10.0.0.1/32]", "spec.expectedIPs[0]",
     "without mask"),
    ("HostEndpoint", "an address with a zone", "{name: x}", HEP % 'expectedIPs: ["fe80::1%eth0"]',
     "spec.expectedIPs[0]",
     "expected an IP address"),
    ("HostEndpoint", "a port of ICMP", "{name: x}", HEP % "ports: [{name: a, protocol: ICMP, port: 1}]",
     "spec.ports[0].protocol", "has no ports"),
    ("HostEndpoint", "port 0", "{name: x}", HEP % "ports: [{name: a, protocol: TCP, port: 0}]", "spec.ports[0].port",
     "outside 1..65535"),
    ("HostEndpoint", "a port name without letter", "{name: x}", HEP % "ports: [{name: '80', protocol: TCP, port: 80}]",
     "spec.ports[0].name", "expected a port name"),
    # network sets
    ("GlobalNetworkSet", "no CIDR", "{name: x}", "{nets: [10.0.0.0/8, 10.0.0.300]}", "spec.nets[1]",
     "found '10.0.0.300'"),
    ("GlobalNetworkSet", "a mask too long", "{name: x}", "{nets: [10.0.0.0/33]}", "spec.nets[0]", "0..32, found '33'"),
    ("GlobalNetworkSet", "a leading zero", "{name: x}", "{nets: [010.0.0.0/8]}", "spec.nets[0]",
     "expected an IP address"),
    ("GlobalNetworkSet", "a number", "{name: x}", "{nets: [10]}", "spec.nets[0]",
     "expected a string, found the number 10"),
    ("GlobalNetworkSet", "a string for the list", "{name: x}", "{nets: 10.0.0.0/8}", "spec.nets", "expected a list"),
    ("GlobalNetworkSet", "a field misspelled", "{name: x}", "{net: []}", "spec.net", "did you mean 'nets'?"),
    ("NetworkSet", "no CIDR", "{name: x}", "{nets: [a]}", "spec.nets[0]", "found 'a'"),
    # tiers
    ("Tier", "a dot in the name", "{name: a.b}", "{}", "metadata.name", "digits, '-', beginning"),
    ("Tier", "a name of 64", "{name: " + "a" * 64 + "}", "{}", "metadata.name", "at most 63"),
    ("Tier", "an unknown action", "{name: x}", "{defaultAction: Allow}", "spec.defaultAction", "expected Deny or Pass"),
    ("Tier", "default with another order", "{name: default}", "{order: 5}", "spec", "its order is 1000000"),
    ("Tier", "kube-admin with another action", "{name: kube-admin}", "{defaultAction: Deny}", "spec",
     "defaultAction Pass"),
    # policies
    ("GlobalNetworkPolicy", "two dots in the name", "{name: a.b.c}", "{}", "metadata.name", "at most one '.'"),
    ("GlobalNetworkPolicy", "both kinds of early policy", "{name: x}",
     "{doNotTrack: true, preDNAT: true, applyOnForward: true}", "spec.preDNAT", "together with doNotTrack"),
    ("GlobalNetworkPolicy", "doNotTrack without applyOnForward", "{name: x}", "{doNotTrack: true}", "spec.doNotTrack",
     "requires applyOnForward: true"),
    ("GlobalNetworkPolicy", "preDNAT without applyOnForward", "{name: x}", "{preDNAT: true}", "spec.preDNAT",
     "requires applyOnForward: true"),
    ("GlobalNetworkPolicy", "preDNAT with egress rules", "{name: x}",
     "{preDNAT: true, applyOnForward: true, types: [Ingress], egress: [{action: Deny}]}", "spec.egress",
     "egress rules"),
    ("GlobalNetworkPolicy", "preDNAT with type Egress", "{name: x}",
     "{preDNAT: true, applyOnForward: true, types: [Ingress, Egress]}", "spec.types", "the type Egress"),
    ("GlobalNetworkPolicy", "a type twice", "{name: x}", "{types: [Ingress, Ingress]}", "spec.types[1]",
     "listed twice"),
    ("GlobalNetworkPolicy", "global() in selector", "{name: x}", "{selector: global()}", "spec.selector",
     "is valid only"),
    ("GlobalNetworkPolicy", "global() in namespaceSelector", "{name: x}", "{namespaceSelector: global()}",
     "spec.namespaceSelector", "is valid only"),
    ("GlobalNetworkPolicy", "global() in serviceAccountSelector", "{name: x}", "{serviceAccountSelector: global()}",
     "spec.serviceAccountSelector", "is valid only"),
    ("GlobalNetworkPolicy", "a selector of 1025", "{name: x}", "{selector: 'has(" + "a" * 500 + ")" + " " * 520 + "'}",
     "spec.selector", "at most 1024"),
    ("GlobalNetworkPolicy", "a boolean as selector", "{name: x}", "{selector: true}", "spec.selector",
     "quotes: 'true'"),
    ("GlobalNetworkPolicy", "a quoted boolean", "{name: x}", "{preDNAT: 'false'}", "spec.preDNAT", "without quotes"),
    ("GlobalNetworkPolicy", "an infinite order", "{name: x}", "{order: .inf}", "spec.order", "expected a number"),
    ("GlobalNetworkPolicy", "an unknown hint", "{name: x}", "{performanceHints: [Fast]}", "spec.performanceHints[0]",
     "AssumeNeededOnEveryNode"),
    ("GlobalNetworkPolicy", "1025 rules", "{name: x}", "{ingress: [" + "{action: Deny}," * 1025 + "]}", "spec.ingress",
     "1025 items; at most 1024"),
    # FelixConfiguration
    ("FelixConfiguration", "a slip for a field that is read", "{name: default}", "{xdpEnabeld: false}",
     "spec.xdpEnabeld",
     "did you mean 'xdpEnabled'?"),
    ("FelixConfiguration", "another case", "{name: default}", "{xdpenabled: false}", "spec.xdpenabled",
     "unknown field"),
    ("FelixConfiguration", "a failsafe without port", "{name: default}",
     "{failsafeOutboundHostPorts: [{protocol: TCP}]}", "spec.failsafeOutboundHostPorts[0].port", "required and absent"),
    ("FelixConfiguration", "a duration without unit", "{name: default}", "{xdpRefreshInterval: 90}",
     "spec.xdpRefreshInterval", "such as '90s' or '1m30s', found the number 90"),
    ("FelixConfiguration", "a duration of days", "{name: default}", "{xdpRefreshInterval: 1d}",
     "spec.xdpRefreshInterval",
     "such as '90s'"),
    ("FelixConfiguration", "a faulty expression", "{name: default}", "{interfaceExclude: '/(/'}",
     "spec.interfaceExclude",
     "not a valid regexp"),
    ("FelixConfiguration", "a mark too wide", "{name: default}", "{iptablesMarkMask: 0x1ffffffff}",
     "spec.iptablesMarkMask", "outside 0..4294967295"),
    ("FelixConfiguration", "an unknown insert mode", "{name: default}", "{chainInsertMode: prepend}",
     "spec.chainInsertMode", "insert or append"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "metadata", "spec", "field", "message"),
    [(row[0], *row[2:]) for row in REFUSED],
    ids=[f"{row[0]}: {row[1]}" for row in REFUSED],
)
def test_calico_refuses(kind: str, metadata: str, spec: str, field: str, message: str) -> None:
    ((where, said),) = faults(document(kind, spec, metadata))
    assert where == field
    assert message in said


ACCEPTED: list[tuple[str, str, str, str]] = [
    ("HostEndpoint", "the widest interface name", "{name: a.b-c}", "{node: a.b, interfaceName: 'a_b.c-d.e_f.g-h'}"),
    ("HostEndpoint", "addresses alone", "{name: x}", "{node: a, expectedIPs: ['10.0.0.1', 'fd00::1']}"),
    ("HostEndpoint", "ports by name and number", "{name: x}",
     "{node: a, interfaceName: '*', ports: [{name: ssh, protocol: 6, port: 22}, {name: a, protocol: SCTP, port: 1}]}"),
    ("GlobalNetworkSet", "no spec fields", "{name: x}", "{}"),
    ("GlobalNetworkSet", "null for a list", "{name: x, labels: }", "{nets: }"),
    ("GlobalNetworkSet", "an empty label value, a prefix", LABELS % "a.b/C_d.e: '', f: X", "{}"),
    ("NetworkSet", "a namespace", "{name: x, namespace: team}", "{nets: [10.1.2.3/8, '::1']}"),
    ("Tier", "the default tier as it is", "{name: default}", "{order: 1000000, defaultAction: Deny}"),
    ("Tier", "kube-admin in full", "{name: kube-admin}", "{order: 1000, defaultAction: Pass}"),
    ("GlobalNetworkPolicy", "one dot in the name", "{name: default.x}", "{}"),
    ("GlobalNetworkPolicy", "a tier that is not defined", "{name: x}", "{tier: nowhere}"),
    ("GlobalNetworkPolicy", "egress, Pass and Log untracked in a tier", "{name: x}",
     "{tier: a, doNotTrack: true, applyOnForward: true, egress: [{action: Pass}, {action: Log}], types: [Egress]}"),
    ("GlobalNetworkPolicy", "a hint", "{name: x}", "{performanceHints: [AssumeNeededOnEveryNode]}"),
    ("GlobalNetworkPolicy", "a selector of 1024", "{name: x}", "{selector: 'has(" + "a" * 500 + ")" + " " * 519 + "'}"),
    ("FelixConfiguration", "fields of other concerns", "{name: default}",
     "{bpfLogLevel: Info, nftablesRefreshInterval: 90s, nftablesMarkMask: 0xff, floatingIPs: Enabled}"),
    ("FelixConfiguration", "empty strings", "{name: default}",
     "{logPrefix: '', interfaceExclude: '', failsafeInboundHostPorts: '', iptablesFilterDenyAction: ''}"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "metadata", "spec"),
    [(row[0], *row[2:]) for row in ACCEPTED],
    ids=[f"{row[0]}: {row[1]}" for row in ACCEPTED],
)
@pytest.mark.parametrize("version", schema.API_VERSIONS)
def test_calico_accepts(kind: str, metadata: str, spec: str, version: str) -> None:
    assert accepted(document(kind, spec, metadata, version))


def test_all_findings_come_at_once_in_file_order() -> None:
    text = document("GlobalNetworkPolicy", """\
        selector: a ==
        doNotTrack: true
        ingress:
        - action: Deny
          protocol: ICMP
          icmp: {type: 300}""", "{name: X}")  # fmt: skip
    assert [str(finding) for finding in findings(text)] == [
        "x.yaml:3:18: metadata.name: 'X' is not valid; use lower case letters, digits, '-' and at most one '.', "
        "beginning and ending with a letter or digit",
        "x.yaml:5:17: spec.selector: expected a string after '==', found end of input\n  selector: a ==\n"
        + " " * 16 + "^",
        "x.yaml:6:15: spec.doNotTrack: requires applyOnForward: true",
        "x.yaml:10:18: spec.ingress[0].icmp.type: 300 is outside 0..254",
    ]  # fmt: skip


SELECTOR_PLACES = [
    ("plain", "selector: a = 'b'", (5, 15), "  selector: a = 'b'\n              ^"),
    ("quoted", "selector: \"a = 'b'\"", (5, 16), "  selector: \"a = 'b'\"\n               ^"),
    ("a block with a newline", "selector: |\n  has(a)", (5, 13), "has(a)␊\n      ^"),
    ("doubled quotes shift the columns", "selector: 'a = ''b'''", (5, 13), "a = 'b'\n  ^"),
]


@pytest.mark.parametrize(
    ("spec", "place", "context"), [row[1:] for row in SELECTOR_PLACES], ids=[row[0] for row in SELECTOR_PLACES]
)
def test_the_caret_points_into_the_source_where_it_can(spec: str, place: tuple[int, int], context: str) -> None:
    (finding,) = findings(document("GlobalNetworkPolicy", spec))
    assert finding.position == Position("x.yaml", *place)
    assert finding.context == context


TYPES = [
    ("no rules", "{}", ("Ingress",)),
    ("ingress rules", "{ingress: [{action: Deny}]}", ("Ingress",)),
    ("egress rules", "{egress: [{action: Deny}]}", ("Egress",)),
    ("both", "{egress: [{action: Deny}], ingress: [{action: Deny}]}", ("Ingress", "Egress")),
    ("egress rules and an empty ingress", "{egress: [{action: Deny}], ingress: []}", ("Egress",)),
    ("written", "{types: [Egress], ingress: [{action: Deny}]}", ("Egress",)),
]


@pytest.mark.parametrize(("spec", "types"), [row[1:] for row in TYPES], ids=[row[0] for row in TYPES])
def test_types_are_derived_from_the_rules(spec: str, types: tuple[str, ...]) -> None:
    assert accepted(document("GlobalNetworkPolicy", spec)).policies[0].types == types


def test_defaults_of_a_policy_and_of_tiers() -> None:
    policy = accepted(document("GlobalNetworkPolicy", "{}")).policies[0]
    assert (policy.tier, policy.order, policy.selector) == ("default", None, "")
    assert (policy.do_not_track, policy.pre_dnat, policy.apply_on_forward) == (False, False, False)
    tiers = "---\n".join(document("Tier", "{}", f"{{name: {name}}}") for name in ("a", "default"))
    assert [(tier.order, tier.default_action) for tier in accepted(tiers).tiers] == [
        (1_000_000, Action.DENY),
        (1_000_000, Action.DENY),
    ]


ENFORCING = ("HostEndpoint", "GlobalNetworkPolicy", "GlobalNetworkSet", "NetworkSet")


def test_a_spec_may_be_absent_where_nothing_is_enforced_by_it() -> None:
    head = "apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: default}\n"
    for kind in KINDS.keys() - set(ENFORCING):
        assert accepted(head % kind)


@pytest.mark.parametrize("kind", ENFORCING)
@pytest.mark.parametrize("end", ["", "spec:\n"])
def test_a_document_that_ends_before_its_spec_is_no_empty_one(kind: str, end: str) -> None:
    head = f"apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: default}}\n"
    assert faults(head + end) == [("spec", "this field is required and absent")]
    if kind != "HostEndpoint":
        assert accepted(head + "spec: {}\n")


FELIX: list[tuple[str, str, str, Any]] = [
    ("failsafes replace the defaults", "failsafeInboundHostPorts: [{protocol: UDP, port: 53, net: 10.1.2.3/8}]",
     "failsafe_inbound", (Failsafe(17, 53, ip_network("10.0.0.0/8")),)),
    ("an absent protocol is TCP", "failsafeInboundHostPorts: [{port: 22}]", "failsafe_inbound", (Failsafe(6, 22),)),
    ("failsafes in one string", "failsafeInboundHostPorts: 'tcp:22, udp:10.1.2.3/8:53,UDP:[fd00::1/8]:53,[::1]:80,81,'",
     "failsafe_inbound", (Failsafe(6, 22), Failsafe(17, 53, ip_network("10.0.0.0/8")),
                          Failsafe(17, 53, ip_network("fd00::/8")), Failsafe(6, 80, ip_network("::1")),
                          Failsafe(6, 81))),
    ("a failsafe in lower case", "failsafeInboundHostPorts: [{protocol: tcp, port: 22}]", "failsafe_inbound",
     (Failsafe(6, 22),)),
    ("nftables' own mark", "nftablesMarkMask: 0xfff00000", "nftables_mark_mask", 0xFFF00000),
    ("nftables' own interval", "nftablesRefreshInterval: 60s", "nftables_refresh_interval_s", 60),
    ("none is no failsafes", "failsafeInboundHostPorts: None", "failsafe_inbound", ()),
    ("an empty string leaves the defaults", "failsafeInboundHostPorts: ''", "failsafe_inbound",
     DEFAULT_FAILSAFE_INBOUND),
    ("none is no log prefix", "logPrefix: none", "log_prefix", ""),
    ("none excludes no interface", "interfaceExclude: none", "interface_exclude", ()),
    ("words in any case", "iptablesFilterDenyAction: REJECT", "iptables_filter_deny_action", "Reject"),
    ("an empty word", "iptablesBackend: ''", "iptables_backend", "Auto"),
    ("a rate", "logActionRateLimit: 10/minute", "log_action_rate_limit", "10/minute"),
    ("an empty list is no failsafes", "failsafeOutboundHostPorts: []", "failsafe_outbound", ()),
    ("null leaves the defaults", "failsafeInboundHostPorts: ", "failsafe_inbound", DEFAULT_FAILSAFE_INBOUND),
    ("prefixes are a comma list", "interfacePrefix: 'cali,tap'", "interface_prefix", ("cali", "tap")),
    ("exclusions with an expression", "interfaceExclude: '/^kube/,veth1'", "interface_exclude", ("/^kube/", "veth1")),
    ("a duration", "xdpRefreshInterval: 1m30s500ms", "xdp_refresh_interval_s", 90.5),
    ("zero switches off", "xdpRefreshInterval: '0'", "xdp_refresh_interval_s", 0),
    ("a hexadecimal mask", "iptablesMarkMask: 0xff000000", "iptables_mark_mask", 0xFF000000),
    ("insert mode in any case", "chainInsertMode: Append", "chain_insert_mode", "append"),
    ("a boolean", "genericXDPEnabled: true", "generic_xdp_enabled", True),
    ("timeouts", "healthTimeoutOverrides: [{name: pass, timeout: 9s}]", "health_timeouts_s", (("pass", 9.0),)),
    ("timeouts as text", "healthTimeoutOverrides: 'a b=1m, pass=9s'", "health_timeouts_s", (("a b", 60), ("pass", 9))),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "name", "value"), [row[1:] for row in FELIX], ids=[row[0] for row in FELIX])
def test_felix_fields(spec: str, name: str, value: object) -> None:
    found = accepted(document("FelixConfiguration", spec, "{name: default}")).felix_configurations[0]
    assert getattr(found, name) == value


def test_every_felix_field_has_a_reader() -> None:
    own = set(FelixConfiguration.__dataclass_fields__) - {"name", "labels", "position", "written"}
    own -= {"node_selector", "created"}
    assert {name for name, _ in FIELDS.values()} == own


def test_the_defaults_are_felixs() -> None:
    found = FelixConfiguration("")
    assert (found.log_action_rate_limit, found.log_action_rate_limit_burst) == ("", 5)
    assert (found.iptables_filter_deny_action, found.default_endpoint_to_host_action) == ("Drop", "Drop")
    assert (found.iptables_filter_allow_action, found.iptables_mangle_allow_action) == ("Accept", "Accept")
    assert (found.iptables_backend, found.nftables_mode) == ("Auto", "Auto")
    assert (found.bpf_enabled, found.bpf_attach_type, found.bpf_map_size_ipsets) == (False, "Netkit", 1_048_576)
    assert not found.disable_conntrack_invalid_check


def test_profiles_hold_their_labels_and_check_their_rules() -> None:
    spec = "{labelsToApply: {pcns.a: b}, ingress: [{action: Allow}], egress: [{action: Pass, http: }]}"
    (profile,) = accepted(document("Profile", spec, "{name: kns.default, labels: {own: c}}")).profiles
    assert (profile.name, profile.labels, profile.labels_to_apply) == ("kns.default", {"own": "c"}, {"pcns.a": "b"})
    (fault,) = faults(document("Profile", "{ingress: [{action: deny}]}"))
    assert fault == (
        "spec.ingress[0].action",
        "expected Allow or Deny or Log or Pass, found 'deny'; did you mean 'Deny'?",
    )


def test_a_nodes_configuration_overrides_the_default_one_field_by_field() -> None:
    resources = accepted(
        document("FelixConfiguration", "{xdpEnabled: false, logPrefix: all}", "{name: default}")
        + "---\n"
        + document("FelixConfiguration", "{xdpEnabled: true, maxIpsetSize: 5}", "{name: node.jasper}")
    )
    mine, other = resources.felix_for("jasper"), resources.felix_for("ruby")
    assert (mine.xdp_enabled, mine.log_prefix, mine.max_ipset_size) == (True, "all", 5)
    assert (other.xdp_enabled, other.log_prefix, other.max_ipset_size) == (False, "all", 1_048_576)


def test_expected_addresses_are_values() -> None:
    spec = "{node: a, expectedIPs: ['10.0.0.1', '10.0.0.1', 'FD00::0:1']}"
    assert accepted(document("HostEndpoint", spec)).host_endpoints[0].expected_ips == (
        ip_address("10.0.0.1"),
        ip_address("fd00::1"),
    )
