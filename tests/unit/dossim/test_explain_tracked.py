"""``dossim explain`` with tracked policy: the conntrack state and why, the rows of the chains, and sets of ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dossim.cli.explain import explained
from dossim.cli.options import HostOptions
from dossim.cli.trace_view import explained_as_dict, print_explained
from dossim.packet.capture import FILE, Capture
from enforcer.model.errors import UnsupportedRuleError
from tests.unit.dossim.pipeline.tracked_support import tcp, udp

ENDPOINT = """
  - apiVersion: projectcalico.org/v3
    kind: HostEndpoint
    metadata: {name: h}
    spec: {node: jasper, interfaceName: eth0, expectedIPs: [10.10.10.10], profiles: [web]}"""
POLICY = f"""
kind: List
apiVersion: v1
items:{ENDPOINT}
  - apiVersion: projectcalico.org/v3
    kind: Profile
    metadata: {{name: web}}
    spec:
      ingress:
        - {{action: Allow, protocol: TCP, destination: {{ports: [80]}}}}
        - {{action: Allow, protocol: UDP, destination: {{ports: [9]}}}}
  - apiVersion: projectcalico.org/v3
    kind: GlobalNetworkPolicy
    metadata: {{name: early}}
    spec:
      preDNAT: true
      applyOnForward: true
      ingress:
        - {{action: Deny, protocol: TCP, destination: {{ports: [8080]}}}}
"""


@pytest.fixture
def host(tmp_path: Path) -> HostOptions:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return HostOptions((path,), None, None, (), False, ("tcp/80",), tracked="enforce")


@pytest.fixture
def modelled(host: HostOptions) -> HostOptions:
    """The same with ``--tracked model``, the default."""
    return replace(host, tracked="model")


def text(host: HostOptions, packet: str, *, egress: bool = False) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        print_explained(explained(host, "raw", packet, FILE, egress=egress), console)
    return capture.get()


def as_dict(host: HostOptions, packet: str) -> dict[str, Any]:
    return explained_as_dict(explained(host, "raw", packet, FILE))


def test_the_state_and_the_rows_are_printed_with_the_line_of_yaml(host: HostOptions) -> None:
    said = text(host, 'IP(src="203.0.113.9")/TCP(dport=8080)')
    assert "NEW: no entry" in said
    assert "M3d: gnp/early ingress[0] denies it" in said
    assert "dropped at mangle by gnp/early ingress[0] (blocked, as the policy says)" in said
    assert "policy.yaml:23" in said
    assert "- {action: Deny, protocol: TCP, destination: {ports: [8080]}}" in said


def test_what_a_profile_allows_names_its_line_too(host: HostOptions) -> None:
    said = text(host, 'IP(src="203.0.113.9")/TCP(dport=80)')
    assert "N8: profile/web ingress[0] allows it" in said
    assert "profile/web ingress[0]: " in said
    assert said.rstrip().endswith("- {action: Allow, protocol: TCP, destination: {ports: [80]}}")


def test_a_denial_without_a_rule_has_a_name(host: HostOptions) -> None:
    assert "dropped at filter-input by no profile ingress" in text(host, 'IP(src="203.0.113.9")/TCP(dport=81)')
    assert "dropped at egress by no profile egress" in text(host, 'IP(dst="203.0.113.9")/TCP(dport=81)', egress=True)


def test_a_packet_of_a_capture_is_explained_with_what_was_there_before(host: HostOptions, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    Capture.from_frames([udp(9), udp(10), tcp(0x02), tcp(0x10, seq=1_001, ack=5)]).write(path)
    assert as_dict(host, f"{path}#0")["fate"] == "delivered"
    assert as_dict(host, f"{path}#1")["entry"] == "no profile ingress"
    found = as_dict(host, f"{path}#3")
    assert (found["fate"], found["stage"]) == ("delivered", None)
    assert [(other["fate"], other["stage"], other["entry"]) for other in found["others"]] == [
        ("dropped", "mangle", "conntrack INVALID ingress")
    ]
    assert found["depends"] == "the initial sequence number that the host chose for this connection"
    assert "delivered or dropped at mangle" in text(host, f"{path}#3")


# -- model, the default: not enforced ----------------------------------------------------------------------------------


def test_what_calico_would_drop_is_delivered_and_said(modelled: HostOptions) -> None:
    said = text(modelled, 'IP(src="203.0.113.9")/TCP(dport=8080)')
    delivered, not_enforced, rule, source = said.rstrip().splitlines()[-4:]
    assert delivered == "delivered"
    assert not_enforced == (
        "not enforced here (tracked: model): with Calico it would be dropped at mangle by gnp/early ingress[0]"
    )
    assert rule.startswith("  gnp/early ingress[0]: ")
    assert "policy.yaml:23" in rule
    assert "- {action: Deny, protocol: TCP, destination: {ports: [8080]}}" in source
    assert "Calico: M3d: gnp/early ingress[0] denies it" in said


def test_what_calico_would_let_in_ends_alike(modelled: HostOptions) -> None:
    said = text(modelled, 'IP(src="203.0.113.9")/TCP(dport=80)')
    assert said.rstrip().splitlines()[-1] == "delivered"
    assert "Calico: N8: profile/web ingress[0] allows it" in said


def test_what_the_host_sends_is_said_too(modelled: HostOptions) -> None:
    said = text(modelled, 'IP(dst="203.0.113.9")/TCP(dport=81)', egress=True).rstrip().splitlines()
    assert said[-2:] == [
        "sent",
        "not enforced here (tracked: model): with Calico it would be dropped at egress by no profile egress",
    ]


def test_json_has_both_ends(modelled: HostOptions, host: HostOptions) -> None:
    found = as_dict(modelled, 'IP(src="203.0.113.9")/TCP(dport=81)')
    assert (found["fate"], found["stage"], found["entry"]) == ("delivered", None, None)
    calico = found["calico"]
    assert (calico["fate"], calico["stage"], calico["entry"]) == ("dropped", "filter-input", "no profile ingress")
    assert calico["hops"][-2]["stage"] == "filter-input"
    assert as_dict(host, 'IP(src="203.0.113.9")/TCP(dport=81)')["calico"] is None


def test_the_packets_before_count_for_calico_alone(modelled: HostOptions, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    Capture.from_frames([udp(9), tcp(0x02), tcp(0x10, seq=1_001, ack=5)]).write(path)
    found = as_dict(modelled, f"{path}#2")
    assert (found["fate"], found["others"]) == ("delivered", [])
    assert [(other["stage"], other["entry"]) for other in found["calico"]["others"]] == [
        ("mangle", "conntrack INVALID ingress")
    ]


def test_a_rule_that_nobody_can_evaluate_is_named(modelled: HostOptions, host: HostOptions) -> None:
    (path,) = modelled.policy
    path.write_text(
        POLICY.replace("{action: Deny, protocol: TCP", "{action: Allow, http: {methods: [GET]}, protocol: TCP")
    )
    found = as_dict(modelled, 'IP(src="203.0.113.9")/TCP(dport=8080)')
    assert found["fate"] == "delivered"
    assert "gnp/early ingress[0]" in found["calico"]["why_not"]
    assert "what Calico would do is unknown: " in text(modelled, 'IP(src="203.0.113.9")/TCP(dport=8080)')
    with pytest.raises(UnsupportedRuleError):
        explained(host, "raw", 'IP(src="203.0.113.9")/TCP(dport=8080)', FILE)


def test_where_no_host_endpoint_governs_there_is_nothing_to_say(modelled: HostOptions) -> None:
    (path,) = modelled.policy
    path.write_text(POLICY.replace(ENDPOINT, ""))
    elsewhere = replace(modelled, address=("10.10.10.10/24",))
    assert as_dict(elsewhere, 'IP(src="203.0.113.9")/TCP(dport=8080)')["calico"] is None
