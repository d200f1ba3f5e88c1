"""What does not fit into the memory of the follower is undetermined, never guessed; what it keeps between batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dossim.engine.follower import LIMITS, Followed, Follower, Limits
from dossim.model.disposition import Fate
from dossim.packet.capture import Capture
from dossim.predict.following import note, way_of
from dossim.predict.prediction import CT_BITS, FATE_CODE, Draft
from dossim.predict.world import predictor_of, reasons_of
from enforcer.model.choices import ModeChoice
from enforcer.model.vocabulary import Action, CtState
from enforcer.policy.resources import Resources
from enforcer.policy.ruletable import RuleTable
from tests.support.frames import ME4, ethernet, ipv4, segment
from tests.support.tracked_witnesses import tables_of
from tests.support.witnesses import plan_for
from tests.unit.dossim.pipeline.tracked_support import ALLOW, HOST, PEER, UDP, given, ingress, rule, udp

OPEN = given(ingress("all", ALLOW))
ONE_PORT = given(ingress("one", rule(Action.ALLOW, UDP, 9)))
FEW = Limits(flow_bytes=20_000)  # some 200 flows
MORE = 0x2000


def follow(
    policy: Resources, batches: Sequence[Sequence[bytes]], limits: Limits = LIMITS
) -> tuple[list[Draft], list[Followed]]:
    plan, tables = plan_for(policy, HOST, ModeChoice.RAW), tables_of(policy, HOST)
    way, drafts, found = way_of(plan, HOST, tables, RuleTable(HOST.inside), tracks=True), [], []
    with Follower(predictor_of(plan, HOST, [way]), [way], limits=limits) as follower:
        for at, frames in enumerate(batches):
            capture = Capture.from_frames(frames)
            draft = Draft(capture, reasons_of(HOST))
            found += follower.follow(capture, [draft], is_last=at == len(batches) - 1)[0]
            note(draft, found[-1])
            drafts.append(draft)
    return drafts, found


def states(draft: Draft, packet: int) -> set[CtState]:
    return {state for state, bit in CT_BITS.items() if draft.ct[packet] & bit}


def test_a_packet_of_a_flow_that_is_not_kept_has_every_state() -> None:
    many = [udp(9, sport=port) for port in range(2_000, 3_000)]
    (draft,), _ = follow(OPEN, [[*many, many[0], many[-1]]], FEW)
    assert states(draft, 0) == {CtState.NEW}
    assert states(draft, 1_000) == {CtState.NEW}, "the first flow is kept"
    assert states(draft, 1_001) == {CtState.NEW, CtState.ESTABLISHED}
    assert "more flows than the prediction keeps" in draft.reasons[draft.ct_reason[1_001]]
    assert draft.fate[1_001] == FATE_CODE[Fate.DELIVERED], "in both states"


def test_its_end_is_undetermined_where_that_depends_on_the_state() -> None:
    many = [udp(9, sport=port) for port in range(2_000, 3_000)]
    (draft,), _ = follow(ONE_PORT, [[*many, udp(10, sport=2_999)]], FEW)
    assert draft.fate[1_000] == FATE_CODE[Fate.UNDETERMINED]
    assert draft.reasons[draft.reason[1_000]] == (
        "depends on earlier packets: there are more flows than the prediction keeps"
    )


def test_flows_that_leave_no_entry_take_no_room() -> None:
    many = [udp(10, sport=port) for port in range(2_000, 3_000)]
    (draft,), _ = follow(ONE_PORT, [[*many, many[-1]]], FEW)
    assert states(draft, 1_000) == {CtState.NEW}


def fragment(ident: int, at: int, more: int) -> bytes:
    data = segment(UDP, PEER, ME4, (1_024, 9), bytes(100))
    part = data[at : at + 48] if more else data[at:]
    header = ipv4(part, source=PEER, destination=ME4, protocol=UDP, ident=ident, fragment=more | at // 8)
    return ethernet(header, 0x0800)


def test_fragments_beyond_what_is_kept_are_undetermined() -> None:
    waiting = [fragment(ident, 0, MORE) for ident in range(1_000)]
    (draft,), _ = follow(OPEN, [[*waiting, fragment(0, 48, 0), fragment(999, 48, 0)]], Limits(fragment_bytes=50_000))
    fates = [Fate(list(Fate)[code]) for code in draft.fate.tolist()]
    assert (fates[0], fates[1_000]) == (Fate.DELIVERED, Fate.DELIVERED), "what was kept is completed"
    assert fates[1] is Fate.DROPPED, "it waits for the end"
    assert (fates[999], fates[1_001]) == (Fate.UNDETERMINED, Fate.UNDETERMINED)
    assert draft.reasons[draft.reason[999]] == "more fragments wait than the prediction keeps"


@pytest.mark.parametrize("between", [0, 3])
def test_the_fragments_of_a_datagram_may_be_in_several_batches(between: int) -> None:
    batches = [[fragment(1, 0, MORE)], *[[udp(9)]] * between, [fragment(1, 48, 0)]]
    drafts, found = follow(OPEN, batches)
    assert [len(one.late) for one in found] == [*[0] * (len(batches) - 1), 1]
    (late,) = found[-1].late
    assert (late["number"], late["fate"], late["states"]) == (
        0, drafts[-1].fate[0], CT_BITS[CtState.NEW],
    )  # fmt: skip
    assert late["fate"] == FATE_CODE[Fate.DELIVERED]


def test_what_waits_at_the_end_is_told_with_the_last_batch() -> None:
    _, found = follow(OPEN, [[fragment(1, 0, MORE)], [udp(9)]])
    (late,) = found[-1].late
    assert (late["number"], late["fate"]) == (0, FATE_CODE[Fate.DROPPED])


def test_a_packet_that_is_not_within_the_data_is_refused() -> None:
    capture = Capture.from_frames([udp(9)])
    broken = Capture(**{**vars(capture), "offset": np.array([len(capture.data)])})
    engine = predictor_of(plan_for(OPEN, HOST, ModeChoice.RAW), HOST)
    with pytest.raises(ValueError, match="packet 0 is not within"):
        engine.predict(broken, Draft(capture), records_flows=True)
