"""Calico's end-to-end tests of untracked policy (``e2e/pkg/tests/hostendpoints/hostendpoints.go``)."""

from __future__ import annotations

import pytest

from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from tests.conformance.documents import endpoint, felix, network_set, policy
from tests.conformance.flows import Flow, assert_blocked, assert_reached
from tests.conformance.topology import Document, Network

pytestmark = pytest.mark.needs_root

DENY_LIST = {"action": "Deny", "source": {"selector": "dos-deny-list == 'true'"}}


def mitigation(network: Network, *attackers: str) -> list[Document]:
    return [
        endpoint(network.server),
        felix(genericXDPEnabled=True),
        network_set(*attackers, name="dos-mitigation", labels={"dos-deny-list": "true"}),
        policy(DENY_LIST, name="dos-mitigation", selector="host-endpoint == 'true'", types=["Ingress"]),
    ]


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_dos_mitigation_closes_both_ports_to_the_attacker(
    network: Network, choice: ModeChoice, stage: Stage, family: int
) -> None:
    """As Calico's guide advises: the policy and an empty set in advance, the CIDRs once the attack begins."""
    server, client, external = network.server, network.client, network.external
    length = {4: 32, 6: 128}[family]
    attack = [Flow(external, server, "tcp", port, family=family) for port in (8055, 8056)]
    server.apply(mitigation(network))
    assert_reached(*attack)
    server.apply(mitigation(network, f"{external.address(family)}/{length}"))
    assert_blocked(*attack, by="gnp/dos-mitigation ingress[0]", at=stage)
    assert_reached(*(Flow(client, server, "tcp", port, family=family) for port in (8055, 8056)))
    server.apply(mitigation(network))
    assert_reached(*attack)


HEPPORT = {"name": "hepport", "protocol": "TCP", "port": 8055}


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_deny_of_a_named_port_closes_that_port_only(network: Network, family: int) -> None:
    server, client = network.server, network.client
    rule = {"action": "Deny", "protocol": "TCP", "destination": {"ports": ["hepport"]}}
    documents = [endpoint(server, ports=[HEPPORT]), policy(rule)]
    server.apply(documents)
    assert_blocked(Flow(client, server, "tcp", 8055, family=family), by="gnp/xdpf ingress[0]", at=Stage.DRIVER)
    assert_reached(
        Flow(client, server, "tcp", 8056, family=family),
        Flow(client, server, "udp", 8055, family=family),  # the name denotes a TCP port
    )
    server.apply([endpoint(server, ports=[{**HEPPORT, "port": 8056}]), policy(rule)])
    assert_blocked(Flow(client, server, "tcp", 8056, family=family), by="gnp/xdpf ingress[0]", at=Stage.DRIVER)
    assert_reached(Flow(client, server, "tcp", 8055, family=family))


def test_a_named_port_that_no_endpoint_has_closes_nothing(network: Network) -> None:
    server, client = network.server, network.client
    rule = {"action": "Deny", "protocol": "TCP", "destination": {"ports": ["hepport"]}}
    server.apply([endpoint(server), policy(rule)])
    assert_reached(Flow(client, server, "tcp", 8055))


def test_a_named_port_means_that_of_the_host_that_has_it(network: Network) -> None:
    """Two hosts give one name to different ports; for a packet to the server, the server's port counts."""
    server, client = network.server, network.client
    rule = {"action": "Deny", "protocol": "TCP", "destination": {"ports": ["hepport"]}}
    documents = [
        endpoint(server, ports=[HEPPORT]),
        endpoint(client, ports=[{**HEPPORT, "port": 8056}]),
        policy(rule, selector="all()"),
    ]
    for host in (server, client):
        host.apply(documents)
    assert_blocked(Flow(client, server, "tcp", 8055), by="gnp/xdpf ingress[0]", at=Stage.DRIVER)
    assert_blocked(Flow(server, client, "tcp", 8056), by="gnp/xdpf ingress[0]", at=Stage.DRIVER)
    assert_reached(Flow(client, server, "tcp", 8056), Flow(server, client, "tcp", 8055))
