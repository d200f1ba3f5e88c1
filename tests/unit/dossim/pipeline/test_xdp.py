"""XDP drops what raw would drop, as far as the source address shows it. A rule in raw denies every frame here."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from dossim.pipeline.explain import Explainer
from enforcer.model.vocabulary import Action, Mode, Stage
from enforcer.policy.resources import (
    EntityRule,
    Failsafe,
    FelixConfiguration,
    GlobalNetworkPolicy,
    HostEndpoint,
    Resources,
    Rule,
)
from tests.support.frames import ME4, ME6, ethernet, ipv4, ipv6, segment
from tests.unit.dossim.pipeline.test_fates import HOST

NET = EntityRule(nets=(ip_network("203.0.113.0/24"),))
FOUR = Rule(Action.DENY, source=NET)
SIX = Rule(Action.DENY, source=EntityRule(nets=(ip_network("2001:db8::/32"),)))
SOURCE, SOURCE6 = "203.0.113.7", "2001:db8::7"
FAILSAFES = FelixConfiguration(
    "default",
    failsafe_inbound=(Failsafe(6, 22), Failsafe(6, 179, ip_network("8.0.0.0/8"))),
    failsafe_outbound=(Failsafe(17, 53),),
)
NONE = FelixConfiguration("default", failsafe_inbound=(), failsafe_outbound=())


def resources(*rules: Rule, felix: FelixConfiguration = FAILSAFES) -> Resources:
    return Resources(
        host_endpoints=(HostEndpoint("h", node="jasper", interface_name="eth0"),),
        policies=(GlobalNetworkPolicy("p", ingress=rules, do_not_track=True),),
        felix_configurations=(felix,),
    )


def stage(frame: bytes, *, felix: FelixConfiguration = FAILSAFES, mode: Mode | None = Mode.NATIVE) -> Stage | None:
    return Explainer(resources(FOUR, SIX, felix=felix), HOST, mode=mode).explain(frame).disposition.stage


def four(buf: bytes, protocol: int, *, tags: tuple[tuple[int, int], ...] = (), fragment: int = 0) -> bytes:
    packet = ipv4(buf, source=SOURCE, destination=ME4, protocol=protocol, fragment=fragment)
    return ethernet(packet, 0x0800, tags=tags)


def six(buf: bytes, next_header: int) -> bytes:
    return ethernet(ipv6(buf, source=SOURCE6, destination=ME6, next_header=next_header), 0x86DD)


def tcp(*ports: int) -> bytes:
    return segment(6, SOURCE, ME4, (ports[0], ports[1]), b"")


def udp6(*ports: int) -> bytes:
    return segment(17, SOURCE6, ME6, (ports[0], ports[1]), b"")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (Mode.OFFLOAD, Stage.NIC_OFFLOAD),
        (Mode.NATIVE, Stage.DRIVER),
        (Mode.GENERIC, Stage.GENERIC),
        (None, Stage.RAW),
    ],
)
def test_each_mode_drops_at_its_stage(mode: Mode | None, expected: Stage) -> None:
    assert stage(four(tcp(1024, 80), 6), mode=mode) is expected


# A destination options header without options, followed by UDP or by another such header.
TO_UDP, TO_OPTIONS = bytes([17, 0, 1, 4, 0, 0, 0, 0]), bytes([60, 0, 1, 4, 0, 0, 0, 0])
DRIVER, RAW, DEFRAG, IP_INPUT = Stage.DRIVER, Stage.RAW, Stage.DEFRAG, Stage.IP_INPUT


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        pytest.param(four(tcp(1024, 80), 6), DRIVER, id="a SYN"),
        pytest.param(four(tcp(1024, 22), 6), None, id="to a failsafe's port"),
        pytest.param(four(tcp(1024, 179), 6), DRIVER, id="to one whose net is another"),
        pytest.param(four(tcp(22, 80), 6), DRIVER, id="from an inbound failsafe's port"),
        pytest.param(four(tcp(1024, 80)[:20], 6), DRIVER, id="20 bytes of TCP"),
        pytest.param(four(tcp(1024, 80)[:19], 6), RAW, id="19 bytes of TCP: ports unknown"),
        pytest.param(four(bytes(19), 132), DRIVER, id="a protocol without failsafes needs no ports"),
        pytest.param(four(tcp(1024, 80) + bytes(4), 6, fragment=0x2000), DRIVER, id="a first fragment has ports"),
        pytest.param(four(tcp(1024, 80), 6, fragment=0x2000), DEFRAG, id="of 20 bytes: the kernel keeps 16"),
        pytest.param(four(tcp(1024, 80), 6, fragment=1), DEFRAG, id="a later TCP fragment has none"),
        pytest.param(four(tcp(1024, 80), 1, fragment=1), DRIVER, id="a later ICMP fragment needs none"),
        pytest.param(four(b"", 0), DRIVER, id="protocol 0 is one like others"),
        pytest.param(four(tcp(1024, 80), 6, tags=((0x8100, 0),)), DRIVER, id="after a priority tag"),
        pytest.param(four(tcp(1024, 80), 6, tags=((0x8100, 5),)), IP_INPUT, id="tagged for a VLAN"),
        pytest.param(four(tcp(1024, 80), 6, tags=((0x88A8, 0), (0x8100, 0))), DRIVER, id="after two tags"),
        pytest.param(four(tcp(1024, 80), 6, tags=((0x88A8, 0), (0x8100, 6))), IP_INPUT, id="tagged for a VLAN, inside"),
        pytest.param(four(tcp(1024, 80), 6, tags=((0x8100, 0),) * 3), RAW, id="after three tags it passes"),
        pytest.param(four(tcp(1024, 80), 6)[:-1], IP_INPUT, id="longer than the frame: TCP's header is not all there"),
        pytest.param(four(tcp(1024, 80) + b"x", 6)[:-1], DRIVER, id="longer than the frame, after the header"),
        pytest.param(six(udp6(1024, 80), 17), DRIVER, id="UDP over IPv6"),
        pytest.param(six(udp6(53, 80), 17), None, id="from an outbound failsafe's port"),
        pytest.param(six(TO_UDP + udp6(1024, 80), 60), DRIVER, id="after an extension header"),
        pytest.param(six(TO_UDP + udp6(53, 80), 60), None, id="a failsafe after one"),
        pytest.param(six(TO_OPTIONS * 7 + TO_UDP + udp6(1, 2), 60), DRIVER, id="after eight extension headers"),
        pytest.param(six(TO_OPTIONS * 8 + TO_UDP + udp6(1, 2), 60), RAW, id="after nine headers it passes"),
        pytest.param(six(b"\x11\0\1\4", 60), RAW, id="extension headers that break off"),
        pytest.param(six(bytes([17, 0, 0, 8, 0, 0, 0, 1]) + bytes(8), 44), DEFRAG, id="a later UDP fragment over IPv6"),
        pytest.param(six(bytes([58, 0, 0, 8, 0, 0, 0, 1]) + bytes(8), 44), DEFRAG, id="one that says ICMPv6"),
        pytest.param(six(bytes([60, 0, 0, 8, 0, 0, 0, 1]) + bytes(8), 44), DEFRAG, id="a later fragment of headers"),
    ],
)  # fmt: skip
def test_an_indeterminate_match_passes(frame: bytes, expected: Stage | None) -> None:
    assert stage(frame) is expected


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(four(tcp(1, 2)[:3], 6), id="ports unknown"),
        pytest.param(four(tcp(1, 2), 6, fragment=1), id="a later fragment"),
        pytest.param(six(b"\x11\0\1\4", 60), id="protocol unknown"),
    ],
)
def test_without_failsafes_the_match_is_not_indeterminate(frame: bytes) -> None:
    assert stage(frame, felix=NONE) is Stage.DRIVER


def with_byte(at: int, value: int) -> bytes:
    frame = bytearray(four(tcp(1024, 80), 6))
    frame[14 + at] = value
    return bytes(frame)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        pytest.param(with_byte(0, 0x55), None, id="version 5: passes"),
        pytest.param(with_byte(0, 0x44), None, id="IHL 4: passes"),
        pytest.param(with_byte(3, 19), None, id="total length 19: passes"),
        pytest.param(with_byte(3, 20), DRIVER, id="total length 20 is decided"),
        pytest.param(with_byte(10, 0), DRIVER, id="a bad checksum is decided"),
        pytest.param(four(tcp(1024, 80), 6)[: 14 + 19], None, id="19 bytes of header: passes"),
        pytest.param(six(udp6(1, 2), 17)[: 14 + 39], None, id="39 bytes of IPv6 header: passes"),
        pytest.param(six(udp6(1, 2), 17)[: 14 + 40], DRIVER, id="40 bytes are decided"),
    ],
)
def test_headers_that_can_be_decided_on(frame: bytes, expected: Stage | None) -> None:
    found = stage(frame, felix=NONE)
    assert found is (expected or Stage.IP_INPUT)


def test_a_packet_that_raw_drops_has_the_reason_why_xdp_passed_it() -> None:
    hops = Explainer(resources(FOUR), HOST, mode=Mode.NATIVE).explain(four(tcp(1024, 80)[:19], 6)).hops
    raw = next(hop for hop in hops if hop.stage is Stage.RAW)
    assert raw.entry == "gnp/p ingress[0]"
    assert raw.note == (
        "driver passed it: failsafe tcp/22 might apply: "
        "its ports cannot be determined here (19 of 20 bytes of its header)"
    )


def test_a_fragment_dropped_in_the_driver_leaves_its_datagram_incomplete() -> None:
    data = segment(6, SOURCE, ME4, (1024, 80), bytes(28))
    frames = [four(data[:24], 6, fragment=0x2000), four(data[24:], 6, fragment=3)]
    traces = Explainer(resources(FOUR), HOST, mode=Mode.NATIVE).explain_capture(frames)
    assert [trace.disposition.stage for trace in traces] == [Stage.DRIVER, Stage.DEFRAG]
    without = Explainer(resources(FOUR), HOST, mode=None).explain_capture(frames)
    assert [trace.disposition.entry for trace in without] == ["gnp/p ingress[0]"] * 2
