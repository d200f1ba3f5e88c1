"""Calico's doNotTrack test (``felix/fv/donottrack_test.go``): Allow in both directions, untracked, on two hosts.

What Calico blocks without policy is blocked here by a foreign firewall with Calico's default failsafe ports.
"""

from __future__ import annotations

import pytest

from enforcer.model.vocabulary import Stage
from tests.conformance.documents import Rule, endpoint, policy
from tests.conformance.firewall import chains_of_ours, close, drop_in_mangle, tracked_connections
from tests.conformance.flows import Flow, assert_blocked, assert_reached, assert_silent
from tests.conformance.topology import Document, Host, Network

pytestmark = pytest.mark.needs_root

PLAIN, FAILSAFE, SSH = 8055, 2379, 22  # closed; failsafe in and out; failsafe in only


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def peer(host: Host) -> Rule:
    return {"selector": f"role == '{host.name}'"}


def untracked(host: Host, other: Host, *, ingress: Rule | None = None, egress: bool = True) -> Document:
    """Allow from and to the other host; optionally with another ingress rule, or without egress."""
    rule = ingress or {"action": "Allow", "source": peer(other)}
    out = [{"action": "Allow", "destination": peer(other)}] if egress else []
    return policy(rule, name=f"{host.name}-1", selector=f"role == '{host.name}'", egress=out)


@pytest.fixture
def closed(network: Network) -> Network:
    """Both hosts have HostEndpoints and nothing but failsafes is open."""
    for host in (network.server, network.client):
        close(host, inbound=(SSH, FAILSAFE), outbound=(FAILSAFE,))
    return network


def enforce(network: Network, *policies: Document) -> None:
    endpoints = [endpoint(network.server), endpoint(network.client)]
    for host in (network.server, network.client):
        host.apply([*endpoints, *policies])


def both_ways(network: Network, port: int, family: int, protocol: str = "tcp") -> list[Flow]:
    one, other = network.server, network.client
    return [Flow(one, other, protocol, port, family=family), Flow(other, one, protocol, port, family=family)]


def test_1_without_host_endpoints_everything_is_open(network: Network, family: int) -> None:
    for port in (PLAIN, FAILSAFE, SSH):
        assert_reached(*both_ways(network, port, family))
    assert_reached(Flow(network.external, network.server, "tcp", SSH, family=family))


def test_2_host_endpoints_leave_only_failsafes(closed: Network, family: int) -> None:
    assert_reached(*both_ways(closed, FAILSAFE, family))
    assert_reached(Flow(closed.external, closed.server, "tcp", SSH, family=family))
    assert_silent(*both_ways(closed, PLAIN, family), *both_ways(closed, SSH, family))


def test_3_allow_in_both_directions_opens_everything_untracked(closed: Network, family: int) -> None:
    one, other = closed.server, closed.client
    enforce(closed, untracked(one, other), untracked(other, one))
    for protocol in ("tcp", "udp"):
        assert_reached(*both_ways(closed, PLAIN, family, protocol))
    assert tracked_connections(one) == tracked_connections(other) == 0
    assert_reached(*both_ways(closed, SSH, family), *both_ways(closed, FAILSAFE, family))
    assert tracked_connections(one) > 0  # failsafes stay tracked
    assert_reached(Flow(closed.external, one, "tcp", SSH, family=family))


def assert_one_direction_is_no_connection(closed: Network, family: int) -> None:
    one, other = closed.server, closed.client
    assert_silent(*both_ways(closed, PLAIN, family), Flow(one, other, "tcp", SSH, family=family))
    assert_reached(*both_ways(closed, FAILSAFE, family), Flow(other, one, "tcp", SSH, family=family))


def test_4_5_without_egress_of_one_host_both_directions_end_and_come_back(closed: Network, family: int) -> None:
    """Nothing is tracked, so the answer needs its own Allow."""
    one, other = closed.server, closed.client
    enforce(closed, untracked(one, other, egress=False), untracked(other, one))
    assert_one_direction_is_no_connection(closed, family)
    enforce(closed, untracked(one, other), untracked(other, one))
    for port in (PLAIN, FAILSAFE, SSH):
        assert_reached(*both_ways(closed, port, family))


def test_6_deny_in_the_place_of_allow_ends_both_directions(closed: Network, family: int) -> None:
    one, other = closed.server, closed.client
    deny = {"action": "Deny", "destination": peer(one)}
    enforce(closed, untracked(one, other, ingress=deny), untracked(other, one))
    assert_one_direction_is_no_connection(closed, family)
    flow = Flow(other, one, "tcp", PLAIN, family=family)
    assert_blocked(flow, by="gnp/server-1 ingress[0]", at=Stage.DRIVER)


def test_one_direction_alone_drops_nothing_by_itself(network: Network, family: int) -> None:
    """Differs: in Calico, the normal policy after it denies. Here, without a firewall, the answer passes, tracked.

    (Calico's nftables mode had a defect with policies of one direction: its PR #10704.)
    """
    one, other = network.server, network.client
    enforce(network, untracked(one, other, egress=False))
    for protocol in ("tcp", "udp"):
        assert_reached(*both_ways(network, PLAIN, family, protocol))


def test_an_allowed_packet_survives_a_closed_firewall_after_raw(network: Network, family: int) -> None:
    """The accept mark is honoured in mangle PREROUTING and in filter INPUT and OUTPUT."""
    one, other = network.server, network.client
    drop_in_mangle(one)
    close(one)
    flows = [Flow(other, one, protocol, family=family) for protocol in ("tcp", "udp", "icmp", 254)]
    assert_silent(*flows)
    one.apply([endpoint(one), endpoint(other), untracked(one, other)])
    assert_reached(*flows)
    assert_silent(Flow(network.external, one, "tcp", family=family))
    one.detach()
    assert_silent(*flows)
    assert chains_of_ours(one) == []


def test_a_pass_is_no_allow(network: Network, family: int) -> None:
    """The firewall decides on a packet that untracked policy passes."""
    one, other = network.server, network.client
    close(one)
    passed = {"action": "Pass", "source": peer(other)}
    one.apply([endpoint(one), endpoint(other), untracked(one, other, ingress=passed)])
    assert_silent(Flow(other, one, "udp", family=family))


def test_egress_deny_drops_what_the_host_sends(network: Network, family: int) -> None:
    one, other = network.server, network.client
    deny = [{"action": "Deny", "protocol": "UDP", "destination": peer(other)}]
    one.apply([endpoint(one), endpoint(other), policy(egress=deny)])
    assert_blocked(Flow(one, other, "udp", family=family), by="gnp/xdpf egress[0]", at=Stage.RAW, on=one)
    assert_reached(Flow(one, other, "tcp", family=family))
