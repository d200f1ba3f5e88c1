"""What conntrack said of packets that ended as predicted: one of the predicted states, or a mismatch of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from dossim.drill.results import DrillResult, PredictResult
from dossim.drill.run import predict_capture
from dossim.drill.situation import Situation, lab_facts, plan_for
from dossim.packet.capture import Capture
from dossim.predict import Prediction, predict
from dossim.report.html import html
from dossim.report.json import as_dict
from dossim.report.text import failure_lines
from dossim.report.view import view_of
from enforcer.model.vocabulary import CtState
from enforcer.policy.resources import Resources
from tests.support.cut_captures import cut_at
from tests.support.frames import ethernet
from tests.support.talk import ACK, HOST, RST, SYN, icmp, tcp, udp
from tests.unit.dossim.fabricated import drilled

SITUATION = Situation(Resources(), HOST)
NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED = CtState
SECOND = 1_000_000_000
ECHO = icmp(8)
OPEN = (1024, 80)
# An ACK after a SYN to a listening port acknowledges an ISN that the host chose: one of two states.
PACKETS = [udp(), tcp(SYN, ports=OPEN), tcp(ACK, 1_001, 7, ports=OPEN), tcp(RST), b"\x55" * 40]
AS_KERNEL = {0: NEW, 1: NEW, 2: INVALID, 3: INVALID}


def frames(packets: Sequence[bytes]) -> list[bytes]:
    return [ethernet(packet, 0x0800) for packet in packets]


def predicted(capture: Capture, times: Sequence[int] | None = None) -> Prediction:
    plan = plan_for(SITUATION, lab_facts(HOST))
    at_ns = None if times is None else np.array(times, np.int64)
    return predict(capture, plan, HOST, states=True, times=at_ns)


def states_of(found: Prediction) -> list[set[CtState]]:
    each = [found.ct_states(packet) for packet in range(len(found))]
    return [set(one.states) if one else set() for one in each]


def drill(states: Mapping[int, CtState]) -> DrillResult:
    capture = Capture.from_frames(frames(PACKETS))
    result = predict_capture(capture, SITUATION)
    with_states = PredictResult(**{**vars(result), "prediction": predicted(capture)})
    return drilled(with_states, states=states)


def test_each_packet_has_the_states_that_conntrack_may_give_it() -> None:
    found = predicted(Capture.from_frames(frames(PACKETS)))
    assert states_of(found) == [{NEW}, {NEW}, {ESTABLISHED, INVALID}, {INVALID}, set()]
    several = found.ct_states(2)
    assert several is not None
    assert "depends on the initial sequence number" in several.reason


def test_without_being_asked_a_prediction_has_no_states() -> None:
    found = predict_capture(Capture.from_frames(frames(PACKETS)), SITUATION).prediction
    assert not found.has_states
    assert states_of(found) == [set()] * len(PACKETS)


def test_entries_expire_between_packets_that_arrive_apart() -> None:
    capture = Capture.from_frames(frames([ECHO, ECHO, ECHO]))
    assert states_of(predicted(capture)) == [{NEW}, {ESTABLISHED}, {ESTABLISHED}]
    assert states_of(predicted(capture, [0, 29 * SECOND, 60 * SECOND])) == [{NEW}, {ESTABLISHED}, {NEW}]


def test_a_packet_that_was_cut_where_that_decides_has_every_state_that_it_may_have() -> None:
    whole = frames([udp()])[0]
    found = predicted(cut_at([whole, whole], [len(whole), 40]))
    first, second = states_of(found)
    assert first == {NEW}
    assert {NEW, ESTABLISHED, RELATED, INVALID} >= second > {NEW}


def test_what_is_cut_before_anything_can_be_read_may_be_of_any_flow() -> None:
    whole = frames([ECHO])[0]
    first, second, third = states_of(predicted(cut_at([whole, whole, whole], [len(whole), 5, len(whole)])))
    assert (first, second) == ({NEW}, set())
    assert third > {ESTABLISHED}


@pytest.mark.parametrize(
    ("otherwise", "counts"),
    [({}, (4, 0, 1)), ({2: ESTABLISHED}, (4, 0, 1)), ({2: NEW}, (3, 1, 0)), ({1: ESTABLISHED}, (3, 1, 1))],
    ids=["as predicted", "the other of two", "none of two", "another than the one"],
)
def test_a_state_that_is_none_of_the_predicted_ones_is_a_mismatch(
    otherwise: Mapping[int, CtState], counts: tuple[int, int, int]
) -> None:
    result = drill({**AS_KERNEL, **otherwise})
    found = result.verification
    compared = found.compared_states
    assert (compared.matched, compared.differing, compared.several) == counts
    assert found.mismatched == compared.differing
    assert found.matched + found.mismatched == found.packets
    assert found.agrees is not compared.differing
    assert [item.is_state for item in found.mismatches] == [True] * compared.differing


def test_a_packet_that_was_to_get_to_conntrack_and_did_not_is_one_as_well() -> None:
    without = {packet: state for packet, state in AS_KERNEL.items() if packet}
    assert [item.packet for item in drill(without).verification.mismatches] == [0]
    assert [item.packet for item in drill({**AS_KERNEL, 4: NEW}).verification.mismatches] == [4]


def test_every_report_has_both_sides_and_the_reason() -> None:
    view = view_of(drill({**AS_KERNEL, 2: NEW}))
    lines = "\n".join(failure_lines(view))
    assert "5 packets: predicted != observed: 1 mismatched (1 of them only in what conntrack said)" in lines
    assert "  predicted ctstate ESTABLISHED or INVALID (" in lines
    assert "depends on the initial sequence number that the host chose" in lines
    assert "  observed  ctstate NEW, delivered as predicted: " in lines
    assert view.conntrack == "conntrack: 3 NEW, 1 INVALID; 3 as predicted; 1 not as predicted"
    data = json.loads(json.dumps(as_dict(view)))
    assert data["states"] == {"NEW": 3, "INVALID": 1, "matched": 3, "differing": 1, "several": 0}
    (wrong,) = data["mismatches"]
    assert (wrong["differs_in"], wrong["predicted"]["states"]) == ("state", ["ESTABLISHED", "INVALID"])
    assert "initial sequence number" in wrong["predicted"]["states_reason"]
    assert wrong["observed"]["state"] == "NEW"
    page = html([view], title="states")
    assert '<td class="n">3</td><td class="n bad">1</td>' in page
    assert "ctstate ESTABLISHED or INVALID (" in page


def test_what_agrees_says_so() -> None:
    view = view_of(drill(AS_KERNEL))
    assert view.agrees
    assert view.conntrack == "conntrack: 2 NEW, 2 INVALID; 4 as predicted, 1 of them one of several possible"
    assert "1 packet had one of several possible states." in html([view], title="states")
