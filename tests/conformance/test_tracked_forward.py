"""applyOnForward and preDNAT policy, enforced (``felix/fv/apply_on_forward_test.go``, ``pre_dnat_test.go``)."""

from __future__ import annotations

import pytest

from enforcer.model.vocabulary import Stage
from tests.conformance.documents import allow_all, endpoint, tracked
from tests.conformance.flows import Flow, assert_blocked, assert_reached, assert_silent, connection
from tests.conformance.topology import Host, Network
from tests.conformance.tracked_support import ALLOW, DENY, NO_PROFILE_IN, tcp

pytestmark = pytest.mark.needs_root

PRE_DNAT = {"preDNAT": True, "applyOnForward": True}


def test_10_13_42_other_policy_leaves_forwarded_packets_alone(tracked_network: Network, interface: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    inner = tracked_network.add_behind(server, "eth1", "behind")
    deny = tracked(DENY, egress=[DENY], types=["Ingress", "Egress"])
    server.apply([endpoint(server, interface=interface), deny])
    assert_reached(Flow(client, inner, "tcp"), Flow(inner, client, "udp"))
    assert_blocked(Flow(client, server, "tcp"), by="gnp/normal ingress[0]", at=Stage.FILTER_INPUT)


def test_14_policy_for_forwarding_decides_on_forwarded_packets(tracked_network: Network) -> None:
    server, client, external = tracked_network.server, tracked_network.client, tracked_network.external
    inner = tracked_network.add_behind(server, "eth1", "behind")
    rule = {"action": "Allow", "source": {"nets": [f"{client.address()}/32"]}}
    server.apply([endpoint(server), tracked(rule, name="fw", applyOnForward=True, types=["Ingress"])])
    assert_reached(Flow(client, inner, "tcp"))
    by = "tier/default ingress default"
    assert_blocked(Flow(external, inner, "tcp"), by=by, at=Stage.FILTER_FORWARD, on=server)
    deny = tracked(name="fw", applyOnForward=True, egress=[DENY], types=["Egress"])
    server.apply([endpoint(server), deny])
    assert_blocked(Flow(inner, client, "tcp"), by="gnp/fw egress[0]", at=Stage.FILTER_FORWARD, on=server)
    assert_reached(Flow(client, inner, "tcp"))


def test_44_any_interface_and_forwarding(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    inner = tracked_network.add_behind(server, "eth1", "behind")
    deny = tracked(DENY, name="fw", applyOnForward=True, types=["Ingress"])
    server.apply([endpoint(server, interface="*"), deny])
    for flow in (Flow(client, inner, "tcp"), Flow(inner, client, "udp")):
        assert_blocked(flow, by="gnp/fw ingress[0]", at=Stage.FILTER_FORWARD, on=server)


def test_60_the_host_may_drop_what_forward_policy_allows(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    inner = tracked_network.add_behind(server, "eth1", "behind")
    server.run("iptables-legacy", "-w", "-P", "FORWARD", "DROP")
    server.apply([endpoint(server), tracked(ALLOW, name="fw", applyOnForward=True, types=["Ingress"])])
    assert_silent(Flow(client, inner, "tcp"))
    server.run("iptables-legacy", "-w", "-P", "FORWARD", "ACCEPT")
    assert_reached(Flow(client, inner, "tcp"))


# --- preDNAT ----------------------------------------------------------------------------------------------------------


def redirect(host: Host, port: int, to: int) -> None:
    """The host's own DNAT of a TCP port to another of its ports."""
    rule = ("-A", "PREROUTING", "-p", "tcp", "--dport", str(port), "-j", "REDIRECT", "--to-ports", str(to))
    host.run("iptables-legacy", "-w", "-t", "nat", *rule)


def test_30_35_pre_dnat_policy_sees_the_port_before_dnat(tracked_network: Network, interface: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    for port in (32010, 32011):
        redirect(server, port, 8055)
    open_host = [endpoint(server, interface=interface, profiles=["allow-all"]), allow_all()]
    server.apply(open_host)
    first, second = Flow(client, server, "tcp", 32010), Flow(client, server, "tcp", 32011)
    assert_reached(first, second)
    deny = tracked(DENY, name="deny", order=20, **PRE_DNAT)
    server.apply([*open_host, deny])
    assert_blocked(first, second, by="gnp/deny ingress[0]", at=Stage.MANGLE)
    server.apply([*open_host, deny, tracked(tcp(32010), name="allow", order=10, **PRE_DNAT)])
    assert_reached(first)
    assert_blocked(second, by="gnp/deny ingress[0]", at=Stage.MANGLE)
    server.apply([*open_host, deny, tracked(tcp(8055), name="allow", order=10, **PRE_DNAT)])
    assert_blocked(first, second, by="gnp/deny ingress[0]", at=Stage.MANGLE)


def test_38_41_a_pre_dnat_allow_opens_a_port_without_normal_policy(tracked_network: Network, interface: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    flow = Flow(client, server, "tcp", 8055)
    assert_reached(flow)
    server.apply([endpoint(server, interface=interface)])
    assert_blocked(flow, by=NO_PROFILE_IN, at=Stage.FILTER_INPUT)
    server.apply([endpoint(server, interface=interface), tracked(tcp(8056), name="allow", **PRE_DNAT)])
    assert_blocked(flow, by=NO_PROFILE_IN, at=Stage.FILTER_INPUT)  # no match is no Deny
    server.apply([endpoint(server, interface=interface), tracked(tcp(8055), name="allow", **PRE_DNAT)])
    assert_reached(flow)


def test_59_pre_dnat_deny_leaves_an_open_connection_alone(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    open_host = [endpoint(server, profiles=["allow-all"]), allow_all()]
    server.apply(open_host)
    with connection(Flow(client, server, "tcp", 8055)) as talk:
        assert talk(b"before")
        server.apply([*open_host, tracked(DENY, name="deny", **PRE_DNAT)])
        assert talk(b"after")
        assert_blocked(Flow(client, server, "tcp", 8055), by="gnp/deny ingress[0]", at=Stage.MANGLE)


# --- what the host itself decides -------------------------------------------------------------------------------------


def test_29_without_ip_forward_nothing_is_forwarded(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    inner = tracked_network.add_behind(server, "eth1", "behind")
    everything = tracked(ALLOW, name="fw", applyOnForward=True, types=["Ingress", "Egress"], egress=[ALLOW])
    server.apply([endpoint(server), everything])
    assert_reached(Flow(client, inner, "tcp"))
    server.sysctl("net/ipv4/ip_forward", "0")
    assert_silent(Flow(client, inner, "tcp"))
    assert_reached(Flow(client, server, "tcp"))


@pytest.mark.parametrize("policy", ["DROP", "ACCEPT"])
def test_48_without_forward_policy_the_host_decides(tracked_network: Network, policy: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    inner = tracked_network.add_behind(server, "eth1", "behind")
    server.run("iptables-legacy", "-w", "-P", "FORWARD", policy)
    server.apply([endpoint(server)])
    (assert_reached if policy == "ACCEPT" else assert_silent)(Flow(client, inner, "tcp"))


def test_43_other_policy_of_named_and_any_endpoints_leaves_forwarded_packets_alone(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    inner = tracked_network.add_behind(server, "eth1", "behind")
    endpoints = [endpoint(server), endpoint(server, interface="*", name="any")]
    server.apply([*endpoints, tracked(DENY, egress=[DENY], types=["Ingress", "Egress"])])
    assert_reached(Flow(client, inner, "tcp"), Flow(inner, client, "udp"))
