"""What is read of a packet for suggest: as a rule in raw matches it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from dossim.packet.capture import Capture
from dossim.suggest.failsafe import passes
from dossim.suggest.signature import Signature, signatures
from dossim.suggest.tally import Ranges, tally
from dossim.suggest.traffic import NONE, read_traffic
from enforcer.model.vocabulary import Side
from enforcer.policy.resources import Failsafe, FelixConfiguration
from tests.support.frames import ME4, ethernet, ipv4, segment
from tests.unit.dossim.suggest.generated import ICMP, TCP, UDP, capture, frame

ONE = "203.0.113.9"


def test_sources_protocols_and_ports_of_both_families() -> None:
    found = read_traffic(capture([(ONE, UDP, (53, 9)), ("2001:db8::1", TCP, (443, 80))]), []).traffic
    assert found.packet.tolist() == [0, 1]
    assert found.is_six.tolist() == [False, True]
    assert found.key.tolist() == [int(ip_address(ONE)) << 32, 0x20010DB8 << 32]
    assert list(zip(found.protocol.tolist(), found.value.tolist(), found.destination_port.tolist(), strict=True)) == [
        (UDP, 53, 9),
        (TCP, 443, 80),
    ]


def test_what_the_host_sends_and_what_is_not_ip_is_left_out() -> None:
    frames = [frame(ME4, UDP, (53, 9)), ethernet(bytes(50), 0x0806), frame(ONE, UDP, (53, 9)), bytes(3)]
    found = read_traffic(Capture.from_frames(frames), [ip_address(ME4)])
    assert (found.sent, found.other, found.traffic.packet.tolist()) == (1, 2, [2])


def test_later_fragments_have_the_ports_of_the_first_in_any_order() -> None:
    whole = segment(UDP, ONE, ME4, (161, 9), bytes(100))
    first = ipv4(whole[:48], source=ONE, destination=ME4, protocol=UDP, ident=7, fragment=0x2000)
    later = ipv4(whole[48:], source=ONE, destination=ME4, protocol=UDP, ident=7, fragment=6)
    other = ipv4(whole[48:], source=ONE, destination=ME4, protocol=UDP, ident=8, fragment=6)
    found = read_traffic(Capture.from_frames([ethernet(each, 0x0800) for each in (later, first, other)]), []).traffic
    assert found.value.tolist() == [161, 161, NONE]


def test_what_most_packets_share_is_found_and_what_the_baseline_shares_too_is_not() -> None:
    attack = read_traffic(
        capture([(f"203.0.113.{n}", UDP, (123, 1000 + n)) for n in range(90)] + [(ONE, ICMP, (0, 0))] * 10), []
    )
    usual = read_traffic(capture([(ONE, ICMP, (0, 0))] * 3 + [(ONE, TCP, (5, 6))]), [])
    assert signatures(attack.traffic, usual.traffic) == (Signature(UDP, Side.SOURCE, 123),)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        pytest.param((ONE, TCP, (999, 22)), True, id="to a failsafe port"),
        pytest.param((ONE, TCP, (22, 999)), False, id="from a port that is failsafe inbound"),
        pytest.param((ONE, UDP, (53, 999)), True, id="the answer to what a failsafe lets out"),
        pytest.param((ONE, UDP, (999, 22)), False, id="of another protocol"),
        pytest.param((ONE, TCP, (999, 7000)), False, id="to a failsafe port of other networks"),
        pytest.param(("10.1.2.3", TCP, (999, 7000)), True, id="to a failsafe port of this network"),
    ],
)
def test_what_no_untracked_policy_denies(packet: tuple[str, int, tuple[int, int]], expected: bool) -> None:
    felix = FelixConfiguration("default")
    felix = FelixConfiguration(
        "default", failsafe_inbound=(*felix.failsafe_inbound, Failsafe(TCP, 7000, ip_network("10.0.0.0/8")))
    )
    assert passes(read_traffic(capture([packet]), []).traffic, felix).tolist() == [expected]


def test_packets_are_counted_by_source_and_signature() -> None:
    found = read_traffic(capture([(ONE, UDP, (123, 9)), (ONE, UDP, (123, 8)), (ONE, TCP, (1, 2))]), []).traffic
    counted = tally(found, [Signature(UDP, Side.SOURCE, 123), Signature(TCP, Side.DESTINATION, 2)], passing=4)
    assert (counted.mask.tolist(), counted.packets.tolist(), counted.total) == ([1, 2], [2, 1], 7)


@pytest.mark.parametrize(
    ("net", "inside", "outside"),
    [("203.0.113.0/25", "203.0.113.127", "203.0.113.128"), ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::")],
)
def test_ranges_end_where_networks_do(net: str, inside: str, outside: str) -> None:
    found = read_traffic(capture([(inside, UDP, (1, 1)), (outside, UDP, (1, 1))]), []).traffic
    assert Ranges([ip_network(net)]).contain(found.is_six, found.key).tolist() == [True, False]
