"""Packets whose state their own header tells end as they do when every packet is followed through conntrack."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dossim.model.disposition import Disposition
from dossim.packet.capture import Capture
from dossim.packet.cut import frame_on_wire
from dossim.pipeline.explain import Explainer
from dossim.predict import following as follower
from dossim.predict import predict
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Action
from enforcer.policy.resources import Resources
from tests.support.cut_captures import cut_at
from tests.support.examples import examples
from tests.support.frames import ME4, ipv4, segment
from tests.support.tracked_witnesses import differences, tables_of
from tests.support.witnesses import plan_for
from tests.unit.dossim.pipeline import tracked_support as of
from tests.unit.dossim.pipeline.tracked_support import ALLOW, ICMP, PEER, TCP, UDP, framed, ingress, rule, tcp, udp

HOST = replace(of.HOST, forward=False, routes=())
ANSWER = udp(1024, sport=9, source=ME4, destination=PEER)  # of the host, as if it were received
QUOTED = ipv4(segment(UDP, ME4, PEER, (9, 1024), b"data"), source=ME4, destination=PEER, protocol=UDP)
ERROR = framed(ICMP, of.icmp(3, QUOTED))
SYN_DATA = framed(TCP, segment(TCP, PEER, ME4, (1024, 80), b"data"))
CUTS = (0, 0, 0, 1)
# Few flows, so that they repeat.
POOL = (
    *(
        tcp(flags, port, seq=seq)
        for flags in (0x02, 0x10, 0x12, 0x04, 0x06)
        for port in (80, 443)
        for seq in (1, 1_001)
    ),
    *(udp(port, sport=sport) for port in (9, 10) for sport in (1024, 1025)),
    tcp(checksum=False),
    udp(9)[:-1] + b"!",
    ANSWER,
    ERROR,
    SYN_DATA,
    framed(of.TCP, segment(TCP, PEER, ME4, (1024, 80), b"")[:3]),
)
POLICIES = {
    "nothing is allowed": of.given(),
    "all is": of.given(ingress("all", ALLOW)),
    "one port each": of.given(ingress("some", rule(Action.ALLOW, TCP, 80), rule(Action.ALLOW, UDP, 9))),
    "the answer is denied first": of.given(of.pre_dnat("early", rule(Action.DENY, UDP, 1024)), ingress("all", ALLOW)),
    "one port untracked": of.given(of.untracked("raw", rule(Action.ALLOW, UDP, 9), rule(Action.ALLOW, TCP, 443))),
}


ROWS = {
    "an answer from the wire: ESTABLISHED": ("the answer is denied first", [udp(9), ANSWER], 0),
    "a packet of a flow that may have an entry": ("all is", [SYN_DATA, tcp(0x04)], 1),
    "an ICMP error about a flow that was let in": ("one port each", [udp(9), ERROR], 0),
    "a repeated SYN that was let in": ("one port each", [tcp(0x02), tcp(0x02)], 0),
}


@pytest.mark.parametrize(("name", "frames", "cut"), ROWS.values(), ids=ROWS)
def test_packets_that_meet_an_entry_are_followed(name: str, frames: list[bytes], cut: int) -> None:
    compare(name, frames, cut)


@settings(max_examples=examples(150, nightly=20_000))
@given(st.sampled_from(list(POLICIES)), st.lists(st.sampled_from(POOL), min_size=1, max_size=3), st.data())
def test_lone_packets_are_as_those_that_are_followed(name: str, few: list[bytes], data: st.DataObject) -> None:
    compare(name, data.draw(st.lists(st.sampled_from(few), min_size=2, max_size=6)), data.draw(st.sampled_from(CUTS)))


def test_a_frame_that_is_cut_in_its_ethernet_header_may_be_of_any_flow() -> None:
    capture = cut_at([udp(9), tcp(0x10)], [10, 54])
    for policy in POLICIES.values():
        assert not differences(ends(policy, capture), explained(policy, capture))


def compare(name: str, frames: list[bytes], cut: int) -> None:
    """The ends with and without lone packets, and those of explain; ``cut``: bytes that the first frame lacks."""
    capture = cut_at(frames, [len(frame) - (cut if at == 0 else 0) for at, frame in enumerate(frames)])
    judged = ends(POLICIES[name], capture)
    assert not differences(judged, explained(POLICIES[name], capture))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follower, "lone_packets", lambda *about: [])
        assert not differences(judged, ends(POLICIES[name], capture))


def explained(policy: Resources, capture: Capture) -> list[Disposition]:
    frames = [frame_on_wire(capture, packet) for packet in range(len(capture))]
    explainer = Explainer(policy, HOST, mode=None, tracked=True)
    return [trace.disposition for trace in explainer.explain_capture(frames)]


def ends(policy: Resources, capture: Capture) -> list[Disposition]:
    found = predict(capture, plan_for(policy, HOST, ModeChoice.RAW), HOST, tables_of(policy, HOST))
    return [found.disposition(packet) for packet in range(len(capture))]
