"""What a table after conntrack does with one flow, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from enforcer.policy.compile import Compiler
from enforcer.policy.evaluate import Flow, denied_by
from enforcer.policy.load import load_documents
from enforcer.policy.tracked import Hook, TrackedTable

LOCAL, REMOTE, OTHER = "10.0.0.1", "198.51.100.7", "203.0.113.9"
ALLOW, DENY = {"action": "Allow"}, {"action": "Deny"}
BAD = "bad == 'yes'"


def resource(kind: str, name: str, spec: Mapping[str, Any], **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name, "labels": labels},
        "spec": dict(spec),
    }


def policy(*ingress: Mapping[str, Any], name: str = "p", **spec: Any) -> dict[str, Any]:
    return resource("GlobalNetworkPolicy", name, {"selector": "all()", "ingress": list(ingress), **spec})


def table(*documents: Mapping[str, Any], profiles: Sequence[str] = ()) -> TrackedTable:
    endpoint = resource(
        "HostEndpoint",
        "hep",
        {
            "node": "jasper",
            "interfaceName": "eth0",
            "profiles": list(profiles),
            "expectedIPs": [LOCAL],
            "ports": [{"name": "web", "protocol": "TCP", "port": 80}],
        },
    )
    bad = resource("GlobalNetworkSet", "bad", {"nets": [f"{OTHER}/32"]}, bad="yes")
    resources = load_documents([endpoint, bad, *documents])
    found = Compiler().compile_tracked(resources, node="jasper", interface="eth0", addresses=[ip_address(LOCAL)])
    assert found is not None
    return found


def received(port: int, source: str = REMOTE, protocol: int = 6) -> Flow:
    return Flow(protocol, ip_address(source), 50000, ip_address(LOCAL), port)


def rule(action: str = "Allow", **spec: Any) -> dict[str, Any]:
    return {"action": action, "protocol": "TCP", **spec}


NO_PROFILE, DEFAULT = "no profile ingress", "tier/default ingress default"
ALLOW_ALL = resource("Profile", "open", {"ingress": [ALLOW], "egress": [ALLOW]})

ROWS: list[tuple[str, TrackedTable, Flow, str]] = [
    ("nothing allows", table(), received(80), NO_PROFILE),
    ("a failsafe", table(), received(22), ""),
    ("the port of a failsafe, of another protocol", table(), received(22, protocol=17), NO_PROFILE),
    ("a port", table(policy(rule(destination={"ports": [80]}))), received(80), ""),
    ("not that port", table(policy(rule(destination={"ports": [80]}))), received(81), DEFAULT),
    ("a range", table(policy(rule(destination={"ports": ["80:90"]}))), received(90), ""),
    ("all but a port", table(policy(rule(destination={"notPorts": [80]}))), received(80), DEFAULT),
    ("a named port", table(policy(rule(destination={"ports": ["web"]}))), received(80), ""),
    ("not the named port", table(policy(rule(destination={"ports": ["web"]}))), received(81), DEFAULT),
    ("another protocol", table(policy({"action": "Allow", "protocol": "UDP"})), received(80), DEFAULT),
    ("all but a protocol", table(policy({"action": "Allow", "notProtocol": "UDP"})), received(80), ""),
    ("a net", table(policy(rule(source={"nets": ["198.51.100.0/24"]}))), received(80), ""),
    ("all but a net", table(policy(rule(source={"notNets": ["198.51.100.0/24"]}))), received(80), DEFAULT),
    ("a net of IPv6", table(policy(rule(source={"nets": ["fd00::/8"]}))), received(80), DEFAULT),
    ("a set", table(policy(rule("Deny", source={"selector": BAD}), ALLOW)), received(80, OTHER), "gnp/p ingress[0]"),
    ("not in the set", table(policy(rule("Deny", source={"selector": BAD}), ALLOW)), received(80), ""),
    ("ICMP is no TCP", table(policy({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8}})), received(80),
     DEFAULT),
    ("Log decides nothing", table(policy(rule("Log"))), received(80), DEFAULT),
    ("Pass, to no profile", table(policy(rule("Pass"), DENY)), received(80), NO_PROFILE),
    ("Pass, to a profile", table(policy(rule("Pass"), DENY), ALLOW_ALL, profiles=["open"]), received(80), ""),
    ("a profile that is missing", table(profiles=["gone"]), received(80), "profile/gone ingress: no such profile"),
    ("preDNAT allows", table(policy(rule(), preDNAT=True, applyOnForward=True)), received(80), ""),
    ("preDNAT denies", table(policy(DENY, preDNAT=True, applyOnForward=True), ALLOW_ALL, profiles=["open"]),
     received(80), "gnp/p ingress[0]"),
    ("preDNAT does not match", table(policy(rule(destination={"ports": [81]}), preDNAT=True, applyOnForward=True)),
     received(80), NO_PROFILE),
]  # fmt: skip


@pytest.mark.parametrize(("found", "flow", "by"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_received(found: TrackedTable, flow: Flow, by: str) -> None:
    assert denied_by(found, Hook.INPUT, flow) == by


def test_sent() -> None:
    found = table(policy(ALLOW))
    answer = received(22).reversed()
    assert denied_by(found, Hook.OUTPUT, answer) == "no profile egress"  # failsafes go by the destination's port
    to_etcd = Flow(6, ip_address(LOCAL), 50000, ip_address(REMOTE), 2379)
    assert denied_by(found, Hook.OUTPUT, to_etcd) == ""


def test_forward_policy_does_not_decide_on_what_is_received() -> None:
    found = table(policy(rule(destination={"ports": [80]}), applyOnForward=True))
    assert denied_by(found, Hook.FORWARD_IN, received(81)) == DEFAULT
    assert denied_by(found, Hook.FORWARD_OUT, received(81)) == ""
