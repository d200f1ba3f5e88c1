"""Calico's XDP test (``felix/fv/xdp_test.go``), X1 to X17 of docs/conformance.md, over TCP and UDP.

Calico's test has hosts with HostEndpoints, a normal policy that allows everything, and an untracked policy that denies
a set. Normal policy is not enforced here, so these tests have none.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import numpy as np
import pytest

from enforcer.backends.xdp.addresses import open_tables
from enforcer.backends.xdp.state.layout import Pins, TablePins
from enforcer.kernel.bpf.libbpf_conn import LIBBPF
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.netns import current_inode
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Stage
from tests.conformance.daemon import daemon
from tests.conformance.documents import DENY_LISTED, endpoint, failsafe, felix, network_set, policy
from tests.conformance.flows import Flow, assert_blocked, assert_reached, wait_until
from tests.conformance.topology import Document, Host, Network

pytestmark = pytest.mark.needs_root

ENTRY = "gnp/xdpf ingress[0]"
IN_XDP = pytest.mark.parametrize("choice", [ModeChoice.NATIVE, ModeChoice.GENERIC], indirect=True, ids=str)
DEFAULT_FAILSAFES = [failsafe("tcp", 22), failsafe("udp", 68)]


@pytest.fixture(params=["tcp", "udp"])
def protocol(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def setting(network: Network, protocol: str) -> list[Document]:
    """The resources before the untracked policy: the HostEndpoints, and <protocol>:1234 as an inbound failsafe."""
    hosts = (network.client, network.server)
    return [
        felix(failsafeInboundHostPorts=[*DEFAULT_FAILSAFES, failsafe(protocol, 1234)]),
        *(endpoint(host) for host in hosts),
    ]


def both(network: Network, protocol: str | int, **more: int) -> list[Flow]:
    return [Flow(network.client, network.server, protocol, port, **more) for port in (8055, 8056)]


CLIENT = "10.65.0.2"


def root4(host: Host) -> Path:
    """The pin of the address table in which the tests below overwrite a word."""
    with host.inside():
        return TablePins.of(LIBBPF, host.pin_root, current_inode()).directory / "root4"


def forget(host: Host, address: str) -> None:
    """Act as another program: the tables now say that no list holds any address of the /16."""
    with Map.open_pinned(root4(host)) as words:
        np.frombuffer(words.mmap(writable=True), np.uint32)[int(IPv4Address(address)) >> 16] = 0


def holds(host: Host, cidr: str) -> bool:
    """Whether the XDP tables hold these IPv4 addresses and no others."""
    with host.inside():
        tables = open_tables(TablePins.of(LIBBPF, host.pin_root, current_inode()))
    if tables is None:
        return False
    with tables:
        segments = tables.classified.segments4
        listed = np.flatnonzero(segments.cls)
        net = IPv4Network(cidr)
        after = int(net.broadcast_address) + 1
        return segments.start[listed].tolist() == [int(net[0])] and segments.start[listed + 1].tolist() == [after]


def test_x1_without_policy_everybody_reaches(network: Network, protocol: str, setting: list[Document]) -> None:
    """Differs: in Calico a HostEndpoint without policy denies everything; that default is part of normal policy."""
    assert network.server.apply(setting).changes == ()
    assert_reached(*both(network, protocol), Flow(network.client, network.server, protocol, 1234))


def test_x2_without_untracked_policy_there_is_no_program(
    network: Network, protocol: str, choice: ModeChoice, setting: list[Document]
) -> None:
    server = network.server
    for _ in range(2):
        assert server.apply([*setting, network_set("10.65.0.2/32")]).changes == ()
        assert server.xdp() == ()
        assert server.run("ipset", "list", "-name") == ""


@IN_XDP
def test_x3_the_policy_brings_a_program_and_it_stays_the_same(
    network: Network, protocol: str, choice: ModeChoice, setting: list[Document]
) -> None:
    server = network.server
    server.apply([*setting, policy(DENY_LISTED)])  # no set yet
    (first,) = server.xdp()
    assert str(first.mode) == str(choice)
    server.apply([*setting, policy(DENY_LISTED), network_set("10.65.0.9")])
    assert server.apply([*setting, policy(DENY_LISTED), network_set("10.65.0.9")]).changes == ()
    assert server.xdp() == (first,)
    assert_reached(*both(network, protocol))


@IN_XDP
def test_x4_without_the_policy_the_program_goes_and_stays_away(
    network: Network, protocol: str, choice: ModeChoice, setting: list[Document]
) -> None:
    server = network.server
    server.apply([*setting, policy(DENY_LISTED)])
    assert server.xdp()
    for _ in range(2):
        server.apply(setting)
        assert server.xdp() == ()


def test_x5_a_set_of_the_servers_own_address_leaves_the_client_alone(
    network: Network, protocol: str, choice: ModeChoice, setting: list[Document]
) -> None:
    server = network.server
    server.apply([*setting, policy(DENY_LISTED), network_set(f"{server.address()}/32")])
    assert_reached(*both(network, protocol))


@pytest.fixture
def denied(network: Network, protocol: str, setting: list[Document]) -> list[Document]:
    """The client's address is in the set in the kernel."""
    documents = [*setting, policy(DENY_LISTED), network_set(f"{network.client.address()}/32")]
    network.server.apply(documents)
    return documents


def test_x6_a_raw_protocol_with_one_byte_is_dropped(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, denied: list[Document]
) -> None:
    """Raw counts nothing that XDP drops: only one stage may have counted."""
    assert_blocked(Flow(network.client, network.server, 254), by=ENTRY, at=stage)


def test_x6_a_raw_protocol_with_one_byte_from_another_source_passes(
    network: Network, protocol: str, choice: ModeChoice, denied: list[Document]
) -> None:
    """Differs: Calico's program drops every frame shorter than 42 bytes, from any source; such frames pass here."""
    assert_reached(Flow(network.external, network.server, 254))


def test_x7_the_source_port_of_an_inbound_failsafe_is_blocked(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, denied: list[Document]
) -> None:
    assert_blocked(*both(network, protocol, sport=1234), by=ENTRY, at=stage)


@pytest.mark.parametrize(("protocol", "sport"), [("tcp", 6443), ("udp", 53)], indirect=["protocol"])
def test_x7_the_source_port_of_an_outbound_failsafe_passes(
    network: Network, protocol: str, choice: ModeChoice, sport: int, denied: list[Document]
) -> None:
    """Differs: Calico's XDP ignores source ports and drops what its raw table passes; here, XDP only accelerates."""
    assert_reached(*both(network, protocol, sport=sport))


def test_x8_ping_is_dropped(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, denied: list[Document]
) -> None:
    assert_blocked(Flow(network.client, network.server, "icmp"), by=ENTRY, at=stage)


@IN_XDP
def test_x9_the_map_has_the_clients_address(
    network: Network, protocol: str, choice: ModeChoice, denied: list[Document]
) -> None:
    """Both the map and ``status`` show it; Calico has no such command."""
    assert holds(network.server, CLIENT)
    with network.server.inside():
        (status,) = network.server.enforcers[choice].status()
    fills = {fill.holder: fill.used for fill in status.fills}
    assert (fills["XDP IPv4 ranges"], fills["XDP IPv6 ranges"]) == (1, 0)


def test_x10_x11_both_ports_are_blocked_at_one_stage_only(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, denied: list[Document]
) -> None:
    assert_blocked(*both(network, protocol), by=ENTRY, at=stage)
    assert {at for (at, _), packets in network.server.counts().items() if packets} == {stage}


def test_x12_the_failsafe_port_stays_open(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, denied: list[Document]
) -> None:
    assert_reached(Flow(network.client, network.server, protocol, 1234))
    assert_blocked(*both(network, protocol), by=ENTRY, at=stage)


def test_x13_without_the_policy_everything_is_open(
    network: Network, protocol: str, choice: ModeChoice, setting: list[Document], denied: list[Document]
) -> None:
    network.server.apply(setting)
    assert_reached(*both(network, protocol), Flow(network.client, network.server, 254))


@IN_XDP
def test_x14_an_element_removed_by_hand_comes_back_with_the_next_pass(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, denied: list[Document]
) -> None:
    server = network.server
    forget(server, CLIENT)
    # until then Calico blocks nothing; here raw has every entry as well
    assert_blocked(*both(network, protocol), by=ENTRY, at=Stage.RAW)
    assert server.apply(denied).changes == ("eth0: address lists changed in place (1 entry, 1 CIDR)",)
    assert_blocked(*both(network, protocol), by=ENTRY, at=stage)


@IN_XDP
def test_x14_the_daemon_puts_an_element_back_by_itself(
    network: Network, choice: ModeChoice, stage: Stage, tmp_path: Path
) -> None:
    """Calico: within 20 s at a refresh interval of 10 s."""
    server = network.server
    flow = Flow(network.client, server)
    documents = [endpoint(server), felix(xdpRefreshInterval="200ms"), policy(DENY_LISTED), network_set("10.65.0.2")]
    with daemon(server, documents, tmp_path):
        wait_until(lambda: holds(server, CLIENT), "the daemon enforces nothing")
        forget(server, CLIENT)
        wait_until(lambda: holds(server, CLIENT), "the element did not come back")
        assert_blocked(flow, by=ENTRY, at=stage)


@IN_XDP
def test_x15_the_program_cannot_be_detached_with_ip_link(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, denied: list[Document]
) -> None:
    """Differs: Calico's program is removed and comes back within 20 s; here the kernel protects the BPF link."""
    server = network.server
    before = server.xdp()
    kind = {ModeChoice.NATIVE: "xdpdrv", ModeChoice.GENERIC: "xdpgeneric"}[choice]
    for word in ("xdp", kind):
        server.attempt("ip", "link", "set", "eth0", word, "off")
    assert server.xdp() == before
    assert_blocked(*both(network, protocol), by=ENTRY, at=stage)


@IN_XDP
def test_x15_a_program_lost_with_its_pin_comes_back(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, denied: list[Document]
) -> None:
    server = network.server
    Pins.of(LIBBPF, server.pin_root, "eth0").link.unlink()
    wait_until(lambda: server.xdp() == (), "the program is still there without its link")
    assert_blocked(*both(network, protocol), by=ENTRY, at=Stage.RAW)
    server.apply(denied)
    assert [str(item.mode) for item in server.xdp()] == [str(choice)]
    assert_blocked(*both(network, protocol), by=ENTRY, at=stage)


@IN_XDP
def test_x16_a_changed_set_is_in_the_map(
    network: Network, protocol: str, choice: ModeChoice, setting: list[Document], denied: list[Document]
) -> None:
    server = network.server
    server.apply([*setting, policy(DENY_LISTED), network_set("1.2.3.4")])
    assert holds(server, "1.2.3.4/32")
    assert not holds(server, "10.65.0.2/32")
    assert_reached(*both(network, protocol))


def test_x17_a_net_with_host_bits_blocks(
    network: Network, protocol: str, choice: ModeChoice, stage: Stage, setting: list[Document]
) -> None:
    server = network.server
    server.apply([*setting, policy(DENY_LISTED), network_set("10.65.0.2/8")])
    assert choice is ModeChoice.RAW or holds(server, "10.0.0.0/8")
    assert_blocked(*both(network, protocol), by=ENTRY, at=stage)
    assert_reached(Flow(network.client, server, protocol, 1234))
