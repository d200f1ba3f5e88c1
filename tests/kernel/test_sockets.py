"""The TCP sockets of a namespace, and whether conntrack knows them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from enforcer.kernel.sockets import TcpSocket, established, is_tracked, leaves_by, tcp_loose
from tests.kernel.conftest import NetnsPair

pytestmark = pytest.mark.needs_root

LOOPBACK = 1
PORT, PORT6 = 4711, 4712


@pytest.fixture
def connected(netns_pair: NetnsPair) -> Iterator[NetnsPair]:
    """Three connections over the loopback: IPv4, IPv6, and IPv4 to a socket of IPv6."""
    with ExitStack() as stack, netns_pair.host():
        Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("0")
        with IPRoute() as ip:
            ip.link("set", index=LOOPBACK, state="up")
        four = stack.enter_context(socket.create_server(("127.0.0.1", PORT)))
        six = socket.create_server(("::", PORT6), family=socket.AF_INET6, dualstack_ipv6=True)
        stack.enter_context(six)
        for server, address in ((four, "127.0.0.1"), (six, "::1"), (six, "127.0.0.1")):
            client = stack.enter_context(socket.create_connection((address, server.getsockname()[1])))
            accepted = stack.enter_context(server.accept()[0])
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
        yield netns_pair


def served() -> list[TcpSocket]:
    return [item for item in established() if item.served]


def test_established_connections_of_both_families(connected: NetnsPair) -> None:
    four, six = ip_address("127.0.0.1"), ip_address("::1")
    assert sorted((str(item.local), item.local_port) for item in served()) == [
        ("127.0.0.1", PORT),
        ("127.0.0.1", PORT6),  # mapped, and one of IPv4
        ("::1", PORT6),
    ]
    assert {item.remote for item in served()} == {four, six}
    assert len(established()) == 6  # with the clients' ends
    assert {leaves_by(item) for item in established()} == {LOOPBACK}


def test_without_a_route_there_is_no_interface(connected: NetnsPair) -> None:
    assert leaves_by(TcpSocket(ip_address("127.0.0.1"), 1, ip_address("198.51.100.7"), 2)) == 0


def test_conntrack_knows_what_it_has_seen_in_both_directions(connected: NetnsPair) -> None:
    assert not any(is_tracked(item) for item in established())
    rules = "add table inet t; add chain inet t i {type filter hook input priority 0;}; add rule inet t i ct state new"
    subprocess.run(["nft", rules], check=True, timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        known = [item for item in established() if is_tracked(item)]
        port = server.getsockname()[1]
        assert len(known) == 2
        assert all(port in (item.local_port, item.remote_port) for item in known)
    assert tcp_loose() is True
