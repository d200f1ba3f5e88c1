"""Expectations: those that hold, those that fail and what is shown, and those that only a drill can decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from dossim.model.disposition import Disposition, Fate
from dossim.packet.capture import Capture
from dossim.predict.prediction import FATE_CODE, NO_STAGE, STAGE_CODE
from dossim.scenario.expect import UNSEEN, Ends, Outcome, _evaluate
from dossim.scenario.model import (
    Bounds,
    ConntrackExpectation,
    ConntrackTableExpectation,
    EntryExpectation,
    Expectation,
    PacketExpectation,
)
from dossim.scenario.traffic import LabelledCapture
from enforcer.model.choices import ModeChoice
from enforcer.model.conntrack import ConntrackStatistics
from enforcer.model.vocabulary import CtState, Stage
from tests.unit.dossim.fabricated import holding, scenario_result

# Ten packets: seven of the attack, of which one got through, and three others.
FATES = [Fate.DROPPED] * 6 + [Fate.DELIVERED] * 4
STAGES = [Stage.DRIVER] * 4 + [Stage.RAW, Stage.ROUTE] + [None] * 4
TRAFFIC = LabelledCapture(
    Capture.from_frames([bytes(60)] * 10), ("attack", "ok"), np.array([0] * 7 + [1] * 3, np.uint16)
)


def ends(
    entries: Mapping[str, int] | None = None,
    tracked: int | None = None,
    undetermined: Sequence[int] = (),
    perhaps: int = 0,
    conntrack: ConntrackStatistics | None = None,
    states: Mapping[CtState, int] | None = None,
) -> Ends:
    determined = np.ones(len(FATES), np.bool_)
    determined[list(undetermined)] = False
    stages = [NO_STAGE if stage is None else STAGE_CODE[stage] for stage in STAGES]
    fates = [FATE_CODE[fate] for fate in FATES]
    columns = np.array(fates, np.uint8), np.array(stages, np.uint8)
    return Ends(*columns, entries or {}, tracked, determined, perhaps, len(undetermined), conntrack, states)


def outcome(expectation: Expectation, **given: object) -> Outcome:
    return _evaluate(expectation, TRAFFIC, ends(**given))  # type: ignore[arg-type]  # of several types


DROPPED = Fate.DROPPED
ROWS = [
    ("all of a label", PacketExpectation(Fate.DELIVERED, "ok"), True),
    ("all of a label, but one", PacketExpectation(DROPPED, "attack"), False),
    ("a share at its bound", PacketExpectation(DROPPED, "attack", share=Bounds(6 / 7, None)), True),
    ("a share beyond its bound", PacketExpectation(DROPPED, "attack", share=Bounds(0.9, None)), False),
    ("at most a share", PacketExpectation(Fate.DELIVERED, "attack", share=Bounds(None, 0.2)), True),
    ("more than at most", PacketExpectation(Fate.DELIVERED, "attack", share=Bounds(None, 0.1)), False),
    ("none", PacketExpectation(Fate.FORWARDED, share=Bounds(0.0, 0.0)), True),
    ("exactly at a stage", PacketExpectation(DROPPED, "attack", Stage.DRIVER, share=Bounds(4 / 7, 4 / 7)), True),
    (
        "up to a stage, itself included",
        PacketExpectation(DROPPED, at_or_before=Stage.RAW, share=Bounds(0.5, 0.5)),
        True,
    ),
    ("up to an earlier stage", PacketExpectation(DROPPED, at_or_before=Stage.DEFRAG, share=Bounds(0.4, 0.4)), True),
    ("a label no packet has", PacketExpectation(DROPPED, "ok", share=Bounds(0.0, 0.0)), True),
]


@pytest.mark.parametrize(("expectation", "holds"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_packets(expectation: PacketExpectation, holds: bool) -> None:
    assert outcome(expectation).holds is holds


def test_a_failure_names_the_packets_that_ended_otherwise() -> None:
    assert outcome(PacketExpectation(DROPPED, "attack")).packets == (6,)
    assert outcome(PacketExpectation(Fate.DELIVERED, "attack", share=Bounds(None, 0.1))).packets == (6,)
    assert outcome(PacketExpectation(DROPPED, "attack")).found == "6 of 7 packets"


def test_entries() -> None:
    expectation = EntryExpectation("gnp/x ingress[0]", Bounds(5, 5))
    assert outcome(expectation, entries={"gnp/x ingress[0]": 5}).holds is True
    assert outcome(expectation, entries={"gnp/x ingress[0]": 6}).holds is False
    assert outcome(expectation).holds is False


def test_conntrack_is_known_only_after_a_drill() -> None:
    expectation = ConntrackExpectation(Bounds(None, 3))
    assert outcome(expectation).holds is None
    assert outcome(expectation, tracked=3).holds is True
    assert outcome(expectation, tracked=4).holds is False


def test_expectations_read_as_sentences() -> None:
    assert str(PacketExpectation(DROPPED, "a", at_or_before=Stage.RAW)) == "a: all dropped at or before raw"
    assert str(PacketExpectation(DROPPED, share=Bounds(0.5, None))) == "all packets: a share of at least 0.5 dropped"
    assert str(EntryExpectation("e", Bounds(2000, 2000))) == "e drops 2,000 packets"
    assert str(ConntrackExpectation(Bounds(1, 60))) == "conntrack entries: at least 1 and at most 60"


def test_a_prediction_is_held_against_what_can_be_predicted() -> None:
    result = scenario_result(drill=False)
    assert not result.drilled
    assert result.holds
    assert holding(result.outcomes) == [True, True, None]


def test_a_drill_is_expected_to_agree_without_being_told() -> None:
    result = scenario_result()
    assert result.holds
    assert result.outcomes[0].expectation == "predicted == observed"
    assert holding(result.outcomes) == [True, True, True, True]


@pytest.mark.parametrize("ending", [(Fate.DELIVERED, None), None], ids=["mismatched", "unobserved"])
def test_one_packet_is_enough_to_fail(ending: tuple[Fate, None] | None) -> None:
    result = scenario_result(otherwise={17: ending})
    assert not result.holds
    assert result.outcomes[0].holds is False
    assert result.outcomes[0].packets == (17,)


def test_only_expectations_of_the_mode_count() -> None:
    for mode, stage in ((ModeChoice.NATIVE, "driver"), (ModeChoice.RAW, "raw")):
        (about_packets, *_) = scenario_result(mode=mode, drill=False).outcomes
        assert about_packets.expectation == f"attack: all dropped at {stage}"


def test_only_what_is_determined_counts_and_the_rest_is_said() -> None:
    expectation = PacketExpectation(DROPPED, "attack")
    held = outcome(expectation, undetermined=[6])  # the one that got through
    assert held.holds
    assert held.found == "6 of 6 packets; 1 more are not determined"


def test_nothing_is_held_by_packets_that_are_not_determined() -> None:
    for share in (Bounds(1.0, 1.0), Bounds(0.0, 0.0), Bounds(None, 0.5)):
        found = outcome(PacketExpectation(Fate.DELIVERED, "ok", share=share), undetermined=[7, 8, 9])
        assert found.holds is False
        assert found.found == "no packet with this label is determined, of 3"


@pytest.mark.parametrize(("perhaps", "holds"), [(0, True), (2, True), (3, False)])
def test_an_entry_holds_whatever_undetermined_packets_are(perhaps: int, holds: bool) -> None:
    expectation = EntryExpectation("gnp/x ingress[0]", Bounds(5, 7))
    assert outcome(expectation, entries={"gnp/x ingress[0]": 5}, perhaps=perhaps).holds is holds


def test_conntrack_entries_are_not_counted_by_what_was_sent_for_cut_packets() -> None:
    """A cut packet is sent with zeros, so conntrack rejects it because of its checksum."""
    none = ConntrackExpectation(Bounds(0, 0))
    assert outcome(none, tracked=0).holds is True
    assert outcome(none, tracked=0, undetermined=[3]).holds is False
    assert outcome(none, tracked=0, undetermined=[3]).found == "0 entries; 1 more packet is undetermined"
    assert outcome(ConntrackExpectation(Bounds(4, None)), tracked=4, undetermined=[3]).holds is False
    assert outcome(ConntrackExpectation(Bounds(3, 5)), tracked=4, undetermined=[3]).holds is True


TABLE = ConntrackTableExpectation(
    states={CtState.NEW: Bounds(7, 7)},
    entries=Bounds(None, 60),
    early_drop=Bounds(10, None),
    dropped=Bounds(2, 3),
)


def test_an_expectation_of_the_table_reads_as_a_sentence() -> None:
    assert (
        str(TABLE) == "conntrack: NEW 7, entries at most 60, early-drop at least 10, dropped at least 2 and at most 3"
    )


@pytest.mark.parametrize(
    ("counts", "tracked", "new", "holds"),
    [
        (ConntrackStatistics(dropped=3, early_drop=10), 60, 7, True),
        (ConntrackStatistics(dropped=4, early_drop=10), 60, 7, False),
        (ConntrackStatistics(dropped=1, early_drop=10), 60, 7, False),
        (ConntrackStatistics(dropped=3, early_drop=9), 60, 7, False),
        (ConntrackStatistics(dropped=3, early_drop=10), 61, 7, False),
        (ConntrackStatistics(dropped=3, early_drop=10), 60, 6, False),
        (ConntrackStatistics(dropped=3, early_drop=10), 60, None, None),
        (None, 60, 7, None),
        (None, 61, 7, False),
    ],
    ids=[
        *("all hold", "too many dropped", "too few dropped", "too few evicted", "too many entries", "another state"),
        *("states were not observed", "counters cannot be read", "one count fails although others are unknown"),
    ],
)
def test_the_table(counts: ConntrackStatistics | None, tracked: int, new: int | None, holds: bool | None) -> None:
    states = None if new is None else {CtState.NEW: new}
    assert outcome(TABLE, tracked=tracked, conntrack=counts, states=states).holds is holds


def test_what_was_found_of_the_table() -> None:
    found = outcome(TABLE, tracked=5, conntrack=ConntrackStatistics(dropped=3, early_drop=10)).found
    assert found == "NEW unknown; entries 5; early-drop 10; dropped 3"
    assert outcome(TABLE).found == "only a drill can tell"
    none = ConntrackTableExpectation(dropped=Bounds(0, 0))
    assert outcome(none, tracked=0, conntrack=ConntrackStatistics(), undetermined=[3]).holds is False
    assert outcome(none, tracked=0, conntrack=ConntrackStatistics()).holds is True


@pytest.mark.parametrize(
    ("fate", "share", "holds"),
    [
        (DROPPED, Bounds(1.0, 1.0), False),
        (DROPPED, Bounds(0.8, None), None),
        (DROPPED, Bounds(0.0, 0.5), False),
        (DROPPED, Bounds(5 / 7, 6 / 7), True),
        (Fate.FORWARDED, Bounds(0.0, 0.0), None),
    ],
)
def test_what_was_not_seen_may_have_ended_either_way(fate: Fate, share: Bounds, holds: bool | None) -> None:
    """Of the seven packets of the attack five were seen to be dropped, one was delivered, one is unobserved."""
    seen = ends()
    seen.fate[0] = seen.stage[0] = UNSEEN
    assert _evaluate(PacketExpectation(fate, "attack", share=share), TRAFFIC, seen).holds is holds


# --- several possible ends --------------------------------------------------------------------------------------------

BY_TRACKED = "conntrack INVALID ingress"
EITHER = (Disposition(Fate.DELIVERED), Disposition(Fate.DROPPED, Stage.FILTER_INPUT, BY_TRACKED))
SEVERAL = [
    ("the others are enough for the share", PacketExpectation(Fate.DELIVERED, "ok", share=Bounds(0.5, None)), True),
    ("all are needed", PacketExpectation(Fate.DELIVERED, "ok"), None),
    ("too few even with it", PacketExpectation(DROPPED, "ok", share=Bounds(0.5, None)), False),
    ("both ends are no forwarding", PacketExpectation(Fate.FORWARDED, "ok", share=Bounds(0.0, 0.0)), True),
    (
        "an end at the stage is possible",
        PacketExpectation(DROPPED, "ok", Stage.FILTER_INPUT, share=Bounds(1 / 3, None)),
        None,
    ),
    ("no end at that stage is", PacketExpectation(DROPPED, "ok", Stage.RAW, share=Bounds(0.0, 0.0)), True),
    ("no end that early is", PacketExpectation(DROPPED, "ok", at_or_before=Stage.RAW, share=Bounds(0.0, 0.0)), True),
    ("the entry may drop it", EntryExpectation(BY_TRACKED, Bounds(0, 1)), True),
    ("or may not", EntryExpectation(BY_TRACKED, Bounds(1, 1)), None),
    ("it cannot drop two", EntryExpectation(BY_TRACKED, Bounds(2, None)), False),
    ("another entry does not", EntryExpectation("gnp/x ingress[0]", Bounds(0, 0)), True),
]


@pytest.mark.parametrize(("expectation", "holds"), [row[1:] for row in SEVERAL], ids=[row[0] for row in SEVERAL])
def test_a_predicted_packet_with_several_possible_ends_counts_both_ways(
    expectation: Expectation, holds: bool | None
) -> None:
    found = _evaluate(expectation, TRAFFIC, replace(ends(), several={9: EITHER}))
    assert found.holds is holds


def test_it_says_how_many_may_end_either_way() -> None:
    given = replace(ends(), several={9: EITHER})
    found = _evaluate(PacketExpectation(Fate.DELIVERED, "ok"), TRAFFIC, given)
    assert found.found == "2 of 3 packets; 1 of them may end either way"
    assert _evaluate(EntryExpectation(BY_TRACKED, Bounds(0, 1)), TRAFFIC, given).found == (
        "0 packets; 1 more have several possible ends"
    )


def test_expectations_may_be_about_tracked_entries_and_defaults() -> None:
    result = scenario_result("normal-policy", ModeChoice.RAW, drill=False)
    assert holding(result.outcomes) == [True] * 7 + [None], "only a drill knows what is in conntrack's table"
