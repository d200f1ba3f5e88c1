"""Flows are counted once each, by the class of their first packet, up to as many as are told apart."""

from __future__ import annotations

from ipaddress import ip_address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dossim.engine.new_flows import BegunFlows
from dossim.exhaustion.flows import CLASSES, FlowClass
from dossim.packet.capture import Capture
from enforcer.model.nets import Nets
from tests.support.frames import ME4, ethernet, ipv4, ipv6, segment

PEER = "203.0.113.7"
ACK, SYN = 0x10, 0x02
OF_FLAGS = {SYN: FlowClass.SYN_RECV, ACK: FlowClass.CLOSED_PORT}
PACKETS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from((SYN, ACK))), max_size=60)


def begun(most: int) -> BegunFlows:
    return BegunFlows(Nets.of([ip_address(ME4)]), [80], forward=False, tcp_loose=True, most=most)


def tcp(port: int, flags: int) -> bytes:
    data = bytearray(segment(6, PEER, ME4, (1_024 + port, 80), b""))
    data[13] = flags
    return ethernet(ipv4(bytes(data), source=PEER, destination=ME4, protocol=6), 0x0800)


def counts_of(flows: BegunFlows) -> dict[FlowClass, int]:
    return {item: count for item, count in zip(CLASSES, flows.counts.flows, strict=True) if count}


@given(st.lists(PACKETS, max_size=3), st.sampled_from((5, 1_000)))
def test_each_flow_counts_once(batches: list[list[tuple[int, int]]], most: int) -> None:
    flows, expected, is_more = begun(most), dict[int, FlowClass](), False
    for batch in batches:
        capture = Capture.from_frames(tcp(port, flags) for port, flags in batch)
        flows.add(capture, np.ones(len(batch), np.bool_))
        for port, flags in batch:
            if len(expected) < most:
                expected.setdefault(port, OF_FLAGS[flags])
            is_more |= port not in expected
    classes = list(expected.values())
    assert counts_of(flows) == {item: classes.count(item) for item in OF_FLAGS.values() if item in classes}
    assert (flows.counts.beginning, bool(flows.counts.is_more)) == (sum(map(len, batches)), is_more)


def test_many_flows_stay_apart() -> None:
    count = 300_000
    frames = np.tile(np.frombuffer(tcp(0, SYN), np.uint8), (count, 1))
    ports = np.arange(count, dtype=">u4")
    frames[:, 34:36] = (ports % 60_000).astype(">u2").view(np.uint8).reshape(-1, 2)
    frames[:, 36:38] = (ports // 60_000 + 1).astype(">u2").view(np.uint8).reshape(-1, 2)
    many, flows = Capture.from_frames(map(bytes, frames)), begun(1 << 21)
    for _ in range(2):
        flows.add(many, np.ones(count, np.bool_))
    assert counts_of(flows) == {FlowClass.CLOSED_PORT: count}
    assert (flows.counts.beginning, flows.counts.is_more) == (2 * count, 0)


def test_packets_that_are_not_wanted_begin_nothing() -> None:
    flows = begun(5)
    flows.add(Capture.from_frames([tcp(0, SYN), tcp(1, SYN)]), np.array([False, True]))
    assert (flows.counts.beginning, sum(flows.counts.flows)) == (1, 1)


@pytest.mark.parametrize(
    ("version", "protocol", "length", "beginning"),
    [(4, 1, 8, 1), (4, 1, 7, 0), (4, 58, 8, 0), (6, 58, 8, 1), (6, 58, 4, 0), (6, 1, 8, 0), (6, 1, 4, 0)],
)
def test_echo_requests_begin_a_flow_where_they_belong_and_are_whole(
    version: int, protocol: int, length: int, beginning: int
) -> None:
    echo = bytes([8 if protocol == 1 else 128, 0, 0, 0, 0, 1, 0, 1])[:length]
    if version == 4:
        frame = ethernet(ipv4(echo, source=PEER, destination=ME4, protocol=protocol), 0x0800)
    else:
        frame = ethernet(ipv6(echo, source="2001:db8::7", destination="2001:db8::1", next_header=protocol), 0x86DD)
    flows = begun(5)
    flows.add(Capture.from_frames([frame]), np.ones(1, np.bool_))
    assert flows.counts.beginning == beginning
