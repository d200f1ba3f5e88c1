"""Rules: which fields can be combined, which cannot, and the parsed values."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from enforcer.model.vocabulary import Action
from enforcer.policy.resources import IcmpMatch, NamedPort, PortRange
from tests.unit.enforcer.policy.documents import faults, policy_text, rule

MANY = "10.0.0.0/8," * 257
SERVICE = "services: {name: a, namespace: b}"

# case, rule, direction, field below the rule, message
REFUSED: list[tuple[str, str, str, str, str]] = [
    ("no action", "{protocol: TCP}", "ingress", "action", "required and absent"),
    ("an action in lower case", "{action: deny}", "ingress", "action", "did you mean 'Deny'?"),
    ("an unknown field", "{action: Deny, protocoll: TCP}", "ingress", "protocoll", "did you mean 'protocol'?"),
    ("IP version 5", "{action: Deny, ipVersion: 5}", "ingress", "ipVersion", "expected 4 or 6, found 5"),
    ("a quoted IP version", "{action: Deny, ipVersion: '4'}", "ingress", "ipVersion", "whole number"),
    ("a protocol in lower case", "{action: Deny, protocol: udp}", "ingress", "protocol", "did you mean 'UDP'?"),
    ("protocol 0", "{action: Deny, protocol: 0}", "ingress", "protocol", "outside 1..255"),
    ("protocol 256", "{action: Deny, notProtocol: '256'}", "ingress", "notProtocol", "outside 1..255"),
    ("ICMP type 255", "{action: Deny, protocol: ICMP, icmp: {type: 255}}", "ingress", "icmp.type", "outside 0..254"),
    ("ICMP code 256", "{action: Deny, protocol: ICMP, icmp: {type: 3, code: 256}}", "ingress", "icmp.code", "0..255"),
    ("ICMP code without type", "{action: Deny, protocol: ICMP, notICMP: {code: 3}}", "ingress", "notICMP.code",
     "needs a type"),
    ("icmp without protocol", "{action: Deny, icmp: {type: 8}}", "ingress", "icmp", "needs protocol: ICMP"),
    ("icmp with a protocol in quotes", "{action: Deny, protocol: '1', icmp: {type: 8}}", "ingress", "icmp",
     "needs protocol"),
    ("ICMP in IPv6", "{action: Deny, protocol: ICMP, ipVersion: 6}", "ingress", "ipVersion",
     "of IP version 4, found 6"),
    ("ICMPv6 in IPv4", "{action: Deny, notProtocol: ICMPv6, ipVersion: 4}", "ingress", "ipVersion", "of IP version 6"),
    ("http and Deny", "{action: Deny, http: {methods: [GET]}}", "ingress", "http", "only in an Allow rule"),
    ("http and UDP", "{action: Allow, protocol: UDP, http: {}}", "ingress", "http", "needs protocol: TCP"),
    ("http and egress", "{action: Allow, http: {}}", "egress", "http", "not valid in an egress rule"),
    ("a path both ways", "{action: Allow, http: {paths: [{exact: /a, prefix: /b}]}}", "ingress", "http.paths[0]",
     "found both"),
    ("a path with a query", "{action: Allow, http: {paths: [{exact: '/a?b'}]}}", "ingress", "http.paths[0].exact",
     "without"),
    ("a number port without protocol", "{action: Deny, source: {ports: [53]}}", "ingress", "source.ports",
     "needs protocol"),
    ("ports and ICMP", "{action: Deny, protocol: ICMP, destination: {notPorts: ['1:2']}}", "ingress",
     "destination.notPorts", "needs protocol"),
    ("ports and UDPLite", "{action: Deny, protocol: UDPLite, source: {ports: [1]}}", "ingress", "source.ports",
     "needs protocol"),
    ("port 65536", "{action: Deny, protocol: TCP, source: {ports: [65536]}}", "ingress", "source.ports[0]", "1..65535"),
    ("a range from 0", "{action: Deny, protocol: TCP, source: {ports: ['0:5']}}", "ingress", "source.ports[0]",
     "1..65535"),
    ("a range backwards", "{action: Deny, protocol: TCP, source: {ports: ['9:5']}}", "ingress", "source.ports[0]",
     "'5:9'"),
    ("half a range", "{action: Deny, protocol: TCP, source: {ports: ['9:']}}", "ingress", "source.ports[0]",
     "'first:last'"),
    ("51 ports", "{action: Deny, protocol: TCP, source: {ports: [" + "1," * 51 + "]}}", "ingress", "source.ports",
     "most 50"),
    ("a bare address", "{action: Deny, source: {nets: [10.0.0.1]}}", "ingress", "source.nets[0]", "10.0.0.1/32"),
    ("host bits", "{action: Deny, source: {nets: [10.0.0.1/24]}}", "ingress", "source.nets[0]", "expected 10.0.0.0/24"),
    ("257 nets", "{action: Deny, source: {nets: [" + MANY + "]}}", "ingress", "source.nets", "most 256"),
    ("everything negated", "{action: Deny, source: {notNets: [0.0.0.0/0]}}", "ingress", "source.notNets[0]",
     "matches nothing"),
    ("both families in a list", "{action: Deny, source: {nets: [10.0.0.0/8, '::/0']}}", "ingress", "source.nets",
     "two rules"),
    ("both families over sides", "{action: Deny, source: {nets: [10.0.0.0/8]}, destination: {notNets: ['1::/16']}}",
     "ingress", "destination.notNets", "other nets of the rule are of version 4"),
    ("nets against ipVersion", "{action: Deny, ipVersion: 6, source: {nets: [10.0.0.0/8]}}", "ingress", "source.nets",
     "ipVersion is 6"),
    ("global() in selector", "{action: Deny, source: {selector: global()}}", "ingress", "source.selector",
     "only in the"),
    ("global() in notSelector", "{action: Deny, source: {notSelector: global()}}", "ingress", "source.notSelector",
     "only in"),
    ("global() with more", "{action: Deny, source: {namespaceSelector: 'global() || a == \"b\"'}}", "ingress",
     "source.namespaceSelector", "cannot be combined"),
    ("services with nets", "{action: Allow, source: {%s, nets: [10.0.0.0/8]}}".replace("%s", SERVICE), "ingress",
     "source.nets", "with services"),
    ("services with a selector", "{action: Allow, source: {%s, selector: all()}}".replace("%s", SERVICE), "ingress",
     "source.selector",
     "cannot be used with services"),
    ("services without name", "{action: Allow, source: {services: {namespace: b}}}", "ingress", "source.services.name",
     "required"),
    ("services without namespace", "{action: Allow, source: {services: {name: a}}}", "ingress", "source.services",
     "needs a namespace"),
    ("services as ingress destination", "{action: Allow, destination: {%s}}".replace("%s", SERVICE), "ingress",
     "destination.services",
     "only in the source"),
    ("services as egress source", "{action: Allow, source: {%s}}".replace("%s", SERVICE), "egress", "source.services",
     "the destination"),
    ("services with ports", "{action: Allow, protocol: TCP, destination: {%s, ports: [80]}}".replace("%s", SERVICE),
     "egress",
     "destination.ports", "bring their own ports"),
    ("21 methods", "{action: Allow, http: {methods: [%s]}}".replace("%s", ",".join(f"M{i}" for i in range(21))),
     "ingress", "http.methods", "most 20"),
    ("a string for a rule", "Deny", "ingress", "", "expected a mapping, found the string 'Deny'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "direction", "field", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_calico_refuses(text: str, direction: str, field: str, message: str) -> None:
    ((where, said),) = faults(policy_text(text, direction))
    assert where == f"spec.{direction}[0].{field}".rstrip(".")
    assert message in said


# Case, rule, the fields that are named.
SEVERAL: list[tuple[str, str, list[str]]] = [
    ("a faulty port hides nothing", "{action: Deny, destination: {ports: [99999]}}",
     ["destination.ports[0]", "destination.ports"]),
    ("a faulty range hides nothing", "{action: Deny, destination: {ports: [http, 30000-32767]}}",
     ["destination.ports[1]", "destination.ports"]),
    ("a faulty name is no number", "{action: Deny, destination: {ports: [HTTP, 8080-tcp]}}", ["destination.ports[0]"]),
    ("a faulty name with ICMP", "{action: Deny, protocol: ICMP, destination: {ports: [HTTP]}}",
     ["destination.ports[0]", "destination.ports"]),
    ("a faulty port with services", "{action: Allow, destination: {%s, ports: [0]}}".replace("%s", SERVICE),
     ["destination.ports[0]", "destination.ports", "destination.ports"]),
    ("a misspelt protocol is there all the same", "{action: Deny, protocol: tcp, source: {ports: [53]}}", ["protocol"]),
    ("so is that of ICMP", "{action: Deny, protocol: icmp, icmp: {type: 8}}", ["protocol"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fields"), [row[1:] for row in SEVERAL], ids=[row[0] for row in SEVERAL])
def test_every_finding_of_a_rule_and_no_other(text: str, fields: list[str]) -> None:
    direction = "egress" if "services" in text else "ingress"
    found = [where.removeprefix(f"spec.{direction}[0].") for where, _ in faults(policy_text(text, direction))]
    assert sorted(found) == sorted(fields)


ACCEPTED = [
    ("icmp with protocol 58 by number", "{action: Deny, protocol: 58, icmp: {type: 8}}"),
    ("ICMP by name and nets of IPv6", "{action: Deny, protocol: ICMP, source: {nets: ['fd00::/8']}}"),
    ("HTTP with protocol 6 by number", "{action: Allow, protocol: 6, http: {}}"),
    ("named ports without protocol", "{action: Deny, source: {ports: [http], notPorts: [a-b-c]}}"),
    ("ports with a protocol by number", "{action: Deny, protocol: 132, source: {ports: [1]}}"),
    ("host bits in no net", "{action: Deny, source: {nets: [10.0.0.0/24, 10.0.0.1/32]}}"),
    ("everything", "{action: Deny, source: {nets: [0.0.0.0/0]}}"),
    ("all but half", "{action: Deny, source: {notNets: [0.0.0.0/1]}}"),
    ("global() alone with blanks", "{action: Deny, source: {namespaceSelector: ' global( ) '}}"),
    ("ICMPv6 of version 6", "{action: Deny, protocol: ICMPv6, ipVersion: 6, icmp: {type: 254, code: 255}}"),
    ("an empty icmp", "{action: Deny, protocol: ICMP, icmp: {}}"),
    ("http", "{action: Allow, protocol: TCP, http: {methods: [GET], paths: [{prefix: /a}]}}"),
    ("services", "{action: Allow, source: {services: {name: a, namespace: b}}}"),
    (
        "service accounts of any name",
        "{action: Allow, source: {serviceAccounts: {names: [Default_SA], selector: global()}}}",
    ),
    ("service accounts", "{action: Allow, source: {serviceAccounts: {names: [a], selector: has(b)}}}"),
    ("annotations", "{action: Deny, metadata: {annotations: {a/B: 'any text'}}}"),
]


@pytest.mark.parametrize("text", [row[1] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_calico_accepts(text: str) -> None:
    assert rule(text)


def test_a_rule_is_read_whole() -> None:
    found = rule("""{action: Log, ipVersion: 4, protocol: TCP, notProtocol: '17', notICMP: ,
        source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16], selector: has(a), notSelector: has(b),
         namespaceSelector: all()},
        destination: {ports: [80, '443', '1000:2000', http, 1e3, 0x10], notPorts: ['5:5']}}""")
    assert (found.action, found.ip_version, found.protocol, found.not_protocol) == (Action.LOG, 4, 6, 17)
    assert found.source.nets == (ip_network("10.0.0.0/8"),)
    assert found.source.not_nets == (ip_network("10.1.0.0/16"),)
    assert (found.source.selector, found.source.not_selector) == ("has(a)", "has(b)")
    assert found.source.namespace_selector == "all()"
    assert found.destination.ports == (
        PortRange(80, 80),
        PortRange(443, 443),
        PortRange(1000, 2000),
        NamedPort("http"),
        PortRange(1000, 1000),
        PortRange(16, 16),
    )
    assert found.destination.not_ports == (PortRange(5, 5),)
    assert (found.position.line, found.position.column) == (6, 5)


def test_leading_zeros_and_numbers_without_end_are_read_as_decimal_numbers() -> None:
    found = rule("{action: Deny, protocol: '0000000017', source: {ports: ['0000000010', '0000000080:0000000443']}}")
    assert found.protocol == 17
    assert found.source.ports == (PortRange(10, 10), PortRange(80, 443))
    for text in ("9" * 5000, "1" + "0" * 12):
        ((_, message),) = faults(policy_text(f"{{action: Deny, protocol: TCP, destination: {{ports: ['{text}']}}}}"))
        assert message.endswith("is outside 1..65535")
        ((_, message),) = faults(policy_text(f"{{action: Deny, protocol: '{text}'}}"))
        assert message.endswith("is outside 1..255")


def test_icmp_is_read() -> None:
    found = rule("{action: Deny, protocol: ICMP, icmp: {type: 3, code: 0}, notICMP: {type: 8}}")
    assert (found.icmp, found.not_icmp) == (IcmpMatch(3, 0), IcmpMatch(8))


def test_a_blank_selector_is_one_and_means_all() -> None:
    assert rule("{action: Deny, source: {selector: ' ', notSelector: ''}}").source.selector == "all()"
    assert rule("{action: Deny, source: {selector: ''}}").source.selector == ""
