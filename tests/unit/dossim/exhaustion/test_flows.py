"""Which packets of a capture make an entry, and of which class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet, Raw

from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation, situation_for
from dossim.drill.streamed import predict_stream
from dossim.exhaustion.flows import FlowClass, NewFlows, new_flows
from dossim.exhaustion.table import assumed_table
from dossim.model.host import Listener
from dossim.packet.capture import Capture
from dossim.packet.source import Reading
from dossim.packet.stream import Stream
from enforcer.model.choices import ModeChoice
from enforcer.policy.load import load_text

POLICY = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: production-host, labels: {host: "yes"}}
spec: {node: jasper, interfaceName: eth0, expectedIPs: [10.10.10.10, "fd00::10"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: dos-mitigation}
spec:
  selector: has(host)
  doNotTrack: true
  applyOnForward: true
  types: [Ingress]
  ingress:
    - {action: Deny, source: {nets: [203.0.113.0/24]}}
    - {action: Allow, source: {nets: [192.0.2.0/24]}}
"""
MAC = "06:00:00:00:00:01"
HOST = "10.10.10.10"
FOUR, SIX = IP(src="198.51.100.7", dst=HOST), IPv6(src="2001:db8::7", dst="fd00::10")
BEYOND = IP(src="198.51.100.7", dst="10.9.0.1")


def found(packets: Sequence[Packet], *, forward: bool = False, tcp_loose: bool = True, cut: int = 0) -> NewFlows:
    capture = captured(packets, cut)
    situation, table = situation_of(capture, forward=forward), replace(assumed_table(), tcp_loose=tcp_loose)
    return new_flows(capture, predict_capture(capture, situation).prediction, situation.host, table)


def streamed(packets: Sequence[Packet], folder: Path, *, cut: int = 0) -> NewFlows | None:
    """The same as ``dossim predict`` counts."""
    capture = captured(packets, cut)
    capture.write(folder / "x.pcap")
    stream = Stream([folder / "x.pcap"], Reading(any_file=True))
    return predict_stream(stream, situation_of(capture), table=assumed_table()).flows


def captured(packets: Sequence[Packet], cut: int = 0) -> Capture:
    capture = Capture.from_frames([bytes(Ether(src="06:00:00:00:00:02", dst=MAC) / packet) for packet in packets])
    if cut:
        capture = replace(capture, length=np.minimum(capture.length, cut).astype(np.int32))
    return capture


def situation_of(capture: Capture, *, forward: bool = False) -> Situation:
    return situation_for(
        load_text(POLICY, "policy.yaml"),
        capture=capture,
        choice=ModeChoice.RAW,
        addresses=[ip_interface(f"{HOST}/24"), ip_interface("fd00::10/64")],
        listen=[Listener(6, 443)],
        forward=forward,
        routes=[ip_network("10.9.0.0/16")] if forward else [],
    )


ROWS = [
    ("UDP", FOUR / UDP(sport=40000, dport=9), {FlowClass.UDP: 1}),
    ("UDP with a bad checksum is INVALID", FOUR / UDP(sport=40000, dport=9, chksum=1), {}),
    ("UDP over IPv6", SIX / UDP(sport=40000, dport=9), {FlowClass.UDP: 1}),
    ("a tag of VLAN 0", Dot1Q(vlan=0) / FOUR / UDP(sport=40000, dport=9), {FlowClass.UDP: 1}),
    (
        "IPv4 options",
        IP(src="198.51.100.7", dst=HOST, options=b"\x01\x01\x01\x00") / UDP(sport=40000, dport=9),
        {FlowClass.UDP: 1},
    ),
    ("SYN to an open port", FOUR / TCP(dport=443, flags="S"), {FlowClass.SYN_RECV: 1}),
    ("SYN to a closed port", FOUR / TCP(dport=80, flags="S"), {FlowClass.CLOSED_PORT: 1}),
    ("SYN+ECE+CWR", FOUR / TCP(dport=443, flags="SEC"), {FlowClass.SYN_RECV: 1}),
    ("SYN+ACK without a connection", FOUR / TCP(dport=443, flags="SA"), {}),
    ("RST without a connection", FOUR / TCP(dport=443, flags="R"), {}),
    ("FIN+ACK without a connection", FOUR / TCP(dport=443, flags="FA"), {}),
    ("ACK is answered by a reset", FOUR / TCP(dport=443, flags="PA"), {FlowClass.CLOSED_PORT: 1}),
    ("echo request", FOUR / ICMP(type=8), {FlowClass.ICMP: 1}),
    ("echo reply", FOUR / ICMP(type=0), {}),
    ("unreachable", FOUR / ICMP(type=3) / bytes(FOUR / UDP(sport=40000)), {}),
    ("ICMPv6 echo request", SIX / ICMPv6EchoRequest(), {FlowClass.ICMPV6: 1}),
    ("neighbour solicitation", SIX / ICMPv6ND_NS(tgt="fd00::10"), {}),
    ("GRE", FOUR / GRE(), {FlowClass.GRE: 1}),
    ("SCTP INIT", FOUR / SCTP(dport=9) / SCTPChunkInit(), {FlowClass.SCTP: 1}),
    ("another protocol", IP(src="198.51.100.7", dst=HOST, proto=253) / Raw(b"x" * 8), {FlowClass.GENERIC: 1}),
    ("an untracked Deny", IP(src="203.0.113.9", dst=HOST) / UDP(sport=40000, dport=9), {}),
    ("an untracked Allow", IP(src="192.0.2.9", dst=HOST) / UDP(sport=40000, dport=9), {}),
    ("no route", IP(src="198.51.100.7", dst="10.77.0.1") / UDP(sport=40000, dport=9), {}),
]


@pytest.mark.parametrize(("packet", "flows"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_one_packet(packet: Packet, flows: dict[FlowClass, int]) -> None:
    assert found([packet]).flows == flows


FORWARDED = [
    ("SYN", BEYOND / TCP(dport=443, flags="S"), {FlowClass.SYN_SENT: 1}),
    ("ACK", BEYOND / TCP(dport=443, flags="A"), {FlowClass.PICK_UP: 1}),
    ("UDP", BEYOND / UDP(sport=40000, dport=9), {FlowClass.UDP: 1}),
]


@pytest.mark.parametrize(("packet", "flows"), [row[1:] for row in FORWARDED], ids=[row[0] for row in FORWARDED])
def test_one_forwarded_packet(packet: Packet, flows: dict[FlowClass, int]) -> None:
    assert found([packet], forward=True).flows == flows


def test_a_forwarded_packet_of_which_the_capture_cut_what_begins_a_connection_may_make_an_entry() -> None:
    packet = BEYOND / TCP(dport=443, flags="S")
    assert (found([packet], forward=True, cut=46).perhaps, found([packet], forward=True, cut=46).total) == (1, 0)
    assert found([packet], forward=True, cut=54).flows == {FlowClass.SYN_SENT: 1}


def test_without_tcp_loose_nothing_is_picked_up() -> None:
    packet = BEYOND / TCP(dport=443, flags="A")
    assert found([packet], forward=True, tcp_loose=False).flows == {}


def test_a_flow_is_both_directions_and_counts_once() -> None:
    there, back = BEYOND / UDP(sport=1, dport=9), IP(src="10.9.0.1", dst=BEYOND.src) / UDP(sport=9, dport=1)
    counts = found([there, there, back], forward=True)
    assert counts.flows == {FlowClass.UDP: 1}
    assert counts.beginning == counts.reached == 3


def test_what_tells_flows_apart() -> None:
    packets = [
        FOUR / UDP(sport=1, dport=9),
        FOUR / UDP(sport=2, dport=9),
        FOUR / UDP(sport=1, dport=10),
        IP(src="198.51.100.8", dst=HOST) / UDP(sport=1, dport=9),
        SIX / UDP(sport=1, dport=9),
        FOUR / ICMP(type=8, id=1),
        FOUR / ICMP(type=8, id=2),
        FOUR / ICMP(type=8, id=2, seq=9),
    ]
    assert found(packets).flows == {FlowClass.UDP: 5, FlowClass.ICMP: 2}


def test_where_packets_went() -> None:
    packets = [
        FOUR / UDP(sport=40000, dport=9),
        IP(src="203.0.113.9", dst=HOST) / UDP(sport=40000, dport=9),
        IP(src="192.0.2.9", dst=HOST) / UDP(sport=40000, dport=9),
        IP(src="198.51.100.7", dst="10.77.0.1") / UDP(sport=40000, dport=9),
    ]
    counts = found(packets)
    assert (counts.reached, counts.untracked, counts.dropped_later, counts.leaving) == (2, 1, 1, 1)


def fragments(packet: Packet, size: int) -> list[Packet]:
    """With so many bytes of data each."""
    if IPv6 not in packet:
        return [*packet.__class__(bytes(packet)).fragment(size)]
    packet = IPv6(bytes(packet))
    data = bytes(packet.payload)
    return [
        IPv6(src=packet.src, dst=packet.dst)
        / IPv6ExtHdrFragment(nh=packet.nh, offset=at // 8, m=at + size < len(data), id=7)
        / Raw(data[at : at + size])
        for at in range(0, len(data), size)
    ]


# IPv6 does not queue a first fragment without the header of TCP, UDP or ICMPv6.
FRAGMENTED = [
    ("UDP", FOUR / UDP(sport=40000, dport=9) / Raw(bytes(20)), 8, {FlowClass.UDP: 1}),
    ("UDP with a bad checksum is INVALID", FOUR / UDP(sport=40000, dport=9, chksum=1) / Raw(bytes(20)), 8, {}),
    ("UDP over IPv6", SIX / UDP(sport=40000, dport=9) / Raw(bytes(20)), 8, {FlowClass.UDP: 1}),
    ("SYN, its flags in the second fragment", FOUR / TCP(dport=443, flags="S"), 8, {FlowClass.SYN_RECV: 1}),
    ("SYN, its flags in the first fragment", FOUR / TCP(dport=443, flags="S"), 16, {FlowClass.SYN_RECV: 1}),
    ("SYN over IPv6", SIX / TCP(dport=443, flags="S") / Raw(bytes(20)), 24, {FlowClass.SYN_RECV: 1}),
    ("RST without a connection", FOUR / TCP(dport=443, flags="R"), 8, {}),
    ("SCTP INIT, its chunk in the second fragment", FOUR / SCTP(dport=9) / SCTPChunkInit(), 8, {FlowClass.SCTP: 1}),
    ("echo request", FOUR / ICMP(type=8) / Raw(bytes(20)), 8, {FlowClass.ICMP: 1}),
    ("GRE", FOUR / GRE() / Raw(bytes(20)), 8, {FlowClass.GRE: 1}),
    ("an untracked Deny", IP(src="203.0.113.9", dst=HOST) / UDP(sport=40000, dport=9) / Raw(bytes(20)), 8, {}),
]


@pytest.mark.parametrize(
    ("packet", "size", "flows"), [row[1:] for row in FRAGMENTED], ids=[row[0] for row in FRAGMENTED]
)
def test_a_datagram_in_fragments_counts_once_as_what_it_is(
    packet: Packet, size: int, flows: dict[FlowClass, int], tmp_path: Path
) -> None:
    parts = fragments(packet, size)
    assert len(parts) > 1
    for order in (parts, parts[::-1]):
        for counts in (found(order), streamed(order, tmp_path)):
            assert counts is not None
            assert (counts.flows, counts.beginning) == (flows, sum(flows.values()))


def test_fragments_without_the_rest_of_their_datagram_begin_nothing(tmp_path: Path) -> None:
    parts = fragments(FOUR / UDP(sport=40000, dport=9) / Raw(bytes(20)), 8)
    for some in (parts[:-1], parts[1:]):
        assert found(some).flows == {}
        assert streamed(some, tmp_path) == found(some)


def test_a_datagram_of_which_the_capture_cut_what_begins_a_connection_may_make_an_entry(tmp_path: Path) -> None:
    parts = fragments(IP(src="198.51.100.7", dst=HOST, proto=132) / Raw(bytes(SCTP(dport=9) / SCTPChunkInit())), 16)
    for counts in (found(parts, cut=46), streamed(parts, tmp_path, cut=46)):
        assert counts is not None
        assert (counts.perhaps, counts.total) == (1, 0)
