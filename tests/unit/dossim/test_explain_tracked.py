"""``dossim explain`` with tracked policy: the conntrack state and why, the rows of the chains, and sets of ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dossim.cli.explain import _print, explained, trace_as_dict
from dossim.cli.options import HostOptions
from dossim.packet.capture import FILE, Capture
from tests.unit.dossim.pipeline.tracked_support import tcp, udp

POLICY = """
kind: List
apiVersion: v1
items:
  - apiVersion: projectcalico.org/v3
    kind: HostEndpoint
    metadata: {name: h}
    spec: {node: jasper, interfaceName: eth0, expectedIPs: [10.10.10.10], profiles: [web]}
  - apiVersion: projectcalico.org/v3
    kind: Profile
    metadata: {name: web}
    spec:
      ingress:
        - {action: Allow, protocol: TCP, destination: {ports: [80]}}
        - {action: Allow, protocol: UDP, destination: {ports: [9]}}
  - apiVersion: projectcalico.org/v3
    kind: GlobalNetworkPolicy
    metadata: {name: early}
    spec:
      preDNAT: true
      applyOnForward: true
      ingress:
        - {action: Deny, protocol: TCP, destination: {ports: [8080]}}
"""


@pytest.fixture
def host(tmp_path: Path) -> HostOptions:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return HostOptions((path,), None, None, (), False, ("tcp/80",))


def text(host: HostOptions, packet: str, *, egress: bool = False) -> str:
    _, trace, assumed = explained(host, "raw", packet, FILE, egress=egress, tracked=True)
    console = Console(width=200)
    with console.capture() as capture:
        _print("a packet", trace, assumed, console)
    return capture.get()


def as_dict(host: HostOptions, packet: str) -> dict[str, Any]:
    _, trace, assumed = explained(host, "raw", packet, FILE, tracked=True)
    return trace_as_dict("a packet", trace, assumed)


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


def test_without_it_the_policies_are_only_named(host: HostOptions) -> None:
    _, trace, _ = explained(host, "raw", 'IP(src="203.0.113.9")/TCP(dport=8080)', FILE)
    assert str(trace.disposition) == "delivered"
    assert any("Calico would evaluate gnp/early here" in hop.note for hop in trace.hops)
