"""Which HostEndpoint governs an interface (``felix/fv/hostendpoints_test.go``, ``endpoint_mgr_test.go``), for untracked
policy.

Differs throughout: in Calico a ``*`` HostEndpoint takes no untracked policy (outside eBPF mode); here it covers every
interface of the host except the loopback and those of workloads.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from tests.conformance.documents import DENY_LISTED, endpoint, felix, network_set, policy
from tests.conformance.flows import Flow, assert_blocked, assert_reached
from tests.conformance.topology import Document, Host, Network

pytestmark = pytest.mark.needs_root

ENTRY = "gnp/xdpf ingress[0]"


@pytest.fixture(params=["eth0", "*"], ids=["named", "any"])
def interface(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def denied(host: Host, *members: str) -> list[Document]:
    """A policy for this host that denies these sources."""
    return [policy(DENY_LISTED, selector=f"role == '{host.name}'"), network_set(*members)]


def test_deny_of_one_protocol_only(network: Network, interface: str) -> None:
    """Calico tests the converse: a normal policy that allows only 253."""
    server, client = network.server, network.client
    server.apply([endpoint(server, interface=interface), policy({"action": "Deny", "protocol": 253})])
    assert_blocked(Flow(client, server, 253), by=ENTRY, at=Stage.DRIVER)
    assert_reached(*(Flow(client, server, protocol) for protocol in (254, "tcp", "udp", "icmp")))


def test_allow_of_one_protocol_before_deny_of_all(network: Network, interface: str) -> None:
    server, client = network.server, network.client
    allow, deny = {"action": "Allow", "protocol": 253}, {"action": "Deny"}
    server.apply([endpoint(server, interface=interface), policy(allow, deny)])
    assert_reached(Flow(client, server, 253))
    others = [Flow(client, server, protocol) for protocol in (254, "tcp", "udp", "icmp")]
    assert_blocked(*others, by="gnp/xdpf ingress[1]", at=Stage.DRIVER)


def test_policy_is_of_its_own_host_only(network: Network, interface: str) -> None:
    """The server's deny affects neither what the server sends nor any other host."""
    server, client, external = network.server, network.client, network.external
    documents = [endpoint(host, interface=interface) for host in (server, client)]
    for host in (server, client):
        host.apply([*documents, *denied(server, external.address())])
    assert_blocked(Flow(external, server), by=ENTRY, at=Stage.DRIVER)
    assert_reached(Flow(external, client), Flow(client, server))


def test_any_interface_in_every_mode(network: Network, choice: ModeChoice, stage: Stage) -> None:
    """Calico passes an invented interface name to XDP here, and loses XDP on the whole node."""
    server, client = network.server, network.client
    server.apply([endpoint(server, interface="*"), *denied(server, client.address())])
    assert_blocked(Flow(client, server), by=ENTRY, at=stage)
    assert server.xdp("lo") == ()


def test_any_interface_covers_one_that_comes_later(network: Network, choice: ModeChoice, stage: Stage) -> None:
    server = network.server
    documents = [endpoint(server, interface="*"), *denied(server, "10.66.0.2")]
    server.apply(documents)
    behind = network.add_behind(server, "eth1", "behind")
    server.apply(documents)
    assert_blocked(Flow(behind, server), by=ENTRY, at=stage)
    assert_reached(Flow(network.client, server))


@pytest.mark.parametrize(
    ("near", "settings"),
    [
        pytest.param("cali7f00", {}, id="a workload's"),
        pytest.param("tap0", {"interfacePrefix": "cali,tap"}, id="another prefix"),
        pytest.param("kube-ipvs0", {}, id="excluded by default"),
        pytest.param("eth1", {"interfaceExclude": "kube-ipvs0,eth1"}, id="excluded by name"),
        pytest.param("eth1", {"interfaceExclude": "/^eth[1-9]$/"}, id="excluded by pattern"),
    ],
)
def test_interfaces_that_are_not_the_hosts_never_meet_untracked_policy(
    network: Network, near: str, settings: dict[str, str]
) -> None:
    """Even a HostEndpoint that names the interface does not govern it."""
    server, client = network.server, network.client
    behind = network.add_behind(server, near, "behind")
    endpoints = [endpoint(server, interface="*"), endpoint(server, interface=near, name="named")]
    server.apply([*endpoints, felix(**settings), *denied(server, behind.address(), client.address())])
    assert server.xdp(near) == ()
    assert_reached(Flow(behind, server), Flow(behind, network.external))
    assert_blocked(Flow(client, server), by=ENTRY, at=Stage.DRIVER)


def selecting(name: str, *members: str, label: str) -> list[Document]:
    """A policy for the HostEndpoint of this name, and the set it denies."""
    rule = {"action": "Deny", "source": {"selector": f"list == '{label}'"}}
    return [
        policy(rule, name=f"for-{name}", selector=f"name == '{name}'"),
        network_set(*members, name=f"of-{name}", labels={"list": label}),
    ]


def winner(network: Network, endpoints: Sequence[Document]) -> str:
    """Which of ``a`` and ``b`` governs eth0: each denies one of the two other hosts."""
    server, client, external = network.server, network.client, network.external
    server.apply(
        [
            *endpoints,
            *selecting("a", client.address(), label="a"),
            *selecting("b", external.address(), label="b"),
        ]
    )
    ends = {"a": (client, external), "b": (external, client)}
    entries = {entry for _, entry in server.counts()}
    if not entries:
        assert_reached(Flow(client, server), Flow(external, server))
        return ""
    name = "a" if entries == {"gnp/for-a ingress[0]"} else "b"
    blocked, open_ = ends[name]
    assert_blocked(Flow(blocked, server), by=f"gnp/for-{name} ingress[0]", at=Stage.DRIVER)
    assert_reached(Flow(open_, server))
    return name


def test_the_smallest_name_wins_and_the_next_takes_over(network: Network) -> None:
    server = network.server
    a, b = endpoint(server, name="a"), endpoint(server, name="b")
    assert winner(network, [b, a]) == "a"
    assert winner(network, [a, b]) == "a"
    assert winner(network, [b]) == "b"
    assert winner(network, [a, b]) == "a"
    assert winner(network, []) == ""


def test_a_name_is_not_preferred_over_an_address(network: Network) -> None:
    server = network.server
    assert winner(network, [endpoint(server, name="a", interface=""), endpoint(server, name="b")]) == "a"


def test_a_specific_endpoint_goes_before_any_whatever_their_names(network: Network) -> None:
    server = network.server
    any_, named = endpoint(server, name="a", interface="*"), endpoint(server, name="b")
    assert winner(network, [any_, named]) == "b"
    assert winner(network, [any_]) == "a"


def test_a_wrong_interface_name_is_not_made_good_by_the_right_address(network: Network) -> None:
    server = network.server
    assert winner(network, [endpoint(server, name="a", interface="eth7"), endpoint(server, name="b")]) == "b"


def test_the_right_interface_name_is_enough_with_a_wrong_address(network: Network) -> None:
    assert winner(network, [endpoint(network.server, name="a", expectedIPs=["192.0.2.1"])]) == "a"


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_an_address_of_either_family_finds_the_interface_and_moves_with_it(network: Network, family: int) -> None:
    server, client = network.server, network.client
    documents = [
        endpoint(server, interface="", expectedIPs=[f"{server.address(family)}7"]),
        *denied(server, client.address()),
    ]
    server.apply(documents)
    assert_reached(Flow(client, server))
    prefix = 24 if family == 4 else 64
    server.run("ip", f"-{family}", "address", "add", f"{server.address(family)}7/{prefix}", "dev", "eth0")
    server.apply(documents)
    assert_blocked(Flow(client, server), by=ENTRY, at=Stage.DRIVER)
    server.run("ip", f"-{family}", "address", "del", f"{server.address(family)}7/{prefix}", "dev", "eth0")
    server.apply(documents)
    assert_reached(Flow(client, server))
