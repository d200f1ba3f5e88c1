"""Flows are counted once each, by the class of their first packet, up to as many as are told apart."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dossim.engine.new_flows import BegunFlows
from dossim.exhaustion.flows import CLASSES, FlowClass
from dossim.model.host import Host, Listener
from dossim.packet.capture import Capture
from dossim.packet.source import Reading
from dossim.packet.stream import Stream
from dossim.predict.batches import Batches
from enforcer.model.choices import ModeChoice
from enforcer.model.nets import Nets
from enforcer.policy.resources import Resources
from tests.support.frames import ME4, ethernet, ipv4, ipv6, segment
from tests.support.witnesses import plan_for

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


def of_numbers(numbers: npt.NDArray[np.int64], flags: int) -> Capture:
    """A packet of each flow with such a number; those beyond 16 bits are to closed ports."""
    frames = np.tile(np.frombuffer(tcp(0, flags), np.uint8), (len(numbers), 1))
    frames[:, 34:36] = (numbers & 0xFFFF).astype(">u2").view(np.uint8).reshape(-1, 2)
    frames[:, 36:38] = (80 + (numbers >> 16)).astype(">u2").view(np.uint8).reshape(-1, 2)
    return Capture.from_frames(map(bytes, frames))


def add(flows: BegunFlows, capture: Capture) -> None:
    flows.add(capture, np.ones(len(capture), np.bool_))


def test_many_flows_stay_apart() -> None:
    count = 300_000
    many, flows = of_numbers(np.arange(count), SYN), begun(1 << 21)
    for _ in range(2):
        add(flows, many)
    assert counts_of(flows) == {FlowClass.SYN_RECV: 1 << 16, FlowClass.CLOSED_PORT: count - (1 << 16)}
    assert (flows.counts.beginning, flows.counts.is_more) == (2 * count, 0)


@pytest.mark.parametrize(
    ("known", "new"),
    [(3_150, 0), (3_150, 50), (3_150, 100), (3_200, 0), (3_200, 1), (100, 3_100), (100, 3_101), (1_600, 4_000)],
)
def test_the_first_flows_count_however_often_others_come_between(known: int, new: int) -> None:
    most, flows = 3_200, begun(3_200)
    for flags in (SYN, ACK, ACK):
        add(flows, of_numbers(np.arange(known), flags))
    mixed = np.stack([np.arange(new) % known, known + np.arange(new)], axis=1).ravel()
    for _ in range(2):
        add(flows, of_numbers(mixed, ACK))
    expected = {FlowClass.SYN_RECV: known, FlowClass.CLOSED_PORT: min(new, most - known)}
    assert counts_of(flows) == {item: count for item, count in expected.items() if count}
    assert bool(flows.counts.is_more) == (known + new > most)
    assert flows.counts.beginning == 3 * known + 4 * new


@pytest.mark.parametrize("most", [1, 100, 10_000])
def test_packets_that_a_sweep_leaves_count_as_any_others(tmp_path: Path, most: int) -> None:
    """Also where no more flows are told apart, from some piece on."""
    host = Host("jasper", addresses=(ip_interface(f"{ME4}/32"),), listen=(Listener(6, 80),))
    frames = [udp(PEER, ME4, 1_024 + at * 7 % 1_000, 80) for at in range(2_000)]
    capture, path, flows, expected = Capture.from_frames(frames), tmp_path / "x.pcap", begun(most), begun(most)
    capture.write(path)
    add(expected, capture)
    with Batches(plan_for(Resources(), host, ModeChoice.RAW), host, shows=False, new_flows=flows) as batches:
        sweep = batches.sweep()
        for window in Stream([path], Reading(any_file=True), 4_096, is_hashed=False).windows([sweep]):
            batches.take_complete(window)
    assert sweep.packets == len(frames)
    assert bytes(flows.counts) == bytes(expected.counts)
    assert flows.counts.beginning == len(frames)


PEER6, ME6 = "2001:db8::7", "2001:db8::1"


def udp(source: str, destination: str, sport: int, dport: int) -> bytes:
    data = segment(17, source, destination, (sport, dport), b"")
    if ":" in source:
        return ethernet(ipv6(data, source=source, destination=destination, next_header=17), 0x86DD)
    return ethernet(ipv4(data, source=source, destination=destination, protocol=17), 0x0800)


@pytest.mark.parametrize(("source", "destination"), [(PEER, ME4), (PEER6, ME6)])
def test_every_bit_of_addresses_and_ports_tells_flows_apart(source: str, destination: str) -> None:
    one, other = ip_address(source), ip_address(destination)
    frames = [udp(source, destination, 7, 9)]
    for bit in (1 << number for number in range(one.max_prefixlen)):
        frames += [udp(str(one.__class__(int(one) ^ bit)), destination, 7, 9)]
        frames += [udp(source, str(other.__class__(int(other) ^ bit)), 7, 9)]
    for bit in (1 << number for number in range(16)):
        frames += [udp(source, destination, 7 ^ bit, 9), udp(source, destination, 7, 9 ^ bit)]
    flows = begun(1 << 21)
    for _ in range(2):
        add(flows, Capture.from_frames(frames))
    assert counts_of(flows) == {FlowClass.UDP: len(frames)}


@pytest.mark.parametrize(("source", "destination"), [(PEER, ME4), (ME4, PEER), (ME4, ME4), (PEER6, ME6), (ME6, ME6)])
@pytest.mark.parametrize(("sport", "dport"), [(7, 9), (9, 7), (7, 7)])
def test_both_directions_are_one_flow(source: str, destination: str, sport: int, dport: int) -> None:
    """Whichever end is the greater one."""
    flows = begun(5)
    add(flows, Capture.from_frames([udp(source, destination, sport, dport), udp(destination, source, dport, sport)]))
    assert (counts_of(flows), flows.counts.beginning) == ({FlowClass.UDP: 1}, 2)


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
