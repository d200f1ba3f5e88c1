"""Which packets of a capture are walked to explain one of them."""

from __future__ import annotations

import pytest

from dossim.packet.capture import Capture
from dossim.pipeline.explain import Explainer
from dossim.pipeline.related import related
from enforcer.model.vocabulary import Action
from tests.support.frames import ME4, ME6, SOURCES6, ethernet, ipv6
from tests.unit.dossim.pipeline.tracked_support import (
    HOST,
    ICMP,
    OTHER,
    PEER,
    UDP,
    echo,
    framed,
    given,
    icmp,
    ingress,
    rule,
    tcp,
    udp,
)

FIRST = framed(UDP, bytes(16), fragment=0x2000, ident=5)
LAST = framed(UDP, bytes(16), fragment=0x0002, ident=5)
ELSE = framed(UDP, bytes(16), fragment=0x0002, ident=6)
FIRST6, ODD6 = (
    ethernet(
        ipv6(bytes([UDP, 0, 0, 1, 0, 0, 0, 5]) + data, source=SOURCES6[0], destination=ME6, next_header=44), 0x86DD
    )
    for data in (bytes(16), bytes(13))
)
ERROR = framed(ICMP, icmp(3, bytes(28)))


@pytest.mark.parametrize(
    ("frames", "number", "untracked", "tracked"),
    [
        pytest.param([udp(), udp(), udp()], 1, [1], [0, 1], id="what was there before"),
        pytest.param([udp(source=OTHER), udp()], 1, [1], [1], id="not of other addresses"),
        pytest.param([udp(source=ME4, destination=PEER), udp()], 1, [1], [0, 1], id="of the other direction"),
        pytest.param([tcp(), udp()], 1, [1], [0, 1], id="of any protocol"),
        pytest.param([FIRST, udp(), LAST, udp()], 0, [0, 2], [0, 1, 2], id="before the last fragment"),
        pytest.param([FIRST, ELSE, LAST], 2, [0, 2], [0, 1, 2], id="another datagram of the addresses"),
        pytest.param([FIRST6, ODD6], 0, [0, 1], [0, 1], id="a fragment of a bad length, which ends its datagram"),
        pytest.param([udp(source=OTHER), ERROR], 1, [1], [0, 1], id="an ICMP error may quote any packet"),
        pytest.param([udp(source=OTHER), echo()], 1, [1], [1], id="an echo request quotes none"),
    ],
)
def test_the_packets_that_count(frames: list[bytes], number: int, untracked: list[int], tracked: list[int]) -> None:
    capture = Capture.from_frames(frames)
    assert related(capture, number) == untracked
    assert related(capture, number, tracked=True) == tracked


def test_they_explain_the_packet_as_the_whole_capture_does() -> None:
    frames = [echo(source=OTHER), udp(), FIRST, echo(), ERROR, echo(source=OTHER), LAST, echo(), udp(), udp(99)]
    capture = Capture.from_frames(frames)
    policy = given(ingress("i", rule(Action.ALLOW, ICMP), rule(Action.ALLOW, UDP, 9)))
    explainer = Explainer(policy, HOST, mode=None, tracked=True)
    whole = explainer.explain_capture(frames)
    for number in range(len(frames)):
        kept = related(capture, number, tracked=True)
        found = explainer.explain_packet_of([frames[index] for index in kept], kept.index(number))
        assert found.disposition == whole[number].disposition
        assert [hop.result for hop in found.hops][-3:] == [hop.result for hop in whole[number].hops][-3:]
