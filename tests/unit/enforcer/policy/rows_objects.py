"""Metadata, HostEndpoints, network sets, tiers, profiles: what is accepted, and what is refused."""

from __future__ import annotations

from tests.unit.enforcer.policy.rows import Row

METADATA = [
    Row("GlobalNetworkSet", "a name", "{}", "{}",
        "3:18: metadata.name: 'a..b' is not valid; use lower case letters, digits, '-' and '.', beginning and "
        "ending with a letter or digit", good_metadata="{name: a.b-c}", bad_metadata="{name: a..b}"),
    Row("GlobalNetworkSet", "the length of a name", "{}", "{}",
        "3:18: metadata.name: a name of 254 characters; at most 253 are allowed", good_metadata="{name: ~253*a~}",
        bad_metadata="{name: ~254*a~}"),
    Row("GlobalNetworkPolicy", "dots in a policy's name", "{}", "{}",
        "3:18: metadata.name: 'a.b.c' is not valid; use lower case letters, digits, '-' and at most one '.', "
        "beginning and ending with a letter or digit", good_metadata="{name: default.dos}",
        bad_metadata="{name: a.b.c}"),
    Row("Tier", "dots in a tier's name", "{}", "{}",
        "3:18: metadata.name: 'edge.1' is not valid; use lower case letters, digits, '-', beginning and "
        "ending with a letter or digit", good_metadata="{name: edge-1}", bad_metadata="{name: edge.1}"),
    Row("Tier", "the length of a tier's name", "{}", "{}",
        "3:18: metadata.name: a name of 64 characters; at most 63 are allowed", good_metadata="{name: ~63*a~}",
        bad_metadata="{name: ~64*a~}"),
    Row("Node", "a node's name", "{anything: [1]}", "{}",
        "3:18: metadata.name: 'Jasper' is not valid; use lower case letters, digits, '-' and '.', beginning and "
        "ending with a letter or digit", good_metadata="{name: jasper.example}", bad_metadata="{name: Jasper}"),
    Row("Profile", "a profile's name", "{}", "{}",
        "3:18: metadata.name: 'projectcalico.org/default-allow' is not valid; use lower case letters, digits, "
        "'-' and '.', beginning and ending with a letter or digit", good_metadata="{name: kns.default}",
        bad_metadata="{name: projectcalico.org/default-allow}"),
    Row("GlobalNetworkSet", "a label's key", "{}", "{}",
        "3:30: metadata.labels.a/b/c: the part before '/' must be a DNS name, found 'a/b'",
        good_metadata="{name: x, labels: {a.b/C_d.e: f}}", bad_metadata="{name: x, labels: {a/b/c: d}}"),
    Row("GlobalNetworkSet", "the prefix of a label", "{}", "{}",
        "3:30: metadata.labels.A.b/c: the part before '/' must be a DNS name, found 'A.b'",
        good_metadata="{name: x, labels: {a-b.c/d: e}}", bad_metadata="{name: x, labels: {A.b/c: d}}"),
    Row("GlobalNetworkSet", "a label's value", "{}", "{}",
        "3:33: metadata.labels.a: expected a label value of 0..63 letters, digits, '-', '_', '.', found '-b'",
        good_metadata="{name: x, labels: {a: ''}}", bad_metadata="{name: x, labels: {a: -b}}"),
    Row("GlobalNetworkSet", "the length of a label's value", "{}", "{}",
        "3:33: metadata.labels.a: expected a label value of 0..63 letters, digits, '-', '_', '.', found '~60*a~'…",
        good_metadata="{name: x, labels: {a: ~63*a~}}", bad_metadata="{name: x, labels: {a: ~64*a~}}"),
    Row("GlobalNetworkSet", "a label that looks like a boolean", "{}", "{}",
        "3:33: metadata.labels.a: expected a string, found the boolean true; put it in quotes: 'on'",
        good_metadata="{name: x, labels: {a: 'on'}}", bad_metadata="{name: x, labels: {a: on}}"),
    Row("GlobalNetworkSet", "a label that looks like a number", "{}", "{}",
        "3:33: metadata.labels.a: expected a string, found the number 15; put it in quotes: '017'",
        good_metadata="{name: x, labels: {a: '017'}}", bad_metadata="{name: x, labels: {a: 017}}"),
    Row("NetworkSet", "Calico's own label", "{}", "{}",
        "3:59: metadata.labels.projectcalico.org/namespace: this label is Calico's own and cannot be set",
        good_metadata="{name: x, labels: {projectcalico.org/tier: a}}",
        bad_metadata="{name: x, labels: {projectcalico.org/namespace: a}}"),
    Row("GlobalNetworkSet", "an annotation's key", "{}", "{}",
        "3:35: metadata.annotations.a b: expected a key of 1..63 letters, digits, '-', '_', '.', found 'a b'",
        good_metadata="{name: x, annotations: {A.b/C: any text}}", bad_metadata="{name: x, annotations: {a b: c}}"),
    Row("NetworkSet", "a namespace", "{}", "{}",
        "3:32: metadata.namespace: 'Team' is not valid; use lower case letters, digits, '-' and '.', "
        "beginning and ending with a letter or digit", good_metadata="{name: x, namespace: team-a}",
        bad_metadata="{name: x, namespace: Team}"),
    Row("GlobalNetworkSet", "a namespace where there is none", "{}", "{}",
        "3:32: metadata.namespace: a GlobalNetworkSet belongs to no namespace; leave the field out",
        good_metadata="{name: x, namespace: }", bad_metadata="{name: x, namespace: a}"),
]  # fmt: skip

HOST_ENDPOINT = [
    Row("HostEndpoint", "node", "{node: a.b, interfaceName: eth0}", "{interfaceName: eth0}",
        "5:3: spec.node: this field is required and absent"),
    Row("HostEndpoint", "a node's name", "{node: a-b, interfaceName: eth0}", "{node: a_b, interfaceName: eth0}",
        "5:10: spec.node: 'a_b' is not valid; use lower case letters, digits, '-' and '.', beginning and "
        "ending with a letter or digit"),
    Row("HostEndpoint", "interface or addresses", "{node: a, expectedIPs: [10.0.0.1]}", "{node: a, expectedIPs: []}",
        "5:3: spec: needs interfaceName, expectedIPs or both; found neither"),
    Row("HostEndpoint", "interfaceName", "{node: a, interfaceName: '*'}", "{node: a, interfaceName: 'eth*'}",
        "5:28: spec.interfaceName: expected '*' or an interface name of 1..15 letters, digits, '_', '.', '-', "
        "found 'eth*'"),
    Row("HostEndpoint", "its length", "{node: a, interfaceName: abcdefghijklmno}",
        "{node: a, interfaceName: abcdefghijklmnop}",
        "5:28: spec.interfaceName: expected '*' or an interface name of 1..15 letters, digits, '_', '.', '-', "
        "found 'abcdefghijklmnop'"),
    Row("HostEndpoint", "expectedIPs", "{node: a, interfaceName: eth0, expectedIPs: ['fd00::1', 10.0.0.1]}",
        "{node: a, interfaceName: eth0, expectedIPs: [10.0.0.0/8]}",
        "5:48: spec.expectedIPs[0]: expected an IP address without mask, found '10.0.0.0/8'"),
    Row("HostEndpoint", "an address of three parts",
        "{node: a, interfaceName: eth0, expectedIPs: ['::ffff:10.0.0.1']}",
        "{node: a, interfaceName: eth0, expectedIPs: [10.0.1]}",
        "5:48: spec.expectedIPs[0]: expected an IP address, found '10.0.1'"),
    Row("HostEndpoint", "profiles",
        "{node: a, interfaceName: eth0, profiles: [kns.default, projectcalico-default-allow]}",
        "{node: a, interfaceName: eth0, profiles: [projectcalico.org/default-allow]}",
        "5:45: spec.profiles[0]: 'projectcalico.org/default-allow' is not valid; use lower case letters, "
        "digits, '-' and '.', beginning and ending with a letter or digit"),
    Row("HostEndpoint", "a port's name",
        "{node: a, interfaceName: eth0, ports: [{name: a-1, protocol: TCP, port: 1}]}",
        "{node: a, interfaceName: eth0, ports: [{name: a--1, protocol: TCP, port: 1}]}",
        "5:49: spec.ports[0].name: expected a port name of 1..15 lower case letters, digits and '-', found 'a--1'"),
    Row("HostEndpoint", "a port's protocol",
        "{node: a, interfaceName: eth0, ports: [{name: a, protocol: 132, port: 1}]}",
        "{node: a, interfaceName: eth0, ports: [{name: a, protocol: UDPLite, port: 1}]}",
        "5:62: spec.ports[0].protocol: this protocol has no ports; expected TCP, UDP or SCTP"),
    Row("HostEndpoint", "a port's number",
        "{node: a, interfaceName: eth0, ports: [{name: a, protocol: UDP, port: 65535}]}",
        "{node: a, interfaceName: eth0, ports: [{name: a, protocol: UDP, port: 65536}]}",
        "5:73: spec.ports[0].port: 65536 is outside 1..65535"),
]  # fmt: skip

NETWORK_SETS = [
    Row("GlobalNetworkSet", "a bare address", "{nets: [10.1.2.3, 'fd00::1']}", "{nets: [10.1.2]}",
        "5:11: spec.nets[0]: expected an IP address or CIDR, found '10.1.2'"),
    Row("GlobalNetworkSet", "host bits", "{nets: [10.1.2.3/8]}", "{nets: [10.1.2.3/33]}",
        "5:11: spec.nets[0]: expected a prefix length of 0..32, found '33' in '10.1.2.3/33'"),
    Row("GlobalNetworkSet", "both families", "{nets: [0.0.0.0/0, '::/0']}", "{nets: ['::/129']}",
        "5:11: spec.nets[0]: expected a prefix length of 0..128, found '129' in '::/129'"),
    Row("NetworkSet", "a net", "{nets: ['fd00::/8']}", "{nets: ['fd00::g/8']}",
        "5:11: spec.nets[0]: expected an IP address or CIDR, found 'fd00::g/8'"),
]  # fmt: skip

TIERS = [
    Row("Tier", "order", "{order: 0.5}", "{order: first}",
        "5:11: spec.order: expected a number, found the string 'first'"),
    Row("Tier", "defaultAction", "{defaultAction: Pass}", "{defaultAction: Log}",
        "5:19: spec.defaultAction: expected Deny or Pass, found 'Log'"),
    Row("Tier", "the default tier's order", "{order: 1e6}", "{order: 1}",
        "5:3: spec: the tier 'default' is reserved: its order is 1000000 and its defaultAction Deny",
        good_metadata="{name: default}", bad_metadata="{name: default}"),
    Row("Tier", "the default tier's action", "{defaultAction: Deny}", "{defaultAction: Pass}",
        "5:3: spec: the tier 'default' is reserved: its order is 1000000 and its defaultAction Deny",
        good_metadata="{name: default}", bad_metadata="{name: default}"),
    Row("Tier", "kube-admin", "{order: 1000, defaultAction: Pass}", "{}",
        "5:3: spec: the tier 'kube-admin' is reserved: its order is 1000 and its defaultAction Pass; write both, as "
        "absent ones are 1000000 and Deny in every tier",
        good_metadata="{name: kube-admin}", bad_metadata="{name: kube-admin}"),
    Row("Tier", "kube-baseline", "{order: 10000000, defaultAction: Pass}", "{order: 1000, defaultAction: Pass}",
        "5:3: spec: the tier 'kube-baseline' is reserved: its order is 10000000 and its defaultAction Pass",
        good_metadata="{name: kube-baseline}", bad_metadata="{name: kube-baseline}"),
]  # fmt: skip

PROFILES = [
    Row("Profile", "labelsToApply", "{labelsToApply: {pcns.projectcalico.org/name: default}}",
        "{labelsToApply: {a: b c}}",
        "5:23: spec.labelsToApply.a: expected a label value of 0..63 letters, digits, '-', '_', '.', found 'b c'"),
    Row("Profile", "its rules",
        "{ingress: [{action: Allow}], egress: [{action: Allow, source: {nets: [10.0.0.0/8]}}]}",
        "{egress: [{action: Allow, source: {nets: [10.0.0.1/8]}}]}",
        "5:45: spec.egress[0].source.nets[0]: host bits are set in '10.0.0.1/8'; expected 10.0.0.0/8"),
    Row("Profile", "services in either list", "{ingress: [{action: Allow, destination: {services: {name: a}}}]}",
        "{ingress: [{action: Allow, destination: {services: {namespace: a}}}]}",
        "5:54: spec.ingress[0].destination.services.name: this field is required and absent"),
    Row("Profile", "HTTP in either list", "{egress: [{action: Allow, http: {methods: [GET]}}]}",
        "{egress: [{action: Deny, http: {methods: [GET]}}]}",
        "5:34: spec.egress[0].http: is valid only in an Allow rule, found Deny"),
    Row("Profile", "its fields", "{}", "{labels: {}}",
        "5:4: spec.labels: unknown field; did you mean 'labelsToApply'?"),
]  # fmt: skip
