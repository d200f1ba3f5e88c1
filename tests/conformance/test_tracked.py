"""Normal policy and profiles of hosts, enforced by both backends (``felix/fv/hostendpoints_test.go`` and others).

Rows are numbered as in docs/conformance.md.
"""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from enforcer.model.vocabulary import Stage
from tests.conformance.documents import allow_all, endpoint, felix, tier, tracked
from tests.conformance.flows import (
    DEADLINE_S,
    Flow,
    assert_blocked,
    assert_reached,
    assert_silent,
    connection,
    wait_until,
)
from tests.conformance.topology import Host, Network
from tests.conformance.tracked_support import ALLOW, DENY, NO_PROFILE_IN, NO_PROFILE_OUT, tcp

pytestmark = pytest.mark.needs_root


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_1_a_host_endpoint_alone_closes_the_host(tracked_network: Network, interface: str, family: int) -> None:
    server, client = tracked_network.server, tracked_network.client
    server.apply([endpoint(server, interface=interface)])
    for protocol in (253, 254, "udp", "tcp"):
        assert_blocked(Flow(client, server, protocol, family=family), by=NO_PROFILE_IN, at=Stage.FILTER_INPUT)
        assert_blocked(Flow(server, client, protocol, family=family), by=NO_PROFILE_OUT, at=Stage.EGRESS, on=server)


def test_2_3_failsafes_stay_open(tracked_network: Network, interface: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    server.apply([endpoint(server, interface=interface)])
    assert_reached(
        Flow(client, server, "tcp", 22), Flow(server, client, "tcp", 2379), Flow(client, server, "tcp", 2379)
    )
    assert_blocked(Flow(server, client, "tcp", 22), by=NO_PROFILE_OUT, at=Stage.EGRESS, on=server)
    assert_blocked(Flow(client, server, "tcp", 8055), by=NO_PROFILE_IN, at=Stage.FILTER_INPUT)


def test_5_6_7_8_both_hosts_have_to_allow_and_open_connections_go_on(tracked_network: Network, interface: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    security = tier("security", 1)
    out = tracked(name="security.out", role="client", tier="security", egress=[ALLOW], types=["Egress"])
    into = tracked(ALLOW, name="security.in", tier="security", types=["Ingress"])
    documents = [endpoint(host, interface=interface) for host in (server, client)]
    for host in (server, client):
        host.apply([*documents, security, out])
    assert_blocked(Flow(client, server, "tcp"), by=NO_PROFILE_IN, at=Stage.FILTER_INPUT)
    assert_blocked(Flow(server, client, "tcp"), by=NO_PROFILE_OUT, at=Stage.EGRESS, on=server)
    server.apply([*documents, security, out, into])
    assert_reached(Flow(client, server, "tcp"), Flow(client, server, 253))
    assert_silent(Flow(server, client, "tcp"))
    with connection(Flow(client, server, "tcp")) as talk:
        assert talk(b"before")
        server.apply([*documents, security, out, tracked(DENY, name="security.in", tier="security", types=["Ingress"])])
        assert talk(b"after")
        assert_blocked(Flow(client, server, "tcp"), by="gnp/security.in ingress[0]", at=Stage.FILTER_INPUT)


def test_9_one_protocol_allowed(tracked_network: Network, interface: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    rule = {"action": "Allow", "protocol": 253}
    server.apply([endpoint(server, interface=interface), tracked(rule, types=["Ingress"])])
    assert_reached(Flow(client, server, 253))
    assert_blocked(Flow(client, server, 254), by="tier/default ingress default", at=Stage.FILTER_INPUT)


def test_11_12_13_profiles_decide_where_no_policy_does(tracked_network: Network, interface: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    open_to_all = [endpoint(server, interface=interface, profiles=["allow-all"]), allow_all()]
    server.apply(open_to_all)
    flows = [Flow(client, server, "tcp"), Flow(server, client, "udp"), Flow(client, server, 253)]
    assert_reached(*flows)
    server.apply([*open_to_all, tracked(egress=[DENY], types=["Egress"])])
    assert_blocked(Flow(server, client, "tcp"), by="gnp/normal egress[0]", at=Stage.EGRESS, on=server)
    assert_reached(Flow(client, server, "tcp"))
    server.apply([*open_to_all, tracked(DENY, types=["Ingress"])])
    assert_blocked(Flow(client, server, "tcp"), by="gnp/normal ingress[0]", at=Stage.FILTER_INPUT)
    assert_reached(Flow(server, client, "tcp"))


def test_a_profile_that_does_not_exist_denies(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    server.apply([endpoint(server, profiles=["missing"])])
    assert_blocked(Flow(client, server), by="profile/missing ingress: no such profile", at=Stage.FILTER_INPUT)


@pytest.mark.parametrize(
    ("default", "by"), [("Deny", "tier/first ingress default"), ("Pass", "no profile ingress")], ids=["deny", "pass"]
)
def test_49_50_tiers_pass_on_or_end(tracked_network: Network, default: str, by: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    passing = {"action": "Pass", "protocol": "TCP"}
    policies = [
        tier("first", 1, defaultAction=default),
        tier("second", 2, defaultAction="Pass"),
        tracked(passing, name="first.a", tier="first", types=["Ingress"]),
        tracked(tcp(8055), name="second.b", tier="second", types=["Ingress"]),
    ]
    server.apply([endpoint(server), *policies])
    assert_reached(Flow(client, server, "tcp", 8055))
    passed = [(Stage.FILTER_INPUT, "gnp/first.a ingress[0]")]
    assert_blocked(Flow(client, server, "tcp", 8056), by=NO_PROFILE_IN, at=Stage.FILTER_INPUT, passed=passed)
    assert_blocked(Flow(client, server, "udp", 8055), by=by, at=Stage.FILTER_INPUT)


def test_51_failsafes_are_configured(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    server.apply([endpoint(server), felix(failsafeInboundHostPorts=[])])
    assert_blocked(Flow(client, server, "tcp", 22), by=NO_PROFILE_IN, at=Stage.FILTER_INPUT)
    server.apply([endpoint(server), felix(failsafeInboundHostPorts=[{"protocol": "tcp", "port": 8055}])])
    assert_reached(Flow(client, server, "tcp", 8055))


def test_a_second_pass_changes_nothing_and_detach_opens_all(tracked_network: Network, interface: str) -> None:
    server, client = tracked_network.server, tracked_network.client
    documents = [
        endpoint(server, interface=interface, profiles=["allow-all"]),
        allow_all(),
        tracked(tcp(8055), egress=[DENY]),
        tracked(tcp(8056), name="dnat", preDNAT=True, applyOnForward=True),
        tracked(tcp(8055), name="forward", applyOnForward=True),
    ]
    assert server.apply(documents).changes
    assert server.apply(documents).changes == ()
    server.detach()
    assert_reached(Flow(client, server, "tcp", 8056), Flow(server, client, "udp"))


# --- conntrack states -------------------------------------------------------------------------------------------------


def send(sender: Host, host: Host, *layers: Packet) -> None:
    """One packet, with a correct checksum."""
    frame = Ether(src=sender.mac, dst=host.mac) / IP(src=sender.address(), dst=host.address())
    for layer in layers:
        frame = frame / layer
    with sender.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(bytes(frame))


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "not checked"])
def test_56_an_invalid_packet_is_denied_before_failsafes(tracked_network: Network, checked: bool) -> None:
    """A FIN of no connection is INVALID, though it is to a failsafe port."""
    server, client = tracked_network.server, tracked_network.client
    server.apply([endpoint(server), felix(disableConntrackInvalidCheck=not checked)])
    before = server.counts()
    send(client, server, TCP(sport=4000, dport=22, flags="F"))
    send(client, server, UDP(sport=4000, dport=9))
    wait_until(lambda: (server.counts() - before)[Stage.FILTER_INPUT, NO_PROFILE_IN] == 1, "the second packet")
    assert (server.counts() - before)[Stage.FILTER_INPUT, "conntrack INVALID ingress"] == int(checked)


@pytest.mark.parametrize("known", [True, False], ids=["of a known flow", "of an unknown flow"])
def test_57_an_icmp_error_passes_if_it_is_of_a_known_flow(tracked_network: Network, known: bool) -> None:
    """Unknown, it is INVALID, although a policy allows ICMP."""
    server, client = tracked_network.server, tracked_network.client
    allow_icmp = tracked({"action": "Allow", "protocol": "ICMP"}, egress=[ALLOW], types=["Ingress", "Egress"])
    server.apply([endpoint(server), allow_icmp])
    with server.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((server.address(), 4001))
        sock.sendto(b"x", (client.address(), 9))  # nobody listens: the client answers with an error
        if known:
            sock.settimeout(DEADLINE_S)
            sock.connect((client.address(), 9))
            sock.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(1)
            return
    before = server.counts()
    quoted = IP(src=server.address(), dst=client.address()) / UDP(sport=4002, dport=9)
    send(client, server, ICMP(type=3, code=3), quoted)
    wait_until(lambda: bool(server.counts() - before), "the error is counted")
    assert set(server.counts() - before) == {(Stage.FILTER_INPUT, "conntrack INVALID ingress")}


def test_58_an_untracked_allow_is_final_and_a_pass_is_not(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    untracked = {"doNotTrack": True, "applyOnForward": True}
    deny = tracked(DENY, types=["Ingress"])
    server.apply([endpoint(server), tracked(ALLOW, name="raw", egress=[ALLOW], **untracked), deny])
    assert_reached(Flow(client, server, "udp"))
    server.apply([endpoint(server), tracked({"action": "Pass"}, name="raw", **untracked), deny])
    passed = [(Stage.RAW, "gnp/raw ingress[0]")]
    assert_blocked(Flow(client, server, "udp"), by="gnp/normal ingress[0]", at=Stage.FILTER_INPUT, passed=passed)


def test_any_interface_has_the_loopback_too(tracked_network: Network) -> None:
    """In Calico as well (``felix/rules/dispatch.go`` has no exception)."""
    server = tracked_network.server
    server.apply([endpoint(server, interface="*")])
    assert_blocked(Flow(server, server, "udp"), by=NO_PROFILE_OUT, at=Stage.EGRESS)
    server.apply([endpoint(server, interface="*", profiles=["allow-all"]), allow_all()])
    assert_reached(Flow(server, server, "udp"))


def test_neighbours_are_discovered_under_a_default_deny(tracked_network: Network) -> None:
    """Differs: in Calico nothing accepts ICMPv6 that conntrack does not track, and the host loses its neighbours."""
    server, client = tracked_network.server, tracked_network.client
    server.apply([endpoint(server), tracked(tcp(8055), egress=[ALLOW], types=["Ingress", "Egress"])])
    for host in (server, client):
        host.run("ip", "-6", "neigh", "flush", "nud", "permanent", "dev", "eth0")
    assert_reached(Flow(client, server, "tcp", 8055, family=6))


# --- with untracked policy --------------------------------------------------------------------------------------------


def test_45_46_untracked_policy_opens_what_the_endpoints_close(tracked_network: Network) -> None:
    """``donottrack_test.go``, with the default that is closed by normal policy, not by a foreign firewall."""
    server, client = tracked_network.server, tracked_network.client
    documents = [endpoint(host) for host in (server, client)]
    for host in (server, client):
        host.apply(documents)
    assert_reached(Flow(client, server, "tcp", 2379), Flow(server, client, "tcp", 2379))
    assert_silent(Flow(client, server, "tcp", 8055), Flow(client, server, "tcp", 22))  # 22 is a failsafe inbound only
    untracked = {"doNotTrack": True, "applyOnForward": True, "egress": [ALLOW], "types": ["Ingress", "Egress"]}
    policies = [tracked(ALLOW, name=f"raw-{role}", role=role, **untracked) for role in ("server", "client")]
    for host in (server, client):
        host.apply([*documents, *policies])
    assert_reached(Flow(client, server, "tcp", 8055), Flow(server, client, "tcp", 8056), Flow(client, server, "udp"))
    client.apply([*documents, policies[0]])
    assert_silent(Flow(client, server, "tcp", 8055), Flow(server, client, "tcp", 8056))


def test_55_a_named_port_in_normal_policy(tracked_network: Network) -> None:
    server, client = tracked_network.server, tracked_network.client
    ports = [{"name": "web", "protocol": "TCP", "port": 8055}]
    rule = {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["web"]}}
    server.apply([endpoint(server, ports=ports), tracked(rule, types=["Ingress"])])
    assert_reached(Flow(client, server, "tcp", 8055))
    by = "tier/default ingress default"
    assert_blocked(Flow(client, server, "tcp", 8056), by=by, at=Stage.FILTER_INPUT)
