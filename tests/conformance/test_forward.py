"""Forwarded packets (``felix/fv/apply_on_forward_test.go``), for untracked policy: raw sees them as it sees others."""

from __future__ import annotations

import pytest

from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from tests.conformance.documents import DENY_LISTED, endpoint, network_set, policy
from tests.conformance.flows import Flow, assert_blocked, assert_reached
from tests.conformance.topology import Network

pytestmark = pytest.mark.needs_root

ENTRY = "gnp/xdpf ingress[0]"


@pytest.mark.parametrize("interface", ["eth0", "*"], ids=["named", "any"])
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_deny_hits_forwarded_packets_too(
    network: Network, choice: ModeChoice, stage: Stage, interface: str, family: int
) -> None:
    server, client, external = network.server, network.client, network.external
    behind = network.add_behind(server, "eth1", "behind")
    flows = [Flow(host, behind, "udp", family=family) for host in (client, external)]
    assert_reached(*flows)
    server.apply([endpoint(server, interface=interface), policy(DENY_LISTED), network_set(client.address(family))])
    assert_blocked(flows[0], by=ENTRY, at=stage, on=server)
    assert_reached(flows[1])
    # An answer to the host behind the gateway also comes from the denied source.
    assert_blocked(Flow(behind, client, "udp", family=family), by=ENTRY, at=stage, on=server)
    server.apply([endpoint(server, interface=interface)])
    assert_reached(*flows)


def test_egress_policy_is_for_what_the_host_sends_itself(network: Network) -> None:
    """Raw has no hook for outgoing forwarded packets: Calico applies egress untracked policy in OUTPUT only."""
    server, client = network.server, network.client
    behind = network.add_behind(server, "eth1", "behind")
    deny = [{"action": "Deny", "destination": {"nets": [f"{behind.address()}/32"]}}]
    server.apply([endpoint(server, interface="eth1"), policy(egress=deny)])
    assert_reached(Flow(client, behind, "udp"))
    assert_blocked(Flow(server, behind, "udp"), by="gnp/xdpf egress[0]", at=Stage.RAW, on=server)


def test_deny_of_another_interface_leaves_forwarded_packets_alone(network: Network) -> None:
    server, client = network.server, network.client
    behind = network.add_behind(server, "eth1", "behind")
    server.apply([endpoint(server, interface="eth1"), policy(DENY_LISTED), network_set(client.address())])
    assert_reached(Flow(client, behind, "udp"))


def test_policy_without_do_not_track_is_not_ours(network: Network) -> None:
    """Differs: applyOnForward without doNotTrack is normal policy in Calico; here it is reported as tracked."""
    server, client = network.server, network.client
    deny = policy(DENY_LISTED, doNotTrack=False)
    assert server.apply([endpoint(server), deny, network_set(client.address())]).changes == ()
    assert_reached(Flow(client, server))
