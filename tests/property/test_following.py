"""Packets that the engine follows through conntrack have the states, reasons and ends that explain gives them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dossim.engine.follower import Follower
from dossim.model.host import Host
from dossim.packet.capture import Capture
from dossim.packet.cut import frame_on_wire
from dossim.pipeline.explain import Explainer, Trace
from dossim.predict import Prediction, predict
from dossim.predict.following import refused_of, way_of
from dossim.predict.prediction import Draft
from dossim.predict.world import predictor_of, reasons_of
from enforcer.model.choices import ModeChoice, RawChoice
from enforcer.model.vocabulary import Action, Stage
from enforcer.policy.compile import compile_table
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import RuleTable
from tests.property.test_fragments import datagrams
from tests.support.counterexample import kept
from tests.support.cut_captures import cut_at
from tests.support.examples import examples
from tests.support.frames import ME4, ipv4, segment
from tests.support.strategies import hosts
from tests.support.tracked_strategies import spoken, tracked_resources
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
    "a packet of a protocol without header, cut": ("all is", [framed(253, bytes(8)), framed(253, bytes(8))], 8),
    "a repeated SYN that was let in": ("one port each", [tcp(0x02), tcp(0x02)], 0),
}


@pytest.mark.parametrize(("name", "frames", "cut"), ROWS.values(), ids=ROWS)
def test_packets_meet_what_those_before_them_left(name: str, frames: list[bytes], cut: int) -> None:
    compare(name, frames, cut)


@settings(max_examples=examples(50, nightly=20_000))
@given(st.sampled_from(list(POLICIES)), st.lists(st.sampled_from(POOL), min_size=1, max_size=3), st.data())
def test_packets_of_few_flows(name: str, few: list[bytes], data: st.DataObject) -> None:
    compare(name, data.draw(st.lists(st.sampled_from(few), min_size=2, max_size=6)), data.draw(st.sampled_from(CUTS)))


def test_a_frame_that_is_cut_in_its_ethernet_header_may_be_of_any_flow() -> None:
    capture = cut_at([udp(9), tcp(0x10)], [10, 54])
    for policy in POLICIES.values():
        judge(policy, HOST, capture)


def compare(name: str, frames: list[bytes], cut: int) -> None:
    """``cut``: bytes that the first frame lacks."""
    lengths = [len(frame) - (cut if at == 0 else 0) for at, frame in enumerate(frames)]
    judge(POLICIES[name], HOST, cut_at(frames, lengths))


# -- histories ---------------------------------------------------------------------------------------------------------

# Between packets, in ns: timeouts of seconds and minutes, and the host's timers.
GAPS = (0, 0, 0, 1_000, 400_000_000, 1_100_000_000, 2_100_000_000, 9 * 10**9, 31 * 10**9, 130 * 10**9, 310 * 10**9)
EDGES = (13, 14, 33, 34, 36, 38, 42, 46, 47, 50, 53, 54, 58, 62, 66, 74, 80)


def halved(frame: bytes, rng: random.Random) -> list[bytes]:
    """An IPv4 frame in two fragments, if it has enough data; some in disorder."""
    ethernet_header, packet = frame[:14], frame[14:]
    header, data = packet[:20], packet[20:]
    if packet[0] != 0x45 or len(data) < 9:
        return [frame]
    at = rng.randrange(8, len(data), 8)
    pieces = []
    for start, part, more in ((0, data[:at], 0x2000), (at, data[at:], 0)):
        found = ipv4(
            part, source=_address(header[12:16]), destination=_address(header[16:20]), protocol=header[9],
            ident=rng.randrange(3), fragment=more | start // 8,
        )  # fmt: skip
        pieces.append(ethernet_header + found)
    return pieces if rng.random() < 0.8 else pieces[:: rng.choice((-1, 2))]


def _address(buf: bytes) -> str:
    return ".".join(map(str, buf))


@st.composite
def histories(draw: st.DrawFn, host: Host) -> tuple[Capture, list[int] | None]:
    """Frames of few flows, some in fragments, some cut, and when they arrive."""
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    frames = draw(spoken(host, most=40))
    kind = draw(st.sampled_from(("plain", "plain", "fragments", "datagrams")))
    if kind != "plain":
        frames = [part for frame in frames for part in (halved(frame, rng) if rng.random() < 0.4 else [frame])]
    if kind == "datagrams":
        frames += datagrams(rng)
        rng.shuffle(frames)
    is_cut = draw(st.integers(0, 2)) == 0
    lengths = [min(len(frame), rng.choice(EDGES)) if is_cut and rng.random() < 0.2 else len(frame) for frame in frames]
    if draw(st.booleans()):
        return cut_at(frames, lengths), None
    times = [rng.choice(GAPS) for _ in frames]
    return cut_at(frames, lengths), [sum(times[: at + 1]) for at in range(len(times))]


@pytest.mark.long
@settings(max_examples=examples(50, nightly=20_000), suppress_health_check=list(HealthCheck))
@given(tracked_resources(), hosts(), st.sampled_from((RawChoice.IPTABLES, RawChoice.NFTABLES)), st.data())
def test_every_packet_has_the_states_and_the_end_of_explain(
    policy: Resources, host: Host, raw: RawChoice, data: st.DataObject
) -> None:
    capture, times = data.draw(histories(host))
    with kept("found-following", policy, host, [capture.frame(packet) for packet in range(len(capture))]):
        judge(policy, host, capture, times, raw)


@settings(max_examples=examples(50, nightly=20_000), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(POLICIES)), hosts(), st.data())
def test_of_policies_that_let_much_pass_as_well(name: str, host: Host, data: st.DataObject) -> None:
    judge(POLICIES[name], host, *data.draw(histories(host)))


# -- windows -----------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(40, nightly=20_000), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(POLICIES)), hosts(), st.data())
def test_batches_of_any_size_are_as_the_whole(name: str, host: Host, data: st.DataObject) -> None:
    """What is between two packets of a flow or a datagram is kept, and packets that wait get the same end later."""
    policy = POLICIES[name]
    plan, tables = plan_for(policy, host, ModeChoice.RAW), tables_of(policy, host)
    capture, times = data.draw(histories(host))
    at_ns = np.zeros(len(capture), np.int64) if times is None else np.array(times, np.int64)
    whole = predict(capture, plan, host, tables, states=True, times=at_ns)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(capture)), max_size=4)))
    way = way_of(plan, host, tables, RuleTable(host.inside), tracks=True)
    columns: list[list[tuple[int, ...]]] = []
    with Follower(predictor_of(plan, host, [way]), [way]) as follower:
        bounds = [0, *cuts, len(capture)]
        for start, stop in pairwise(bounds):
            draft = Draft(part := capture.part(start, stop), reasons_of(host))
            is_last = len(columns) == len(bounds) - 2
            (found,), _ = follower.follow(
                part, [draft], refused=refused_of(draft), times=at_ns[start:stop], is_last=is_last
            )
            kept_columns = draft.fate, draft.stage, draft.entry, draft.untracked, draft.ct
            columns.append(list(zip(*(column.tolist() for column in kept_columns), strict=True)))
            for late in found.late:
                place = int(np.searchsorted(bounds, late["number"], side="right")) - 1
                row = int(late["number"]) - bounds[place]
                assert place < len(columns) - 1 or row < 0, "of an earlier batch"
                columns[place][row] = tuple(
                    int(late[name]) for name in ("fate", "stage", "entry", "untracked", "states")
                )
    of_whole = whole.fate, whole.stage, whole.entry, whole.untracked, whole.ct
    assert [row for part in columns for row in part] == list(zip(*(item.tolist() for item in of_whole), strict=True))


# -- both witnesses ----------------------------------------------------------------------------------------------------


def judge(
    policy: Resources,
    host: Host,
    capture: Capture,
    times: Sequence[int] | None = None,
    raw: RawChoice = RawChoice.IPTABLES,
) -> None:
    plan = plan_for(policy, host, ModeChoice.RAW, raw)
    tables, inside = tables_of(policy, host), compile_table(policy, node=host.node, interface=host.inside)
    at_ns = None if times is None else np.array(times, np.int64)
    found = predict(capture, plan, host, tables, inside, states=tables.governs, times=at_ns)
    frames = [frame_on_wire(capture, packet) for packet in range(len(capture))]
    explainer = Explainer(policy, host, mode=None, raw_backend=plan.raw_backend, tracked=True)
    traces = explainer.explain_capture(frames, times)
    ends = [found.disposition(packet) for packet in range(len(capture))]
    assert not differences(ends, [trace.disposition for trace in traces])
    if tables.governs:
        assert [said_by_predict(found, packet) for packet in range(len(capture))] == list(map(said_by_explain, traces))


def said_by_predict(found: Prediction, packet: int) -> tuple[str, frozenset[str]]:
    """Why a packet has its states, and these; nothing if it does not get to conntrack."""
    said = found.ct_states(packet)
    if said is None:
        return "", frozenset()
    return said.reason, _states(said.reason) if "cut by the capture" in said.reason else frozenset(
        map(str, said.states)
    )


def said_by_explain(trace: Trace) -> tuple[str, frozenset[str]]:
    """The same, without the numbers of one packet."""
    hop = next(
        (hop for hop in trace.hops if hop.stage is Stage.CONNTRACK and hop.looked_at == "connection table"), None
    )
    if hop is None:
        return "", frozenset()
    said = re.sub(r" \([^()]*\)(?=; | or |$)", "", hop.result)
    return said, _states(said)


def _states(said: str) -> frozenset[str]:
    return frozenset(re.findall(r"(?:^| or )([A-Z]+): ", said))
