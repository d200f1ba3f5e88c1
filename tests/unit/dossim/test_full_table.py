"""A replay that fills the table: the packets after that are undetermined, their number is compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dossim.drill.full_table import Compared, with_full_table
from dossim.drill.results import DrillResult, PredictResult
from dossim.drill.run import predict_capture
from dossim.drill.situation import situation_for
from dossim.exhaustion.table import LINUX_DEFAULTS
from dossim.model.disposition import Fate
from dossim.observe import Observations
from dossim.packet.capture import Capture
from dossim.predict.prediction import FATE_CODE, STAGE_CODE
from dossim.report.json import as_dict
from dossim.report.view import view_of
from dossim.scenario.expect import _agreement, ends_of
from dossim.verify.compare import verify
from enforcer.model.conntrack import ConntrackFacts, ConntrackStatistics
from enforcer.model.vocabulary import Stage
from enforcer.policy.resources import Resources
from tests.support.frames import ME4, ethernet, ipv4, segment
from tests.unit.dossim import fabricated

SOURCE = "198.51.100.9"
LIMIT, FLOWS = 1_000, 3_000


def frame(port: int) -> bytes:
    datagram = segment(17, SOURCE, ME4, (port, 9), b"")
    return ethernet(ipv4(datagram, source=SOURCE, destination=ME4, protocol=17), 0x0800)


@pytest.fixture(scope="module")
def result() -> PredictResult:
    capture = Capture.from_frames([frame(1024 + number) for number in range(FLOWS)])
    return predict_capture(capture, situation_for(Resources(), capture=capture, node="jasper"))


def facts(dropped: int, *, limit: int = LIMIT) -> ConntrackFacts:
    statistics = ConntrackStatistics(dropped=dropped, early_drop=FLOWS - LIMIT - dropped)
    return replace(LINUX_DEFAULTS, max=limit, count=LIMIT, statistics=statistics)


def observed(result: PredictResult, dropped: int) -> Observations:
    """As predicted, but the last packets were dropped at conntrack."""
    fate, stage = result.prediction.fate.copy(), result.prediction.stage.copy()
    if dropped:
        fate[-dropped:], stage[-dropped:] = FATE_CODE[Fate.DROPPED], STAGE_CODE[Stage.CONNTRACK]
    packets = len(fate)
    return fabricated.observed(fate, stage, np.zeros(packets, np.int32), ("",))


def compared(result: PredictResult, dropped: int, found: ConntrackFacts, *, replay_s: float = 0.5) -> Compared:
    return with_full_table(
        result.capture,
        result.prediction,
        result.prediction,
        observed(result, dropped),
        host=result.situation.host,
        facts=found,
        replay_s=replay_s,
    )


def drilled(result: PredictResult, dropped: int, counter: int | None = None) -> DrillResult:
    found = facts(dropped if counter is None else counter)
    both = compared(result, dropped, found)
    seen = observed(result, dropped)
    verification = verify(both.prediction, seen, entries=(), counters={}, summary=lambda _: "", sent=both.sent)
    totals = replace(result.totals, ends=both.prediction.ends())
    return DrillResult(
        **{**vars(result), "prediction": both.prediction, "totals": totals},
        verification=verification,
        observations=seen,
        conntrack_entries=LIMIT,
        kernel="6.18.0",
        driver="veth",
        conntrack=found.statistics,
        full=both.full,
    )


def test_a_table_with_room_changes_nothing(result: PredictResult) -> None:
    found = compared(result, 0, facts(0, limit=FLOWS))
    assert found.full is None
    assert found.prediction is result.prediction


def test_the_packets_after_the_limit_are_undetermined_and_agree_however_each_ended(result: PredictResult) -> None:
    drill = drilled(result, 1_870)
    assert drill.full is not None
    assert drill.full.agrees, drill.full
    verification = drill.verification
    assert (verification.matched, verification.undetermined, verification.mismatched) == (LIMIT, FLOWS - LIMIT, 0)
    view = view_of(drill)
    assert view.holds
    assert "dropped by chance" in view.open_reasons[0][0]
    assert "counted 1,870 and 130" in as_dict(view)["conntrack_full"]
    assert _agreement(drill).holds
    assert ends_of(drill).undetermined == 0, "conntrack counted every packet as it was sent"


@pytest.mark.parametrize("dropped", [0, 1_000, 2_000])
def test_a_count_outside_the_interval_disagrees(result: PredictResult, dropped: int) -> None:
    drill = drilled(result, dropped)
    assert drill.full is not None
    assert not drill.full.agrees
    view = view_of(drill)
    assert not view.holds
    assert f"predicted != observed: {drill.full}" in view.verdict
    assert _agreement(drill).holds is False


def test_a_drop_before_the_table_can_be_full_is_a_mismatch(result: PredictResult) -> None:
    assert drilled(result, FLOWS - LIMIT + 1, counter=1_870).verification.mismatched == 1


def test_a_replay_longer_than_a_timeout_may_drop_nothing(result: PredictResult) -> None:
    full = compared(result, 0, facts(0), replay_s=31.0).full
    assert full is not None
    assert full.dropped.low == 0
    # For mypy: not None here
    assert full.dropped.high == compared(result, 0, facts(0)).full.dropped.high  # type: ignore[union-attr]
