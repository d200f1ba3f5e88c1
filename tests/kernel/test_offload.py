"""Partial checksums that the running kernel leaves to the device, captured with a packet socket."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
from pyroute2 import IPRoute

from dossim.packet.capture import Capture
from dossim.packet.columns import parse_columns
from dossim.packet.fields import TCP, UDP
from dossim.packet.offload import artefacts_of
from tests.kernel.conftest import NetnsPair

pytestmark = pytest.mark.needs_root

ETH_P_ALL = 3
LIVENESS_S = 30.0


def captured_on_loopback() -> Capture:
    """TCP and UDP of both families, with and without data, to ports with and without a listener."""
    with IPRoute() as ip:
        ip.link("set", index=1, state="up")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as packets:
        packets.bind(("lo", 0))
        packets.settimeout(LIVENESS_S)
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                for size in (0, 1, 9, 1000):
                    sender.sendto(bytes(range(256)) * 4 if size == 1000 else b"x" * size, (address, 4444))
            with socket.create_server((address, 0), family=family) as server, socket.socket(family) as client:
                client.connect(server.getsockname())
                client.sendall(b"some data")
                with server.accept()[0] as other:
                    assert other.recv(100) == b"some data"
        frames = []
        packets.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                frames.append(packets.recv(65_535))
    return Capture.from_frames(frames)


def test_what_linux_leaves_to_a_device_is_seen(netns_pair: NetnsPair) -> None:
    """lo has NETIF_F_HW_CSUM, so its packets keep CHECKSUM_PARTIAL; ICMP errors about them are complete."""
    with netns_pair.host():
        capture = captured_on_loopback()
    columns = parse_columns(capture)
    found = artefacts_of(capture)
    partial = found.offloaded
    for rows, protocol in (
        (columns.ipv4.rows, columns.ipv4.protocol),
        (columns.ipv6.rows, columns.ipv6.next_header),
    ):
        for kind in (TCP, UDP):
            chosen = rows[protocol == kind]
            assert len(chosen) >= 8
            assert partial[chosen].all()
        others = rows[(protocol != TCP) & (protocol != UDP)]
        assert len(others)
        assert not partial[others].any()
    assert not found.header.any()
